"""Collection, steps a second by encoder, and where the time goes: python benchmarks/collection.py [--learning]

Each row runs the real collector (worker process, encoder, replay) with the demo's agent on dmc/finger-spin, without
updates. env: simulator alone; render: drawing; encode: `Features.view`; plan: `Agent.act`; store: `Replay.add`.
`overhead` is what a step of the collector takes beyond a bare loop of simulating, drawing and forward pass in one
process (the pipe to the worker, copies, float16, bookkeeping); the loops take turns, and both draw with one thread.
With several environments every figure is of one step: a tick's time, divided by their number.
With --learning, an update runs between sending actions and receiving frames, as in training, where the worker simulates
and draws meanwhile: then a step costs the learner what it waits, encodes and stores. Give it --threads 1 on two cores.
Weights do not matter for time: ImageNet encoders run as their random twins.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch

from mbrl_pvr.build import build_encoder, env_config, setup_process
from mbrl_pvr.config import RunConfig, load_config
from mbrl_pvr.envs.registry import build_env
from mbrl_pvr.schedule import Stopwatch
from mbrl_pvr.session import Session, open_session

ENCODERS = ("state", "scratch", "embedded", "random_resnet18", "random_resnet50", "random_vits16")
TASK = "dmc/finger-spin"
COLLECTING = "steps/s, random | steps/s, planning | env | render | encode | plan | store | overhead"
LEARNING = "bare loop | step with update | waits | encode | store | overhead"


os.environ["LP_NUM_THREADS"] = "1"  # of Mesa's software rasteriser, as in the workers
ROUNDS = 5  # in which loops take turns
FIRST = 5  # ticks of a loop that are not timed


class Bare:
    """The shortest loop that gives the same features: simulate, draw, forward, in this process and nothing else."""

    def __init__(self, config: RunConfig) -> None:
        self.choice = env_config(config)
        self.env = build_env(self.choice, "train")
        self.encoder = build_encoder(config, torch.device("cpu"))[0]
        self.action = np.zeros(self.env.action_spec.dim, np.float32)
        self.seconds: list[float] = []  # of each tick
        self.clock = Stopwatch()
        self.env.begin(np.random.SeedSequence(1))

    @torch.inference_mode()
    def run(self, ticks: int) -> None:
        """Ticks of the loop, each timed."""
        for _ in range(ticks):
            start = time.perf_counter()
            with self.clock("env"):
                if self.env.act(self.action)[2]:
                    self.env.begin(np.random.SeedSequence(1))
            if self.choice.pixels:
                with self.clock("render"):
                    frame = self.env.frame()
            if self.encoder is not None:
                self.encoder(torch.from_numpy(frame)[None])
            self.seconds.append(time.perf_counter() - start)


class Collection:
    """The real collector of a run, with its worker process and its replay; `meanwhile` runs while the worker works."""

    def __init__(
        self, session: Session, *, explore_randomly: bool, meanwhile: Callable[[], object] | None = None
    ) -> None:
        self.collector, self.explore_randomly, self.meanwhile = session.collector, explore_randomly, meanwhile
        self.seconds: list[float] = []
        self.collector.start()
        self.collector.clock.take()

    def run(self, ticks: int) -> None:
        """Ticks of collection, each timed."""
        for _ in range(ticks):
            start = time.perf_counter()
            self.collector.send(explore_randomly=self.explore_randomly)
            if self.meanwhile is not None:
                self.meanwhile()
            self.collector.receive()
            self.seconds.append(time.perf_counter() - start)


def turns(loops: Sequence[Bare | Collection], ticks: int) -> list[float]:
    """Median seconds of a tick of loops that take turns, after first ticks, which are slow."""
    for loop in loops:
        loop.run(FIRST)
        loop.seconds.clear()
    for _ in range(ROUNDS):
        for loop in loops:
            loop.run(ticks)
    return [statistics.median(loop.seconds) for loop in loops]


def learning_row(config: RunConfig, num: int, ticks: int) -> str:
    """One line of the table of --learning."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        bare = Bare(config)
        stack.callback(bare.env.close)
        session = stack.enter_context(open_session(config, f"{folder}/run"))
        collection = Collection(session, explore_randomly=True)
        collection.run(100)  # for a batch
        batch = session.replay.sample(session.agent.sequence, np.random.default_rng(0))
        collection.meanwhile = lambda: session.agent.update(batch)
        session.collector.clock.take()
        floor, tick = turns((bare, collection), ticks)
        clock = session.collector.clock.take()
        parts = [clock[part] / num / (ROUNDS * ticks + FIRST) for part in ("env", "encode", "store")]
        figures = " | ".join(f"{1000 * x:.2f} ms" for x in (floor, tick / num, *parts))
        return f"| {config.encoder.name} | {figures} | {sum(parts) / floor - 1:+.0%} |"


def row(config: RunConfig, num: int, ticks: int) -> str:
    """One line of the table."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        bare = Bare(config)
        stack.callback(bare.env.close)
        blind, seeing = (
            Collection(
                stack.enter_context(open_session(config, f"{folder}/{explore}")), explore_randomly=explore == "random"
            )
            for explore in ("random", "plan")
        )
        floor, without, with_plan = turns((bare, blind, seeing), ticks)
        alone, parts = bare.clock.take(), seeing.collector.clock.take()
        cells = [alone["env"], alone.get("render", 0.0), *(parts[part] / num for part in ("encode", "plan", "store"))]
        split = " | ".join(f"{1000 * x / (ROUNDS * ticks + FIRST):.2f} ms" for x in cells)
        without, with_plan = without / num, with_plan / num
        overhead = f"{1000 * (without - floor):.2f} ms, {without / floor - 1:+.0%}"
        return f"| {config.encoder.name} | {1 / without:.0f} | {1 / with_plan:.0f} | {split} | {overhead} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=60, help="a round, of which there are five")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--envs", type=int, default=1, help="environments, each in a process of its own")
    parser.add_argument("--render", choices=("fast", "standard"), default="fast")
    parser.add_argument("--learning", action="store_true", help="what a step costs beside an update")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: all cores")
    args = parser.parse_args()
    make_row, head = (learning_row, LEARNING) if args.learning else (row, COLLECTING)
    print(f"| encoder | {head} |\n|{'---|' * (head.count('|') + 2)}")
    for name in args.encoders:
        task = [f"env={TASK}", f"env.num={args.envs}", "env.shifts=none", f"env.render={args.render}"]
        config = load_config([f"encoder={name}", *task, f"threads={args.threads}", "sinks=[]"], "demo")
        setup_process(config.threads)
        print(make_row(config, args.envs, args.ticks), flush=True)


if __name__ == "__main__":
    main()
