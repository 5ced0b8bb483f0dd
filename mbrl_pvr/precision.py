"""What updates and acting compute in: `precision`, where "auto" is decided by a probe at the start of a run."""

import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mbrl_pvr.build import EnvFacts, build_agent
from mbrl_pvr.config import RunConfig
from mbrl_pvr.features import Features
from pvr_zoo.fast import HOPELESS, PAYS, ratio
from world_models.precision import products
from world_models.types import Batch, Obs, ObsShapes, SequenceSpec

_ROUNDS = 2  # updates in each precision that take turns, after one that prepares


@dataclass(frozen=True)
class UpdatePrecision:
    """What an agent computes products in."""

    name: str  # float32 or bfloat16
    speedup: float | None = None  # of an update in bfloat16 over one in float32 here; None where it was not measured

    def __str__(self) -> str:
        measured = "" if self.speedup is None else f" (bfloat16 is {self.speedup:.2g} times as fast here)"
        return self.name + measured


def pick_precision(config: RunConfig, features: Features, facts: EnvFacts, device: torch.device) -> UpdatePrecision:
    """`config.precision`; "auto" becomes bfloat16 where updates of agents like the run's are faster in it.

    The agents of the probe are its own; the run's encoder, generators and memory are left as they were.
    """
    if config.precision != "auto":
        return UpdatePrecision(config.precision)
    speedup = _look(device)
    if speedup >= HOPELESS:
        speedup = _speedup(config, features, facts, device)
    return UpdatePrecision("bfloat16" if speedup >= PAYS else "float32", speedup)


def _look(device: torch.device) -> float:
    """How many times as fast a layer and a convolution are: without instructions for bfloat16 it may be a hundredth."""
    rows, weight = torch.ones(256, 512, device=device), torch.ones(512, 512, device=device)
    image, kernel = torch.ones(8, 16, 32, 32, device=device), torch.ones(16, 16, 5, 5, device=device)

    @torch.no_grad()
    def layers(precision: str) -> None:
        with products(device, precision):
            F.linear(rows, weight)
            F.conv2d(image, kernel, padding=2)

    return ratio((partial(layers, "float32"), partial(layers, "bfloat16")), 1)


def _speedup(config: RunConfig, features: Features, facts: EnvFacts, device: torch.device) -> float:
    """How many times as fast updates are, uncompiled, on a batch of noise."""
    agents = []
    for precision in ("float32", "bfloat16"):
        own = copy.copy(features)
        own.tail = copy.deepcopy(features.tail)  # it learns with the agent
        agents.append(build_agent(config, own, facts, device, compiled=False, precision=precision))
    batch = noise(features.shapes, facts, agents[0].sequence)
    one, other = (partial(agent.update, batch) for agent in agents)
    return ratio((one, other), _ROUNDS)


def noise(shapes: ObsShapes, facts: EnvFacts, spec: SequenceSpec) -> Batch:
    """What replay might give an agent: sequences in the middle of episodes."""
    lead, stack, g = (spec.batch, spec.length), (spec.batch, spec.length, spec.stack), torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    never = torch.zeros(lead, dtype=torch.bool)
    obs = Obs(
        never,
        None if shapes.feature is None else normal(*stack, *shapes.feature).half(),
        None if shapes.pixels is None else torch.randint(256, (*stack, *shapes.pixels), dtype=torch.uint8, generator=g),
        None if shapes.proprio is None else normal(*lead, shapes.proprio),
    )
    action = normal(*lead, facts.action_dim).clamp(-1, 1)
    if facts.discrete:
        action = F.one_hot(action.argmax(-1), facts.action_dim).float()
    batch = Batch(obs, action, normal(*lead), never, never)
    if not spec.carried:
        return batch
    carried = torch.zeros(spec.batch, spec.length + 1, spec.carried, dtype=torch.float16)
    return replace(batch, carried=carried)
