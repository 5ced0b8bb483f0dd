"""Frames made smaller, for a decoder that draws them at another size than they are held in."""

import torch
from torch import Tensor

from world_models.precision import products

TOGETHER = 64  # frames that are made smaller at once: as floats they take four times their memory


def averaged(frames: Tensor, height: int, width: int) -> Tensor:
    """Frames (N, H, W, 3) uint8 as (N, height, width, 3): each pixel is the mean of the area that it covers, rounded.

    New sides need not divide the old ones. Frames of that size already are returned as they are; ValueError for smaller
    ones, since nothing is enlarged.
    """
    high, wide = frames.shape[1:3]
    if (high, wide) == (height, width):
        return frames
    if high < height or wide < width:
        raise ValueError(f"frames of {high}x{wide} cannot be averaged to {height}x{width}, which is larger")
    down, across = (_shares(full, few).to(frames.device) for full, few in ((high, height), (wide, width)))
    with products(frames.device, "float32"):  # in bfloat16 a mean of 255 may become 256, which no byte holds
        return torch.cat([_mean(part, down, across) for part in frames.split(TOGETHER)])


def _mean(frames: Tensor, down: Tensor, across: Tensor) -> Tensor:
    rows = down @ frames.flatten(2).float()  # (N, height, 3W)
    both = across @ rows.unflatten(2, (-1, 3))  # (N, height, width, 3)
    return both.round().byte()


def _shares(full: int, few: int) -> Tensor:
    """(few, full): how much of each of `few` new pixels lies on each of `full` old ones; rows sum to 1."""
    length = full / few
    start, old = torch.arange(few).double().unsqueeze(1) * length, torch.arange(full).double()
    common = torch.minimum(start + length, old + 1) - torch.maximum(start, old)
    return (common.clamp(min=0) / length).float()
