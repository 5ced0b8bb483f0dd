"""From a feature of patches (*, P, F) to one vector, the switch `patches` of every agent's front end."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models.nets import Linear

HEADS = 4


def as_pooled(shape: tuple[int, ...], outputs: int) -> float:
    """What `outputs` numbers made of a feature (P, F) or (F,) are multiplied by, at most 1: F / outputs.

    Adam moves each weight of the layer behind by its learning rate, so that its output moves with the sum of what goes
    in. Scaled, that sum is as large as a pooled feature's; else SimNorm is nearly one-hot after a hundred updates, and
    an agent sees nothing any more.
    """
    return min(1.0, shape[-1] / outputs)


class Flatten(nn.Module):
    """All numbers side by side, times `scale`: (*, P, F) to (*, PF); a pooled feature (*, F) stays."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.dims, self.outputs = len(shape), prod(shape)
        self.scale = as_pooled(shape, self.outputs)

    def forward(self, feature: Tensor) -> Tensor:
        flat = feature.flatten(-self.dims)
        return flat if self.scale == 1.0 else flat * self.scale


class Each(nn.Module):
    """One linear layer for all patches alike, then side by side, times `scale`: (*, P, F) to (*, P width)."""

    def __init__(self, shape: tuple[int, ...], width: int, generator: Generator):
        super().__init__()
        patches, numbers = shape
        self.linear, self.outputs = Linear(numbers, width, generator), patches * width
        self.scale = as_pooled(shape, self.outputs)

    def forward(self, feature: Tensor) -> Tensor:
        return self.linear(feature).flatten(-2) * self.scale


class AttentionPool(nn.Module):
    """A learned query attends to the patches with four heads: (*, P, F) to (*, F). It begins near their mean."""

    def __init__(self, shape: tuple[int, ...], generator: Generator):
        super().__init__()
        numbers = shape[-1]
        if numbers % HEADS:
            raise ValueError(f"patches=attention splits a feature into {HEADS} heads; {numbers} is not divisible")
        self.query = nn.Parameter(torch.empty(HEADS, 1, numbers // HEADS).normal_(0, 0.02, generator=generator))
        self.key, self.value = Linear(numbers, numbers, generator), Linear(numbers, numbers, generator)
        self.outputs, self.scale = numbers, 1.0

    def forward(self, feature: Tensor) -> Tensor:
        keys, values = self._heads(self.key(feature)), self._heads(self.value(feature))  # (*, heads, P, F / heads)
        query = self.query.expand(*keys.shape[:-2], 1, -1)
        return F.scaled_dot_product_attention(query, keys, values).flatten(-3)  # (*, F)

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(-3, -2)


def front(kind: str, shape: tuple[int, ...], width: int, generator: Generator) -> Flatten | Each | AttentionPool:
    """The module of that kind; a pooled feature has nothing to pool, so that only "flatten" fits it (ValueError)."""
    if kind == "flatten":
        return Flatten(shape)
    if len(shape) != 2:
        raise ValueError(f"patches={kind} wants a feature of patches (P, F); this one is {shape}")
    return Each(shape, width, generator) if kind == "each" else AttentionPool(shape, generator)
