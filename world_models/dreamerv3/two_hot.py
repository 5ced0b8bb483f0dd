"""What the logits of reward and value heads mean, and how they are learnt; chosen by `DreamerV3Config.two_hot`."""

from torch import Tensor, nn

from world_models.distributions import symexp_bins, symexp_loss, symexp_mean, two_hot_loss, two_hot_mean

LIMIT = 20.0  # classes reach from -LIMIT to LIMIT in symlog space


class SymexpTwoHot(nn.Module):
    """Classes are rewards, evenly spaced in symlog space; targets lie between two of them (Hafner et al. 2025)."""

    bins: Tensor

    def __init__(self, bins: int):
        super().__init__()
        self.register_buffer("bins", symexp_bins(bins, LIMIT), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """The number (*,) that logits (*, K) mean."""
        return symexp_mean(logits, self.bins)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy (*,) of logits (*, K) with targets (*,)."""
        return symexp_loss(logits, target, self.bins)


class SymlogTwoHot(nn.Module):
    """Classes are symlogs of rewards; targets are squashed before they are coded, means are unfolded (2023)."""

    def __init__(self, bins: int):
        super().__init__()  # logits say how many classes there are

    def mean(self, logits: Tensor) -> Tensor:
        """The number (*,) that logits (*, K) mean."""
        return two_hot_mean(logits, -LIMIT, LIMIT)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy (*,) of logits (*, K) with targets (*,)."""
        return two_hot_loss(logits, target, -LIMIT, LIMIT)


TwoHot = SymexpTwoHot | SymlogTwoHot
TWO_HOTS: dict[str, type[SymexpTwoHot] | type[SymlogTwoHot]] = {"symexp": SymexpTwoHot, "symlog": SymlogTwoHot}
