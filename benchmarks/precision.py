"""Whether an agent learns the same in bfloat16, and how fast: python benchmarks/precision.py [--agent dreamerv3_tiny]

Random actions are collected in a dm_control task; then agents with the same first weights make 200 updates on the same
batches, in turns: in float32, in bfloat16, and in float32 with other noise of their updates (what is sampled differs),
which shows how far losses are apart by chance. The table has, for windows of 50 updates, the mean absolute difference
of each loss from that of the first agent: bfloat16 / other noise. The ratio is the median over updates of their time in
float32 over that in bfloat16. The last line says what `precision=auto` picks for such a run here.
"""

import argparse
import copy
import statistics
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np

from mbrl_pvr.build import EnvFacts, build_agent
from mbrl_pvr.config import load_config
from mbrl_pvr.precision import pick_precision
from mbrl_pvr.replay import Replay
from mbrl_pvr.seeding import rng
from mbrl_pvr.session import Session, open_session
from world_models.agent import Agent

WINDOW = 50
LEARNERS = ("float32", "bfloat16", "other noise")


def learner(session: Session, name: str) -> tuple[Agent, Replay]:
    """An agent with the run's first weights, and a replay of its own, since it refreshes the states kept there."""
    how: dict[str, Any] = {"compiled": False, "precision": "bfloat16" if name == "bfloat16" else "float32"}
    agent: Any = build_agent(
        session.config, session.features, EnvFacts.of(session.collector.env), session.device, **how
    )
    if name == "other noise":
        agent.seed += 1  # of updates: its weights are drawn
    return agent, copy.deepcopy(session.replay)


def update(agent: Agent, replay: Replay, number: int) -> tuple[dict[str, float], float]:
    """Losses and seconds of one update; batches depend on its number alone."""
    batch = replay.sample(agent.sequence, rng(0, "sample", number))
    start = time.perf_counter()
    metrics = agent.update(batch)
    losses = {name: value.item() for name, value in metrics.items() if name.endswith("_loss")}
    seconds = time.perf_counter() - start
    replay.refresh(batch)
    return losses, seconds


def learn(session: Session, updates: int) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, list[float]]]:
    """Losses (updates,) by learner and name, and seconds by learner; the first update is not timed."""
    learners = {name: learner(session, name) for name in LEARNERS}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in LEARNERS}
    seconds: dict[str, list[float]] = {name: [] for name in LEARNERS}
    for number in range(updates):
        for name, (agent, replay) in learners.items():
            losses, took = update(agent, replay, number)
            rows[name].append(losses)
            if number:
                seconds[name].append(took)
    curves = {name: {loss: np.array([row[loss] for row in found]) for loss in found[0]} for name, found in rows.items()}
    return curves, seconds


def windows(curve: np.ndarray) -> list[float]:
    """Means over windows."""
    return [float(curve[i : i + WINDOW].mean()) for i in range(0, len(curve), WINDOW)]


def table(curves: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """A row for each loss."""
    exact, half, other = (curves[name] for name in LEARNERS)
    count = len(windows(next(iter(exact.values()))))
    heads = [f"{i * WINDOW + 1} to {(i + 1) * WINDOW}" for i in range(count)]
    lines = [f"| loss | first | last | {' | '.join(heads)} |", "|---" * (3 + count) + "|"]
    for loss, curve in exact.items():
        level = windows(curve)
        pairs = zip(windows(abs(half[loss] - curve)), windows(abs(other[loss] - curve)), strict=True)
        cells = " | ".join(f"{near:.2g} / {chance:.2g}" for near, chance in pairs)
        lines.append(f"| {loss.removesuffix('_loss')} | {level[0]:.3g} | {level[-1]:.3g} | {cells} |")
    return lines


def main() -> None:
    """Collect, learn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="dreamerv3_tiny")
    parser.add_argument("--env", default="dmc/walker-walk")
    parser.add_argument("--steps", type=int, default=3000, help="agent steps with random actions")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as of train")
    asked = parser.parse_args()
    lengths = [f"random_steps={asked.steps}", f"steps={2 * asked.steps}"]
    run = [f"agent={asked.agent}", f"env={asked.env}", "env.render=fast", "threads=1", "sinks=[]"]
    config = load_config([*run, *lengths, *asked.overrides])
    with tempfile.TemporaryDirectory() as folder, open_session(config, f"{folder}/run") as session:
        session.collector.start()
        while session.collector.steps < asked.steps:
            session.collector.send(explore_randomly=True)
            session.collector.receive()
        curves, seconds = learn(session, asked.updates)
        facts, auto = EnvFacts.of(session.collector.env), replace(session.config, precision="auto")
        picked = pick_precision(auto, session.features, facts, session.device)
    print("\n".join(table(curves)))
    ratios = [a / b for a, b in zip(seconds["float32"], seconds["bfloat16"], strict=True)]
    again = [a / b for a, b in zip(seconds["float32"], seconds["other noise"], strict=True)]
    print(f"\nAn update: {statistics.median(seconds['float32']) * 1000:.0f} ms in float32;", end=" ")
    print(f"bfloat16 is {statistics.median(ratios):.2f} times as fast, float32 again {statistics.median(again):.2f}.")
    print(f"precision=auto picks {picked}.")


if __name__ == "__main__":
    main()
