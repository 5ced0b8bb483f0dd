"""Returns over imagined and replayed sequences, as pure functions; time comes first."""

import torch
from torch import Tensor


def lambda_return(reward: Tensor, live: Tensor, keep: Tensor, boot: Tensor) -> Tensor:
    """Rₜ = rₜ₊₁ + lₜ₊₁ [(1 - kₜ₊₁) vₜ₊₁ + kₜ₊₁ Rₜ₊₁], backwards from R_T = v_T; (T, N) to (T - 1, N).

    reward[t] arrives with state t; live is γ where an episode goes on behind state t, 0 where it has ended; keep is λ,
    and 0 where the sequence breaks off behind state t; boot are the values v. Equation 6 of arXiv 2301.04104v2.
    """
    assert reward.shape == live.shape == keep.shape == boot.shape, (reward.shape, live.shape, keep.shape, boot.shape)
    one_step = reward[1:] + (1 - keep[1:]) * live[1:] * boot[1:]
    carried = live[1:] * keep[1:]
    found = [boot[-1]]
    for t in reversed(range(len(carried))):
        found.append(torch.addcmul(one_step[t], carried[t], found[-1]))
    return torch.stack(found[:0:-1])


def move_percentiles(running: Tensor, returns: Tensor, rate: float) -> Tensor:
    """The running 5th and 95th percentile (2,), moved towards those of `returns` (any shape)."""
    levels = torch.tensor([0.05, 0.95], device=returns.device, dtype=returns.dtype)
    return torch.lerp(running, torch.quantile(returns.flatten(), levels), rate)


def return_scale(percentiles: Tensor) -> Tensor:
    """What advantages are divided by: the range of returns, never less than 1, so that small ones stay small."""
    return (percentiles[1] - percentiles[0]).clamp(min=1.0)
