"""Products and convolutions in bfloat16, by torch.autocast; everything else stays float32.

Layers hand on float32: norms, softmaxes, losses, returns and recurrent state never see a bfloat16 number. Weights are
float32 as well; autocast keeps what it made of a parameter until the context ends, so that one used at every step is
cast once. What it made where no gradients are recorded has none: within one context, gradients come first.
"""

import torch
from torch import Tensor

PRECISIONS = ("float32", "bfloat16")


def products(device: torch.device, precision: str) -> torch.autocast:
    """A context in which products are computed in that precision; a new one for each use."""
    assert precision in PRECISIONS, precision
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def cast(weight: Tensor) -> Tensor:
    """A part of a parameter as products here take it, for those who use it often: autocast would cast it each time."""
    kind = weight.device.type
    return weight.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else weight


def widened(x: Tensor) -> Tensor:
    """What a product gave in bfloat16 as float32; anything else as it is."""
    return x.float() if x.dtype is torch.bfloat16 else x
