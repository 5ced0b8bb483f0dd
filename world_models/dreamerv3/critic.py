"""The value head and its slow copy."""

import torch
from torch import Generator, Tensor, nn

from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.nets import MLP
from world_models.dreamerv3.two_hot import TWO_HOTS


class Critic(nn.Module):
    """The value head, and a slow copy of it that the head is drawn towards."""

    def __init__(self, latent: int, config: DreamerV3Config, generator: Generator):
        super().__init__()
        sizes = (latent, config.widths.units, config.widths.layers)
        self.head = MLP(*sizes, generator, out=config.bins, scale=0.0, norm=config.norm)
        self.slow = MLP(*sizes, generator, out=config.bins, scale=0.0, norm=config.norm).requires_grad_(False)
        self.slow.load_state_dict(self.head.state_dict())
        self.two_hot = TWO_HOTS[config.two_hot](config.bins)

    def value(self, logits: Tensor) -> Tensor:
        """The value (*,) that logits (*, K) mean."""
        return self.two_hot.mean(logits)

    @torch.no_grad()
    def slow_value(self, latent: Tensor) -> Tensor:
        """The slow copy's value (*,)."""
        return self.two_hot.mean(self.slow(latent))

    def loss(self, logits: Tensor, target: Tensor, slow: Tensor) -> Tensor:
        """Cross entropy (*,) with a return and, to stay near it, with the slow copy's value."""
        return self.two_hot.loss(logits, target) + self.two_hot.loss(logits, slow)

    @torch.no_grad()
    def move_slow(self, rate: float) -> None:
        """slow ← (1 - rate) slow + rate head."""
        torch._foreach_lerp_(list(self.slow.parameters()), list(self.head.parameters()), rate)
