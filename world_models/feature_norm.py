"""Feature normalisation, the switch between a frozen encoder and a front end.

Within one task most of a frozen feature never changes, and a linear layer with small weights sees little of the rest.
`running` takes the constant part away: each dimension loses its mean, and all are divided by one deviation; dividing
each by its own would make noise as large as motion. Of pixels it takes the mean frame away: without it TD-MPC2's
convolutions begin with nearly the same latent for all frames, and consistency keeps it so for thousands of updates.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.01  # of the running statistics, once a plain average over the first 1 / MOMENTUM updates is full
EPS = 1e-3  # added to the deviation
LIMIT = 10.0  # deviations beyond which a feature is cut off


class FeatureNorm(nn.Module):
    """Normalises features (*, F) as `kind` says; `observe` is told of each batch and moves the running statistics."""

    mean: Tensor
    var: Tensor
    batches: Tensor

    def __init__(self, features: int, kind: str):
        super().__init__()
        self.kind = kind
        if kind == "running":
            self.register_buffer("mean", torch.zeros(features))
            self.register_buffer("var", torch.ones(()))  # mean over dimensions
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, feature: Tensor) -> None:
        """Move mean and variance towards those of a batch (*, F); nothing to do for the other kinds."""
        if self.kind != "running":
            return
        var, mean = torch.var_mean(feature.float().flatten(0, -2), dim=0, correction=0)
        self.batches += 1
        weight = (1 / self.batches).clamp(min=MOMENTUM)
        apart = mean - self.mean
        self.mean.lerp_(mean, weight)
        self.var.lerp_((var + (1 - weight) * apart.square()).mean(), weight)

    def forward(self, feature: Tensor) -> Tensor:
        """The feature in float32, normalised."""
        feature = feature.float()
        if self.kind == "running":
            return ((feature - self.mean) / (self.var.sqrt() + EPS)).clamp(-LIMIT, LIMIT)
        return F.layer_norm(feature, feature.shape[-1:]) if self.kind == "layernorm" else feature
