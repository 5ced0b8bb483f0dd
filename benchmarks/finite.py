"""What looking for NaN in a batch costs beside its update: python benchmarks/finite.py

768-d features in float16, action size 6, in turns on one batch: the check, asking every number, and the update (eager).
"""

import statistics
import time
from collections.abc import Callable

import torch

from mbrl_pvr.finite import not_finite, tensors
from world_models.agent import Agent
from world_models.dreamerv3.agent import DreamerV3
from world_models.dreamerv3.config import DreamerV3Config
from world_models.tdmpc2.agent import TDMPC2
from world_models.tdmpc2.config import TDMPC2Config
from world_models.types import ActionSpec, Batch, Obs, ObsShapes, SequenceSpec

SHAPES, ACTIONS, TURNS = ObsShapes(feature=(768,)), ActionSpec(6), 5


def batch(spec: SequenceSpec) -> Batch:
    """Random numbers of the sizes that replay gives."""
    lead, none = (spec.batch, spec.length), torch.zeros(spec.batch, spec.length, dtype=torch.bool)
    carried = torch.zeros(spec.batch, spec.length + 1, spec.carried).half() if spec.carried else None
    obs = Obs(none, feature=torch.randn(*lead, spec.stack, 768).half())
    return Batch(obs, torch.rand(*lead, 6) * 2 - 1, torch.randn(*lead), none, none, carried)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print a line for each agent."""
    small = DreamerV3Config(size="1M", batch_size=8, batch_length=32)
    agents: dict[str, Agent] = {
        "TD-MPC2 5M, 256 × 4": TDMPC2(SHAPES, ACTIONS, TDMPC2Config(), episode_length=500, seed=0),
        "DreamerV3 1M, 8 × 32": DreamerV3(SHAPES, ACTIONS, small, seed=0),
        "DreamerV3 12M, 16 × 64": DreamerV3(SHAPES, ACTIONS, DreamerV3Config(), seed=0),
    }
    for name, agent in agents.items():
        one = batch(agent.sequence)
        held = tensors(one)
        times: list[list[float]] = [[], [], []]
        for _ in range(TURNS):
            each = {k: v for k, v in held.items() if v.is_floating_point()}
            times[0].append(seconds(lambda held=held: not_finite(held)))
            times[1].append(seconds(lambda each=each: [bool(v.isfinite().all()) for v in each.values()]))
            times[2].append(seconds(lambda agent=agent, one=one: agent.update(one)))
        check, every, update = (1000 * statistics.median(row) for row in times)
        share = f"{100 * check / update:.3f} % of an update of {update:.0f} ms"
        print(f"{name}: {check:.2f} ms, {share}; asking every number: {every:.2f} ms")


if __name__ == "__main__":
    main()
