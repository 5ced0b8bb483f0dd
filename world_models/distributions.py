"""Symlog, two-hot regression and squashed Gaussians as pure functions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), the inverse of `symexp` (Hafner et al. 2023)."""
    return torch.sign(x) * torch.log(1 + torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1), the inverse of `symlog`."""
    return torch.sign(x) * (torch.exp(torch.abs(x)) - 1)


def two_hot(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Weights (*, bins) of symlog(x), clipped to [low, high], on its two nearest bins; x is (*,).

    Written as a hat function, weight_k = max(0, 1 - |position - k|), which needs no scatter.
    """
    position = (symlog(x).clamp(low, high) - low) * ((bins - 1) / (high - low))
    index = torch.arange(bins, device=x.device, dtype=x.dtype)
    return F.relu(1 - torch.abs(position.unsqueeze(-1) - index))


def two_hot_mean(logits: Tensor, low: float, high: float) -> Tensor:
    """The scalar (*,) that logits (*, bins) mean: symexp of the expected bin."""
    bins = torch.linspace(low, high, logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return symexp((F.softmax(logits, -1) * bins).sum(-1))


def two_hot_loss(logits: Tensor, target: Tensor, low: float, high: float) -> Tensor:
    """Cross entropy (*,) of logits (*, bins) with the two-hot code of target (*,)."""
    return -(two_hot(target, low, high, logits.shape[-1]) * F.log_softmax(logits, -1)).sum(-1)


def squashed_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Action tanh(mean + std noise) (*, A), its log probability (*,), and that of the Gaussian before tanh (*,)."""
    raw_log_prob = (-0.5 * noise.square() - log_std - HALF_LOG_TAU).sum(-1)
    action = torch.tanh(mean + noise * log_std.exp())
    return action, raw_log_prob - torch.log(F.relu(1 - action.square()) + 1e-6).sum(-1), raw_log_prob


def symexp_bins(bins: int, limit: float = 20.0) -> Tensor:
    """`bins` classes (an odd number) from -symexp(limit) to symexp(limit), evenly spaced in symlog space, 0 exact."""
    half = symexp(torch.linspace(-limit, 0, bins // 2 + 1))
    return torch.cat([half, -half[:-1].flip(0)])


def symexp_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """The scalar (*,) that logits (*, K) over classes (K,) mean.

    Summed from both ends inwards, class by its mirror image, so that a head that says nothing gives 0 and not the
    rounding error of large numbers (Hafner et al. 2025, methods).
    """
    weighted = F.softmax(logits, -1) * bins
    half = bins.shape[0] // 2
    mirrored = weighted[..., :half].flip(-1) + weighted[..., half + 1 :]
    return mirrored.sum(-1) + weighted[..., half]


def symexp_loss(logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy (*,) of logits (*, K) with the two-hot code of target (*,) on classes (K,); clipped to these."""
    target = target.clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, target, right=True).clamp(1, len(bins) - 1)
    low, high = bins[above - 1], bins[above]
    weight = (target - low) / (high - low)
    chosen = torch.gather(logits, -1, torch.stack([above - 1, above], -1))  # (*, 2)
    return logits.logsumexp(-1) - torch.lerp(chosen[..., 0], chosen[..., 1], weight)
