"""The mid-level encoders restated with plain functions from alexsax/visual-prior @ 6abde8b (taskonomy_network.py)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pvr_zoo.specs import EncoderSpec

SOURCE = "alexsax/visual-prior @ 6abde8b, restated"
EPS = 1e-5  # of both kinds of norm


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    blocks, channels = spec.options["blocks"], spec.options["channels"]
    found = conv("conv1", 3, channels[0], 7) | norm("bn1", channels[0])
    before = channels[0]
    for number, (count, inner) in enumerate(zip(blocks, channels, strict=True), start=1):
        for index in range(count):
            block = f"layer{number}.{index}."
            found |= conv(f"{block}conv1", before, inner, 1) | norm(f"{block}bn1", inner)
            found |= conv(f"{block}conv2", inner, inner, 3) | norm(f"{block}bn2", inner)
            found |= conv(f"{block}conv3", inner, 4 * inner, 1) | norm(f"{block}bn3", 4 * inner)
            if index == 0:
                found |= conv(f"{block}downsample.0", before, 4 * inner, 1) | norm(f"{block}downsample.1", 4 * inner)
            before = 4 * inner
    return found | norm("compress_bn", 8) | conv("compress1", before, 8, 3)


def conv(name: str, inputs: int, outputs: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, side, side)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.num_batches_tracked": ()} | {f"{name}.{part}": (width,) for part in parts}


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) from −1 to 1; in double precision, for the last norm's sake."""
    state, images = {key: value.double() for key, value in state.items()}, images.double()

    def batch_norm(x: Tensor, name: str) -> Tensor:
        weight, bias, mean, var = (
            state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + EPS).sqrt() * weight + bias

    def block(x: Tensor, name: str, last_of_first_two: bool) -> Tensor:
        y = batch_norm(F.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1").clamp(min=0)
        y = F.conv2d(F.pad(y, (1, 1, 1, 1)), state[f"{name}.conv2.weight"], stride=2 if last_of_first_two else 1)
        y = batch_norm(y, f"{name}.bn2").clamp(min=0)
        y = batch_norm(F.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in state:
            x = batch_norm(F.conv2d(x, state[f"{name}.downsample.0.weight"]), f"{name}.downsample.1")
        return (y + (x[..., ::2, ::2] if last_of_first_two else x)).clamp(min=0)  # a pooling of 1×1 is a choice

    x = F.conv2d(F.pad(images, (3, 3, 3, 3)), state["conv1.weight"], stride=2)
    x = batch_norm(x, "bn1").clamp(min=0)
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, stride=2)  # the size rounded up
    maps = []
    for number, count in enumerate(spec.options["blocks"], start=1):
        for index in range(count):
            x = block(x, f"layer{number}.{index}", number <= 2 and index == count - 1)
        maps.append(x)
    x = batch_norm(F.conv2d(F.pad(x, (1, 1, 1, 1)), state["compress1.weight"]), "compress_bn").clamp(min=0)
    maps.append(x)
    if spec.feature == "output":
        spread = x.var((2, 3), unbiased=False, keepdim=True)
        normalised = (x - x.mean((2, 3), keepdim=True)) / (spread + EPS).sqrt()
        return normalised.reshape(len(images), -1).float()
    chosen = [maps[layer - 1] for layer in spec.layers]
    if spec.feature == "patches":
        return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in chosen], -1).float()
    return torch.cat([x.mean((2, 3)) for x in chosen], -1).float()
