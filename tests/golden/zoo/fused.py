"""The features of several encoders side by side, each from the independent side of its own family.

The order is that of sparisi/pvr_habitat @ 845d9be (src/embeddings.py): layer 3, layer 4, then the whole network.
"""

from collections.abc import Mapping

import torch
from references import reference
from torch import Tensor

from pvr_zoo.specs import EncoderSpec

SOURCE = "the parts' own sides, joined in pvr_habitat's order"

_ORDER = ("_l3", "_l4", "")


def parts(spec: EncoderSpec) -> list[EncoderSpec]:
    """In upstream's order, whatever the row's."""
    base, _, stages = spec.name.partition("_uber_")
    wanted = [base + end for end, stage in zip(_ORDER, "345", strict=True) if stage in stages]
    by_name = {part.name: part for part in spec.parts}
    return [by_name[name] for name in wanted]


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published files, each after its part's name."""
    return {
        f"{part.name}.{key}": shape
        for part in parts(spec)
        for key, shape in reference(part.builder).shapes(part).items()
    }


def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the parts give for images (N, 3, S, S) already normalised, side by side."""
    features = []
    for part in parts(spec):
        prefix = f"{part.name}."
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        features.append(reference(part.builder).feature(part, own, images))
    return torch.cat(features, -1)
