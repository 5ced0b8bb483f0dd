"""Collection, steps a second by encoder, and where the time goes: python benchmarks/collection.py [--ticks 200]

Each row runs the real collector (worker process, encoder, replay) with the demo's agent on dmc/finger-spin, without
updates. env: simulator alone; render: drawing; encode: `Features.view`; plan: `Agent.act`; store: `Replay.add`.
`overhead` is what the collector adds to simulating, drawing and the bare forward pass, done one after the other in one
process (the pipe to the worker, copies, float16, bookkeeping). Weights do not matter for time: ImageNet encoders run as
their random twins.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mbrl_pvr.build import build_encoder, env_config, setup_process
from mbrl_pvr.config import RunConfig, load_config
from mbrl_pvr.envs.lane import Lane
from mbrl_pvr.envs.registry import build_env
from mbrl_pvr.session import open_session

ENCODERS = ("state", "scratch", "embedded", "random_resnet18", "random_resnet50", "random_vits16")
TASK = "dmc/finger-spin"


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of one call, after two for warming up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def alone(config: RunConfig, ticks: int) -> tuple[float, float, float]:
    """Seconds of one simulator step, of one picture, and of one bare forward pass, in this process."""
    choice = env_config(config)
    env = build_env(replace(choice, max_steps=None), "train")
    lane = Lane(env, seed=1, stream="benchmark", index=0)
    lane.reset()
    action = np.zeros(env.action_spec.dim, np.float32)
    step = seconds(lambda: env.begin(np.random.SeedSequence(1)) if env.act(action)[2] else None, ticks)
    draw = seconds(env.frame, ticks) if choice.pixels else 0.0
    encoder = build_encoder(config, torch.device("cpu"))
    forward = 0.0
    if encoder is not None:
        frame = torch.from_numpy(env.frame())[None]
        with torch.inference_mode():
            forward = seconds(lambda: encoder(frame), ticks)
    env.close()
    return step, draw, forward


def collect(config: RunConfig, ticks: int, folder: str, *, explore_randomly: bool) -> tuple[float, dict[str, float]]:
    """Seconds a tick of the real collector, and the parts of it that its own clock names."""
    with open_session(config, folder) as session:
        collector = session.collector
        collector.start()
        collector.clock.take()
        times = []
        for _ in range(ticks):
            start = time.perf_counter()
            collector.send(explore_randomly=explore_randomly)
            collector.receive()
            times.append(time.perf_counter() - start)
        return statistics.median(times), {k: v / ticks for k, v in collector.clock.take().items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=200)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    args = parser.parse_args()
    print("| encoder | steps/s, random | steps/s, planning | env | render | encode | plan | store | overhead |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.encoders:
        config = load_config([f"encoder={name}", f"env={TASK}", "sinks=[]", "env.shifts=none"], "demo")
        setup_process(config.threads)
        step, draw, forward = alone(config, args.ticks)
        with tempfile.TemporaryDirectory() as folder:
            blind, _ = collect(config, args.ticks, f"{folder}/a", explore_randomly=True)
            seeing, parts = collect(config, args.ticks, f"{folder}/b", explore_randomly=False)
        cells = [1000 * x for x in (step, draw, parts["encode"], parts["plan"], parts["store"])]
        row = " | ".join(f"{ms:.2f} ms" for ms in cells)
        overhead = blind / (step + draw + forward) - 1
        print(f"| {name} | {1 / blind:.0f} | {1 / seeing:.0f} | {row} | {overhead:+.0%} |", flush=True)


if __name__ == "__main__":
    main()
