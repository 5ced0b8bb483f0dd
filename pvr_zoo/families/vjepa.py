"""V-JEPA 2 (Assran et al. 2025, arXiv:2506.09985) for still images, with the key names of its files on the hub.

A still image is a clip of two equal frames, which the stem joins to one set of patches: the sum of its kernel over
time applied once is the same. The positions enter as rotations in every attention. A third of each head's channels
turns with the frame's number, which is 0 here and turns nothing; a third with the row; a third with the column; what is
left of the division does not turn.

The files on the hub are preferred to the training checkpoints at dl.fbaipublicfiles.com/vjepa2: they hold encoder and
predictor alone, no optimiser, no pickle, and the hub names them by their hash.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvr_zoo.network import Network, token_network
from pvr_zoo.specs import EncoderSpec

_EPS = 1e-6


class Rotation(nn.Module):
    """Turns queries or keys (N, heads, P, D) by the place of their patch on a grid × grid picture."""

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: int, width: int, device: torch.device) -> None:
        super().__init__()
        part = width // 3 // 2 * 2  # channels for each of frame, row and column
        place = torch.arange(grid**2, device=device)
        frequency = 10000 ** -(torch.arange(part // 2, device=device) / (part / 2))
        # The published code gives the channels 2i and 2i + 1, which turn together, two frequencies: (f₀ … fₖ f₀ … fₖ).
        row, column = (p[:, None] * frequency.repeat(2) for p in (place // grid, place % grid))
        angle = torch.zeros(grid**2, width, device=device)
        angle[:, part : 2 * part], angle[:, 2 * part : 3 * part] = row, column
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        return x * self.cos + torch.stack([-second, first], -1).flatten(-2) * self.sin


class Attention(nn.Module):
    """Self-attention over patches (N, P, C); `rotation` is set where the grid is known."""

    rotation: Rotation

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(self.rotation(q), self.rotation(k), v)
        joined: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return joined


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attention = Attention(width, heads)
        self.mlp = Perceptron(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Patches(nn.Module):
    """Images (N, 3, S, S) as clips of two equal frames, to tokens (N, P, C)."""

    def __init__(self, width: int, patch: int, frames: int = 2) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, (frames, patch, patch), (frames, patch, patch))

    def forward(self, images: Tensor) -> Tensor:
        maps = F.conv2d(images, self.proj.weight.sum(2), self.proj.bias, self.proj.stride[1:])
        return maps.flatten(2).transpose(1, 2)


def bare(spec: EncoderSpec) -> Any:
    """The encoder of the joint model, untrained."""
    width, heads, hidden = spec.widths[0], spec.options["heads"], spec.options["hidden"]
    embeddings = nn.ModuleDict({"patch_embeddings": Patches(width, spec.strides[0])})
    layer = nn.ModuleList(Block(width, heads, hidden) for _ in range(spec.depth))
    encoder = {"embeddings": embeddings, "layer": layer, "layernorm": nn.LayerNorm(width, eps=_EPS)}
    return nn.ModuleDict({"encoder": nn.ModuleDict(encoder)})


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """Stem, blocks and read-out; all blocks share one rotation."""
    encoder = net["encoder"]
    patches = encoder["embeddings"]["patch_embeddings"]
    width = spec.widths[0] // spec.options["heads"]
    rotation = Rotation(spec.input_size // spec.strides[0], width, patches.proj.weight.device)
    for block in encoder["layer"]:
        block.attention.rotation = rotation
    return token_network(spec, patches, encoder["layer"], encoder["layernorm"], prefix=0)


def small(spec: EncoderSpec) -> EncoderSpec:
    """Two blocks, fourteen numbers a head (so that two do not turn), a grid of four: see verify.py."""
    width = 14 * spec.options["heads"]
    options = spec.options | {"hidden": round(width * spec.options["hidden"] / spec.widths[0])}
    patch = spec.strides[0]
    return replace(spec, options=options, widths=(width,) * 2, strides=(patch,) * 2, layers=()).request(
        input_size=4 * patch
    )
