"""Several encoders on the same image, their features side by side, such as pvr_habitat's (arXiv:2203.03580).

A row of this family has `parts`, each a row that is an encoder of its own, with its own file and layout. A part's
tensors are named as in its file, after the part's name and a dot.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pvr_zoo import network
from pvr_zoo.network import family
from pvr_zoo.specs import EncoderSpec


class Fused(nn.ModuleDict):
    """Images (N, 3, S, S) to the features of all members, one after the other: (N, F)."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.values()], -1)


def bare(spec: EncoderSpec) -> nn.ModuleDict:
    """The parts' published networks by their names, untrained."""
    return nn.ModuleDict({part.name: family(part).bare(part) for part in spec.parts})


def arrange(net: nn.ModuleDict, spec: EncoderSpec) -> Fused:
    """Each part as its own family arranges it."""
    return Fused({part.name: family(part).arrange(net[part.name], part) for part in spec.parts})


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """Each part's tensors as its own family converts them."""
    states: dict[str, dict[str, Tensor]] = {part.name: {} for part in spec.parts}
    for key, value in state.items():
        name, _, own = key.partition(".")
        states[name][own] = value
    return join({part.name: network.convert(states[part.name], part) for part in spec.parts})


def join(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The parts' tensors in one mapping."""
    return {f"{part}.{key}": value for part, state in states.items() for key, value in state.items()}


def small(spec: EncoderSpec) -> EncoderSpec:
    """Of each part what its own family makes: see verify.py."""
    parts = tuple(family(part).small(part) for part in spec.parts)  # type: ignore[attr-defined]
    width = sum(part.feature_shape[0] for part in parts)
    return replace(spec, parts=parts, widths=(width,), output=(width,), input_size=parts[0].input_size)
