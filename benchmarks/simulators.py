"""Frames a second of each simulator, with and without shifts: python benchmarks/simulators.py [--family dmc …]

A row is one task, resolution, way of drawing and number of worker processes. Agents' steps with random actions go
through the workers as in training, encoder and learner apart; environments with and without shifts live side by side
and take turns, so that other load falls on both. Frames are those of all workers together; their ratio is what may be
quoted; compare rows only where the machine was idle (`--note` says what else it did). A simulator that does not start
here is a row with its reason.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from mbrl_pvr import envs
from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.actions import random_actions
from mbrl_pvr.errors import Error

ROUNDS = 6
STEPS = 25  # of a round
SIZES = (64, 128, 224)
FAMILIES = ("dmc", "miniworld", "maniskill", "gym")


def rows(families: list[str]) -> Iterator[tuple[EnvConfig, int]]:
    """Configurations and numbers of workers."""
    if "dmc" in families:
        task = EnvConfig("dmc/walker-walk", shifts="study")
        for render in ("standard", "fast"):
            for size in SIZES:
                yield replace(task, render=render, size=size), 1
        yield replace(task, backend="osmesa"), 1
        for workers in (2, 4):
            yield task, workers
    if "miniworld" in families:
        task = EnvConfig("miniworld/PickupObjects", action_repeat=1, shifts="study")
        for size in SIZES:
            yield replace(task, size=size), 1
        yield task, 2
    if "maniskill" in families:
        task = EnvConfig("maniskill/StackCube-v1", action_repeat=1, shifts="study")
        for size in SIZES:
            yield replace(task, size=size), 1
        yield task, 2
    if "gym" in families:  # a hand of Adroit, whose finished frames alone are shifted
        task = EnvConfig("gym:gymnasium_robotics:AdroitHandDoor-v1", action_repeat=1, shifts="noise")
        for size in SIZES:
            yield replace(task, size=size), 1
        yield task, 2


def measure(config: EnvConfig, workers: int) -> tuple[float, float]:
    """Frames a second without and with the shift: medians over rounds."""
    noise = np.random.default_rng(0)
    with ExitStack() as stack:
        pair = [
            stack.enter_context(envs.make(choice, num=workers, seed=0, stream="speed"))
            for choice in (replace(config, shifts="none"), config)
        ]
        seconds: list[list[float]] = [[], []]
        for env in pair:
            env.reset(episode=0)
        for _ in range(1 + ROUNDS):  # the first prepares: shaders, textures
            for env, took in zip(pair, seconds, strict=True):
                start = time.perf_counter()
                for _ in range(STEPS):
                    step = env.step(random_actions(env.action_spec, workers, noise))
                    assert not step.is_last.any(), "rounds lie inside one episode"
                took.append(time.perf_counter() - start)
    plain, other = (STEPS * workers / statistics.median(took[1:]) for took in seconds)
    return plain, other


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args()
    if args.note:
        print(args.note + "\n")
    print("| task | pixels | drawn by | render | workers | frames/s | shifts | frames/s | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for config, workers in rows(args.family):
        dmc = config.name.startswith("dmc")
        backend = {"miniworld": "egl", "maniskill": "vulkan"}.get(config.name.partition("/")[0], config.backend)
        head = f"| {config.name} | {config.size} | {backend} | {config.render if dmc else ''} | {workers} |"
        try:
            plain, other = measure(config, workers)
        except Error as error:
            print(f"{head} {str(error).splitlines()[0]} | | | |", flush=True)
            continue
        print(f"{head} {plain:.0f} | {config.shifts} | {other:.0f} | {other / plain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
