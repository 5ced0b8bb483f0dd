"""From token sequences and feature maps to the feature kinds cls, mean and patches."""

from torch import Tensor


def pool_tokens(tokens: Tensor, feature: str, prefix: int = 1) -> Tensor:
    """(N, prefix + P, F) to (N, F) for "cls" and "mean", to (N, P, F) for "patches"; the class token comes first."""
    if feature == "cls":
        return tokens[:, 0]
    patches = tokens[:, prefix:]
    if feature == "patches":
        return patches
    assert feature == "mean", feature
    return patches.mean(1)


def pool_map(features: Tensor, feature: str) -> Tensor:
    """(N, F, H, W) to (N, F) for "mean", to (N, H·W, F) for "patches", row by row."""
    if feature == "patches":
        return features.flatten(2).transpose(1, 2)
    assert feature == "mean", feature
    return features.mean((2, 3))
