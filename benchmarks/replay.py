"""Bytes a step and time of one sample of replay: python benchmarks/replay.py

768-d features in float16, action size 6, as TD-MPC2 samples them (256 sequences of 4, stacks of 3) and as DreamerV3
will (16 of 64), from a buffer of 200,000 steps that has wrapped around.
"""

import statistics
import time

import numpy as np

from mbrl_pvr.replay import Replay
from mbrl_pvr.seeding import rng
from world_models.types import ObsShapes, SequenceSpec

CAPACITY, EPISODE, FEATURE, ACTIONS = 200_000, 500, 768, 6
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


def main() -> None:
    """Print the figures."""
    replay = Replay(ObsShapes(feature=(FEATURE,)), ACTIONS, CAPACITY, 1)
    print(f"{replay.bytes_per_step} bytes a step; 1 M steps: {replay.bytes_per_step * 1e6 / 1e9:.3f} GB")
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
