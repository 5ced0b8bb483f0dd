"""DINOv3's vision transformers: rotary positions, registers. Siméoni et al. 2025, arXiv:2508.10104."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pvr_zoo.network import Network, token_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

_BASE = 100.0  # of the rotations' periods
_META_NAMES = (("storage_tokens", "reg_token"), (".ls1.gamma", ".gamma_1"), (".ls2.gamma", ".gamma_2"))


class Stem(nn.Module):
    """Images to the tokens before the first block: class token and registers in front, no positions added."""

    def __init__(self, patches: nn.Module, front: Tensor) -> None:
        super().__init__()
        self.patches = patches
        self.front = nn.Parameter(front)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.patches(images).flatten(1, 2)  # (N, P, C)
        return torch.cat([self.front.expand(len(images), -1, -1), cells], 1)


class Rotated(nn.Module):
    """A block that turns the patches' queries and keys by angles (P, 2·D), sines first, D numbers a head."""

    angles: Tensor

    def __init__(self, block: nn.Module, angles: Tensor) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("angles", angles, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        turned: Tensor = self.block(tokens, rope=self.angles)
        return turned


def bare(spec: EncoderSpec) -> Any:
    """The whole network, untrained."""
    ensure_torchvision()
    import timm

    return timm.create_model(
        spec.architecture, num_classes=0, global_pool="token", img_size=spec.input_size, **spec.options
    )


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """timm's network as stem, blocks and read-out."""
    grid = spec.input_size // spec.strides[0]
    heads = net.blocks[0].attn.num_heads
    angles = rotations(grid, spec.widths[0] // heads, net.cls_token.device)
    front = torch.cat([net.cls_token, net.reg_token], 1).detach()
    blocks = [Rotated(block, angles) for block in net.blocks]
    return token_network(spec, Stem(net.patch_embed, front), blocks, net.norm, front.shape[1])


def rotations(grid: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines (grid², 2·width) of each cell's angles: rows first, then columns, and both again.

    Places run from −1 to 1 over the picture whatever its grid. The periods are exact; Meta's own .pth files hold them
    rounded to bfloat16, its files on the hub and timm's do not.
    """
    places = 2 * (torch.arange(grid, device=device) + 0.5) / grid - 1
    cells = torch.stack(torch.meshgrid(places, places, indexing="ij"), -1).flatten(0, 1)  # (grid², 2)
    periods = _BASE ** (2 * torch.arange(width // 4, device=device) / (width // 2))
    angles = (2 * math.pi * cells[:, :, None] / periods).flatten(1).tile(2)  # (grid², width)
    return torch.cat([angles.sin(), angles.cos()], 1)


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """timm's files as they are; Meta's .pth files (register tokens under `storage_tokens`) with timm's names.

    Those hold biases of queries, keys and values that are zero in the distilled models, and are left out where they
    are; keys never use theirs (`bias_mask`).
    """
    if "storage_tokens" not in state:
        return state
    for meta, timms in _META_NAMES:
        state = {key.replace(meta, timms): value for key, value in state.items()}
    unused = {key for key, value in state.items() if key.endswith("attn.qkv.bias") and not value.any()}
    return {key: value for key, value in state.items() if key not in unused and not key.endswith(".bias_mask")}


def small(spec: EncoderSpec) -> EncoderSpec:
    """Two blocks, eight numbers a head, a grid of four: see verify.py."""
    with torch.device("meta"):
        heads = bare(spec).blocks[0].attn.num_heads
    width, patch = 8 * heads, spec.strides[0]
    options = spec.options | {"embed_dim": width, "depth": 2, "num_heads": heads}
    shrunk = replace(spec, options=options, widths=(width,) * 2, strides=(patch,) * 2, layers=())
    return shrunk.request(input_size=4 * patch)
