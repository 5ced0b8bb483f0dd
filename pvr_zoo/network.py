"""From a spec and a file's tensors to a network, by one road for all families.

A family is a module (`spec.builder`) of two functions, or three:

- `bare(spec)`: the published network, untrained, with the file's own key names as far as the encoder goes;
- `arrange(net, spec)`: the same weights as stem, levels and read-out, usually a `Network`;
- `convert(state, spec)`, where the file's tensors need renaming or fitting before `bare`'s network can take them.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from pvr_zoo.checkpoint import load_strictly
from pvr_zoo.pooling import pool_map, pool_tokens
from pvr_zoo.specs import EncoderSpec


class Family(Protocol):
    """What a builder module offers; `convert` may be absent."""

    def bare(self, spec: EncoderSpec) -> Any: ...

    def arrange(self, net: Any, spec: EncoderSpec) -> nn.Module: ...


def family(spec: EncoderSpec) -> Family:
    """The module that builds the spec's network."""
    return cast(Family, importlib.import_module(spec.builder))


def bare(spec: EncoderSpec) -> nn.Module:
    """The published network on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        net: nn.Module = family(spec).bare(spec)
    return net


def build(spec: EncoderSpec, state: Mapping[str, Tensor] | None) -> nn.Module:
    """With a file's tensors as weights (WeightsError unless they fit exactly); without, on the meta device."""
    net = bare(spec)
    if state is not None:
        load_strictly(net, convert(state, spec), spec.name)
    return family(spec).arrange(net, spec)


def convert(state: Mapping[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """A file's tensors with the names and shapes of the bare network, where they are its own."""
    own: Callable[[dict[str, Tensor], EncoderSpec], dict[str, Tensor]] | None = getattr(family(spec), "convert", None)
    return dict(state) if own is None else own(dict(state), spec)


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
