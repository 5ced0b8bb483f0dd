"""The encoder of our own autoencoder, written again with plain functions: there is no other publisher."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from pvr_zoo.specs import EncoderSpec

SOURCE = "torch.nn.functional, by hand"
CHANNELS = (3, 32, 64, 128, 256)


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an encoder file."""
    found: dict[str, tuple[int, ...]] = {}
    for k in range(4):
        found |= {
            f"convs.{2 * k}.weight": (CHANNELS[k + 1], CHANNELS[k], 4, 4),
            f"convs.{2 * k}.bias": (CHANNELS[k + 1],),
        }
    return found | {"out.weight": (spec.widths[0], 256 * 16), "out.bias": (spec.widths[0],)}


def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Four convolutions of stride 2, one product, then mean 0 and variance 1 in each feature."""
    x = 2 * images - 1
    for k in range(4):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), state[f"convs.{2 * k}.weight"], state[f"convs.{2 * k}.bias"], stride=2)
        x = x * x.sigmoid()
    x = x.flatten(1) @ state["out.weight"].T + state["out.bias"]
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
