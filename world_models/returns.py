"""Targets, weights and scales over time, as pure functions."""

import torch
from torch import Tensor


def discount_for(episode_length: int, denominator: float, low: float, high: float) -> float:
    """γ = 1 - denominator / episode_length, clipped to [low, high] (TD-MPC2, appendix: discount heuristic)."""
    fraction = episode_length / denominator
    return min(max((fraction - 1) / fraction, low), high)


def td_target(reward: Tensor, terminal: Tensor, value: Tensor, discount: float) -> Tensor:
    """Gₜ = rₜ + γ (1 - dₜ) vₜ, step by step; all (T, B), terminal 1.0 where the value after the step is zero."""
    assert reward.shape == terminal.shape == value.shape, (reward.shape, terminal.shape, value.shape)
    return reward + discount * (1 - terminal) * value


def step_weights(rho: float, steps: int, like: Tensor) -> Tensor:
    """(1, ρ, ρ², …) as (steps, 1), to weigh (T, B) losses."""
    return torch.pow(rho, torch.arange(steps, device=like.device, dtype=like.dtype)).unsqueeze(-1)


def percentile_range(x: Tensor, low: float = 5, high: float = 95) -> Tensor:
    """Distance of two percentiles of x (B,), linearly interpolated between its sorted values."""
    ordered = x.sort().values
    last = x.shape[0] - 1

    def percentile(percent: float) -> Tensor:
        position = percent / 100 * last
        below = int(position)
        weight = position - below
        return ordered[below] * (1 - weight) + ordered[min(below + 1, last)] * weight

    return percentile(high) - percentile(low)


def next_scale(scale: Tensor, values: Tensor, tau: float) -> Tensor:
    """The running scale of values (B,): S ← (1 - τ) S + τ max(1, percentile range)."""
    return torch.lerp(scale, percentile_range(values).clamp(min=1.0), tau)
