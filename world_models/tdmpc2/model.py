"""The implicit world model: encode, next, reward, termination, policy prior pi and the ensemble Q."""

import copy

import torch
from torch import Generator, Tensor, nn

from world_models.distributions import squashed_gaussian, two_hot_mean
from world_models.nets import Ensemble, Head, HeadWeights, apply_head, simnorm
from world_models.tdmpc2.config import TDMPC2Config
from world_models.tdmpc2.encoder import Encoder
from world_models.types import ObsShapes, Tail


class WorldModel(nn.Module):
    """All networks of the agent. z is (*, L), an action (*, A); leading dimensions broadcast."""

    def __init__(
        self, shapes: ObsShapes, actions: int, config: TDMPC2Config, generator: Generator, tail: Tail | None = None
    ):
        super().__init__()
        self.config = config
        w = config.widths
        L, M, K = w.latent_dim, w.mlp_dim, config.num_bins
        self.encoder = Encoder(shapes, config, generator, tail)
        self.dynamics = Head(L, actions, M, L, generator, normed=True)
        self.reward_head = Head(L, actions, M, K, generator, zero=True)
        self.termination_head = Head(L, 0, M, 1, generator) if config.episodic else None
        self.policy = Head(L, 0, M, 2 * actions, generator)
        self.q = Ensemble([Head(L, actions, M, K, generator, zero=True) for _ in range(w.num_q)])
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)

    def encode(self, parts: dict[str, Tensor]) -> Tensor:
        """z (*, L) of an observation's parts (`Encoder.inputs`)."""
        return self.encoder(parts)

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """The latent after `action`."""
        return simnorm(self.dynamics(z, action), self.config.simnorm_dim)

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Two-hot logits (*, K) of the reward for `action`."""
        return self.reward_head(z, action)

    def termination(self, z: Tensor) -> Tensor:
        """The logit (*,) of the episode having terminated at z."""
        assert self.termination_head is not None, "episodic=False"
        return self.termination_head(z).squeeze(-1)

    def pi(self, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The policy prior's action (*, A), its log probability (*,) and that before squashing (*,)."""
        mean, log_std = self.policy(z).chunk(2, -1)
        low, high = self.config.log_std_min, self.config.log_std_max
        return squashed_gaussian(mean, low + 0.5 * (high - low) * (torch.tanh(log_std) + 1), noise)

    def pi_mean(self, z: Tensor) -> Tensor:
        """The policy prior's action (*, A) without noise."""
        return torch.tanh(self.policy(z).chunk(2, -1)[0])

    def scalar(self, logits: Tensor) -> Tensor:
        """The value (*,) that two-hot logits (*, K) mean."""
        return two_hot_mean(logits, self.config.vmin, self.config.vmax)

    def heads(self, which: list[int], *, target: bool = False) -> tuple[HeadWeights, ...]:
        """The weights of some Q functions, outside the graph; arguments of `Q`."""
        weights = (self.target_q if target else self.q).weights()
        return tuple(weights[i].detach() for i in which)

    def Q(self, heads: tuple[HeadWeights, ...], z: Tensor, action: Tensor, keep: Tensor | None = None) -> Tensor:
        """Values (heads, *) by the given Q functions; keep (heads, *, M) are their dropout masks."""
        logits = [apply_head(h, z, action, None if keep is None else keep[i]) for i, h in enumerate(heads)]
        return self.scalar(torch.stack(logits))
