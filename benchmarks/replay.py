"""Bytes a step and time of one sample of replay: python benchmarks/replay.py

Bytes of TD-MPC2 and the 12M DreamerV3, with and without the recurrent state that the latter keeps (context=replayed or
zero), by what they see and reconstruct; action size 6. Samples of 768-d features in float16, as TD-MPC2 takes them (256
sequences of 4, stacks of 3) and as DreamerV3 does (16 of 64), from a buffer of 200,000 steps that has wrapped around.
"""

import statistics
import time

import numpy as np

from mbrl_pvr.replay import Replay, row_bytes
from mbrl_pvr.seeding import rng
from world_models.dreamerv3.config import DreamerV3Config
from world_models.types import ObsShapes, SequenceSpec

CAPACITY, EPISODE, FEATURE, ACTIONS = 200_000, 500, 768, 6
PIXELS = (64, 64, 3)
KEPT = {
    "768-d feature": ObsShapes(feature=(FEATURE,)),
    "64×64 pixels": ObsShapes(pixels=PIXELS),
    "768-d feature, 64×64 pixels reconstructed": ObsShapes(feature=(FEATURE,), pixels=PIXELS, drawn_only=True),
}
SPECS = {"TD-MPC2: 256 × 4, stack 3": SequenceSpec(256, 4, 3), "DreamerV3: 16 × 64": SequenceSpec(16, 64, 1, False)}


def fill(replay: Replay, ticks: int) -> None:
    """Episodes of EPISODE steps with random content."""
    noise = rng(0, "fill")
    feature = noise.standard_normal((1, FEATURE)).astype(np.float16)
    action = noise.uniform(-1, 1, (1, ACTIONS)).astype(np.float32)
    for t in range(ticks):
        at = t % (EPISODE + 1)
        flags = {"is_first": np.array([at == 0]), "is_last": np.array([at == EPISODE])}
        reward = np.zeros(1, np.float32)
        replay.add(feature=feature, action=action, reward=reward, is_terminal=np.array([False]), **flags)


def print_bytes() -> None:
    """Bytes of one step, as the rows of a table: TD-MPC2, DreamerV3 without and with its state."""
    state = DreamerV3Config(size="12M").carried
    for name, shapes in KEPT.items():
        plain, carried = (row_bytes(shapes, ACTIONS, numbers) for numbers in (0, state))
        tdmpc2 = "" if shapes.drawn_only else f"{plain:,}"  # it reconstructs nothing
        print(f"| {name} | {tdmpc2} | {plain:,} | {carried:,} | {plain / 1e3:.2f} | {carried / 1e3:.2f} |")


def main() -> None:
    """Print the figures."""
    print_bytes()
    replay = Replay(ObsShapes(feature=(FEATURE,)), ACTIONS, CAPACITY, 1)
    fill(replay, CAPACITY + CAPACITY // 10)
    for name, spec in SPECS.items():
        times = []
        for k in range(60):
            start = time.perf_counter()
            replay.sample(spec, rng(0, "sample", k))
            times.append(time.perf_counter() - start)
        print(f"{name}: median {1000 * statistics.median(times[10:]):.2f} ms a sample")


if __name__ == "__main__":
    main()
