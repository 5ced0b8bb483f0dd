"""Every random number of an update and of a plan, drawn beforehand from counters and handed in.

So a graph holds no generator, resume needs no generator state, and a test can inject another implementation's draws.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from world_models.seeding import generator
from world_models.tdmpc2.config import TDMPC2Config
from world_models.tdmpc2.encoder import PAD

DRAW_BITS = 16  # a dropout draw is one integer of so many bits


def two_heads(num_q: int, g: Generator) -> list[int]:
    """Two different Q functions."""
    return torch.randperm(num_q, generator=g, device=g.device)[:2].tolist()


def keep_mask(shape: tuple[int, ...], dropout: float, g: Generator) -> Tensor | None:
    """A dropout mask of 0 and 1 / (1 - dropout); the rate is met to 2^-16. None where nothing is dropped."""
    if dropout == 0:
        return None
    count = int(np.prod(shape))
    words = torch.empty(-(-count * DRAW_BITS // 64), dtype=torch.int64, device=g.device)
    draws = words.random_(-(2**63), None, generator=g).view(torch.int16)[:count].view(shape)
    threshold = round(dropout * 2**DRAW_BITS) - 2 ** (DRAW_BITS - 1)
    return (draws >= threshold).float().mul_(1 / (1 - dropout))


@dataclass(frozen=True)
class UpdateNoise:
    """One update's draws, T = H + 1."""

    shift: Tensor  # (T, B, 2) whole pixels
    target_noise: Tensor  # (H, B, A) of the action in the TD target
    target_heads: list[int]  # whose minimum is the target
    value_keep: Tensor | None  # (Q, H, B, M) dropout of the value loss
    policy_noise: Tensor  # (T, B, A)
    policy_heads: list[int]  # whose mean the policy climbs
    policy_keep: Tensor | None  # (2, T, B, M)

    @classmethod
    def draw(
        cls, config: TDMPC2Config, batch: int, actions: int, seed: int, count: int, device: torch.device
    ) -> "UpdateNoise":
        """The draws of update number `count`."""
        H, w = config.horizon, config.widths
        g = generator(device, seed, "update", count)
        heads = generator(torch.device("cpu"), seed, "update-heads", count)
        return cls(
            shift=torch.randint(0, 2 * PAD + 1, (H + 1, batch, 2), generator=g, device=g.device),
            target_noise=torch.randn(H, batch, actions, generator=g, device=g.device),
            target_heads=two_heads(w.num_q, heads),
            value_keep=keep_mask((w.num_q, H, batch, w.mlp_dim), config.dropout, g),
            policy_noise=torch.randn(H + 1, batch, actions, generator=g, device=g.device),
            policy_heads=two_heads(w.num_q, heads),
            policy_keep=keep_mask((2, H + 1, batch, w.mlp_dim), config.dropout, g),
        )


@dataclass(frozen=True)
class PlanNoise:
    """One plan's draws for N environments: P policy trajectories, S samples, I iterations."""

    shift: Tensor  # (N, 2) whole pixels
    prior_noise: Tensor  # (H, N, P, A)
    sample_noise: Tensor  # (I, H, N, S - P, A)
    value_noise: Tensor  # (I, N, S, A) of the action at the horizon
    gumbel: Tensor  # (N, elites)
    explore_noise: Tensor  # (N, A)
    heads: list[list[int]]  # (I, 2), shared by all environments

    @classmethod
    def draw(
        cls, config: TDMPC2Config, iterations: int, n: int, actions: int, seed: int, step: int, device: torch.device
    ) -> "PlanNoise":
        """The draws of environment i are a function of (seed, step, i)."""
        H, P, S, A = config.horizon, config.num_pi_trajs, config.num_samples, actions
        shapes = ((H, P, A), (iterations, H, S - P, A), (iterations, S, A), (A,))
        sizes = [int(np.prod(s)) for s in shapes]
        shifts, normals, uniforms = [], [], []
        for i in range(n):
            g = generator(device, seed, "plan", step, i)
            shifts.append(torch.randint(0, 2 * PAD + 1, (2,), generator=g, device=device))
            normals.append(torch.randn(sum(sizes), generator=g, device=device))
            uniforms.append(torch.empty(config.num_elites, device=device).exponential_(generator=g))
        parts = [x.view(n, *s) for x, s in zip(torch.stack(normals).split(sizes, 1), shapes, strict=True)]
        prior, sample, value, explore = parts
        g = generator(torch.device("cpu"), seed, "plan-heads", step)
        return cls(
            shift=torch.stack(shifts),
            prior_noise=prior.transpose(0, 1).contiguous(),
            sample_noise=sample.permute(1, 2, 0, 3, 4).contiguous(),
            value_noise=value.transpose(0, 1).contiguous(),
            gumbel=-torch.stack(uniforms).log(),
            explore_noise=explore,
            heads=[two_heads(config.widths.num_q, g) for _ in range(iterations)],
        )
