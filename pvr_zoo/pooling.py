"""From token sequences and feature maps to the feature kinds cls, mean, patches and keypoints."""

import torch
from torch import Tensor


def pool_tokens(tokens: Tensor, feature: str, prefix: int = 1) -> Tensor:
    """(N, prefix + P, F) to (N, F), (N, P, F) for "patches", (N, 2F) for "keypoints"; a class token comes first."""
    if feature == "cls":
        return tokens[:, 0]
    patches = tokens[:, prefix:]
    if feature == "patches":
        return patches
    if feature == "keypoints":
        side = round(patches.shape[1] ** 0.5)
        return spatial_softmax(patches.transpose(1, 2).unflatten(2, (side, side)))
    assert feature == "mean", feature
    return patches.mean(1)


def pool_map(features: Tensor, feature: str) -> Tensor:
    """(N, F, H, W) to (N, F) for "mean", to (N, H·W, F) for "patches", row by row, to (N, 2F) for "keypoints"."""
    if feature == "patches":
        return features.flatten(2).transpose(1, 2)
    if feature == "keypoints":
        return spatial_softmax(features)
    assert feature == "mean", feature
    return features.mean((2, 3))


def spatial_softmax(features: Tensor) -> Tensor:
    """(N, F, H, W) to (N, 2F): the expected place of each channel, columns first, then rows, both from −1 to 1.

    Levine et al. 2016, arXiv:1504.00702, section 5.1, with temperature 1.
    """
    height, width = features.shape[-2:]
    weight = features.flatten(2).softmax(-1).unflatten(2, (height, width))  # (N, F, H, W)
    x = torch.linspace(-1, 1, width, dtype=features.dtype, device=features.device)
    y = torch.linspace(-1, 1, height, dtype=features.dtype, device=features.device)
    return torch.cat([weight.sum(2) @ x, weight.sum(3) @ y], 1)
