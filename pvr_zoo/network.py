"""The one shape that every family's network is brought into: stem, levels, read-out."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pvr_zoo.pooling import pool_map, pool_tokens
from pvr_zoo.specs import EncoderSpec


class Network(nn.Module):
    """Images through a stem and the kept levels; the features that `read` takes after `layers`, concatenated.

    stem(images (N, 3, S, S)) and each level give the tokens (N, T, C) or the map (N, C, H, W) of the next;
    read(tokens or map) gives (N, *feature_shape). Levels beyond the last layer are not kept.
    """

    def __init__(self, stem: nn.Module, levels: Iterable[nn.Module], read: nn.Module, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = stem
        self.levels = nn.ModuleList(list(levels)[: layers[-1]])
        self.read = read
        self.layers = layers

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        features = []
        for number, level in enumerate(self.levels, start=1):
            x = level(x)
            if number in self.layers:
                features.append(self.read(x))
        return features[0] if len(features) == 1 else torch.cat(features, -1)


class ReadTokens(nn.Module):
    """Tokens (N, prefix + P, C) to a feature, through the final norm where it is kept."""

    def __init__(self, norm: nn.Module | None, feature: str, prefix: int) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.feature, self.prefix = feature, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        return pool_tokens(self.norm(tokens), self.feature, self.prefix)


class ReadMap(nn.Module):
    """A map (N, C, H, W) to a feature."""

    def __init__(self, feature: str) -> None:
        super().__init__()
        self.feature = feature

    def forward(self, features: Tensor) -> Tensor:
        return pool_map(features, self.feature)


def token_network(
    spec: EncoderSpec,
    stem: nn.Module,
    blocks: Iterable[nn.Module],
    norm: nn.Module,
    prefix: int,
    output: nn.Module | None = None,
) -> Network:
    """A transformer used as the spec says; `output` maps the last block's tokens to the feature kind "output"."""
    if spec.feature == "output":
        assert output is not None, spec.name
        return Network(stem, blocks, output, spec.layers)
    return Network(stem, blocks, ReadTokens(norm if spec.norm == "keep" else None, spec.feature, prefix), spec.layers)


def map_network(
    spec: EncoderSpec, stem: nn.Module, stages: Iterable[nn.Module], output: nn.Module | None = None
) -> Network:
    """A convolutional network used as the spec says; `output` maps the last map to the feature kind "output"."""
    if spec.feature == "output":
        assert output is not None, spec.name
        return Network(stem, stages, output, spec.layers)
    return Network(stem, stages, ReadMap(spec.feature), spec.layers)
