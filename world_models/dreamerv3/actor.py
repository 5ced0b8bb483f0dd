"""The policy: a normal distribution around tanh for continuous actions, a categorical one for choices."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.nets import MLP
from world_models.dreamerv3.rssm import mix_uniform, sample_onehot
from world_models.types import ActionSpec

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Actor(nn.Module):
    """Latents (*, L) to a distribution, as the tensor `params` that the other methods read."""

    def __init__(self, latent: int, action: ActionSpec, config: DreamerV3Config, generator: Generator):
        super().__init__()
        self.discrete, self.unimix = action.discrete, config.unimix
        self.low, self.high = config.min_std, config.max_std
        outputs = action.dim if action.discrete else 2 * action.dim
        sizes = (latent, config.widths.units, config.widths.layers)
        self.net = MLP(*sizes, generator, out=outputs, scale=config.actor_scale, norm=config.norm)

    def forward(self, latent: Tensor) -> Tensor:
        """Mean and deviation (*, 2A), or log probabilities (*, A)."""
        out = self.net(latent)
        if self.discrete:
            return mix_uniform(out, self.unimix)
        mean, std = out.chunk(2, -1)
        return torch.cat([torch.tanh(mean), (self.high - self.low) * torch.sigmoid(std + 2) + self.low], -1)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Actions (*, A): with gradients through mean and deviation, or one-hot; unbounded where continuous."""
        if self.discrete:
            return sample_onehot(params, noise.squeeze(-1))
        mean, std = params.chunk(2, -1)
        return torch.addcmul(mean, std, noise)

    def mode(self, params: Tensor) -> Tensor:
        """The likeliest actions (*, A)."""
        if self.discrete:
            return F.one_hot(params.argmax(-1), params.shape[-1]).to(params.dtype)
        return params.chunk(2, -1)[0]

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """(*,) of given actions."""
        if self.discrete:
            return (params * action).sum(-1)
        mean, std = params.chunk(2, -1)
        return (-0.5 * ((action - mean) / std).square() - std.log() - HALF_LOG_TAU).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """(*,) in nats."""
        if self.discrete:
            return -(params.exp() * params).sum(-1)
        return (params.chunk(2, -1)[1].log() + 0.5 + HALF_LOG_TAU).sum(-1)
