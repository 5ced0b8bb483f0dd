"""Frozen pretrained visual encoders: uint8 frames in, features out.

`import pvr_zoo`, `list_encoders` and `spec` do not import torch; `create` does.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pvr_zoo.errors import (
    FrameError,
    SpecError,
    UnknownEncoder,
    UnsafeWeights,
    WeightsError,
    WeightsUnavailable,
    ZooError,
)
from pvr_zoo.registry import list_encoders, register, spec
from pvr_zoo.specs import EncoderSpec

if TYPE_CHECKING:
    from pvr_zoo.encoder import Encoder, create
    from pvr_zoo.families.autoencoder import ConvAutoencoder, save_encoder

__all__ = [
    "ConvAutoencoder",
    "Encoder",
    "EncoderSpec",
    "FrameError",
    "SpecError",
    "UnknownEncoder",
    "UnsafeWeights",
    "WeightsError",
    "WeightsUnavailable",
    "ZooError",
    "create",
    "list_encoders",
    "register",
    "save_encoder",
    "spec",
]

_LAZY = {
    "Encoder": "pvr_zoo.encoder",
    "create": "pvr_zoo.encoder",
    "ConvAutoencoder": "pvr_zoo.families.autoencoder",
    "save_encoder": "pvr_zoo.families.autoencoder",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pvr_zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
