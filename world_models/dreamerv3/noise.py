"""Every random number of an update and of an act, drawn beforehand from counters and handed in; see tdmpc2/noise.py."""

from dataclasses import dataclass

import torch
from torch import Tensor

from world_models.dreamerv3.config import DreamerV3Config
from world_models.seeding import generator
from world_models.types import ActionSpec


def action_noise(shape: tuple[int, ...], action: ActionSpec, g: torch.Generator) -> Tensor:
    """What one sampled action takes: normal draws (*, A), or one uniform draw (*, 1) for a choice."""
    if action.discrete:
        return torch.rand(*shape, 1, generator=g, device=g.device)
    return torch.randn(*shape, action.dim, generator=g, device=g.device)


@dataclass(frozen=True)
class ExploreNoise:
    """One update's draws of the collecting actor, where it is not the task's."""

    prior: Tensor  # (H, T B, S) uniform
    action: Tensor  # (H + 1, T B, A), or (…, 1): disagreement asks for an action in the last state too

    @classmethod
    def draw(cls, config: DreamerV3Config, batch: int, action: ActionSpec, g: torch.Generator) -> "ExploreNoise":
        """From a generator."""
        H, N = config.imagination, config.batch_length * batch
        prior = torch.rand(H, N, config.latents, generator=g, device=g.device)
        return cls(prior, action_noise((H + 1, N), action, g))


@dataclass(frozen=True)
class UpdateNoise:
    """One update's draws; imagination starts from each of the T B replayed states."""

    posterior: Tensor  # (T, B, S) uniform
    prior: Tensor  # (H, T B, S) uniform
    action: Tensor  # (H, T B, A), or (…, 1) for discrete actions
    explore: ExploreNoise | None = None  # with exploration

    @classmethod
    def draw(
        cls, config: DreamerV3Config, batch: int, action: ActionSpec, seed: int, count: int, device: torch.device
    ) -> "UpdateNoise":
        """The draws of update number `count`."""
        T, H, S = config.batch_length, config.imagination, config.latents
        g = generator(device, seed, "update", count)
        explore = None
        if config.exploration > 0:
            explore = ExploreNoise.draw(config, batch, action, generator(device, seed, "explore", count))
        return cls(
            posterior=torch.rand(T, batch, S, generator=g, device=g.device),
            prior=torch.rand(H, T * batch, S, generator=g, device=g.device),
            action=action_noise((H, T * batch), action, g),
            explore=explore,
        )


@dataclass(frozen=True)
class ActNoise:
    """One act's draws for N environments."""

    posterior: Tensor  # (N, S) uniform
    action: Tensor  # (N, A), or (N, 1)

    @classmethod
    def draw(
        cls, config: DreamerV3Config, n: int, action: ActionSpec, seed: int, step: int, device: torch.device
    ) -> "ActNoise":
        """The draws of environment i are a function of (seed, step, i)."""
        streams = [generator(device, seed, "act", step, i) for i in range(n)]
        return cls(
            torch.stack([torch.rand(config.latents, generator=g, device=g.device) for g in streams]),
            torch.stack([action_noise((), action, g) for g in streams]),
        )
