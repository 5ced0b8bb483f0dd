"""The encoders that come with the zoo, as data, one module for each family. No torch here.

SHA-256 sums of url sources were compared over at least three unrelated public records of the same file (the torchvision
ones also start with the digits in the file's name). The hub repositories without one are not pinned: see WeightsSource.
"""

from pvr_zoo.rows import (
    autoencoders,
    clip,
    controls,
    convnext,
    dinov3,
    fused,
    r2d2,
    radio,
    resnets,
    siglip,
    taskonomy,
    theia,
    vits,
    vjepa,
)

__all__ = [
    "autoencoders",
    "clip",
    "controls",
    "convnext",
    "dinov3",
    "fused",
    "r2d2",
    "radio",
    "resnets",
    "siglip",
    "taskonomy",
    "theia",
    "vits",
    "vjepa",
]
