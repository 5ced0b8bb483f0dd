"""Vision transformers with timm's key names: supervised, DINO, DINOv2, MAE."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvr_zoo.network import Network, token_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision


class Stem(nn.Module):
    """Images to the tokens before the first block: class token and registers in front, positions added."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.net.norm_pre(self.net._pos_embed(self.net.patch_embed(images)))
        return tokens


def bare(spec: EncoderSpec) -> Any:
    """The whole network without a head, untrained, for the spec's input size."""
    ensure_torchvision()
    import timm

    return timm.create_model(
        spec.architecture, num_classes=0, global_pool="token", img_size=spec.input_size, **spec.options
    )


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """timm's network as stem, blocks and read-out; takes the network apart."""
    blocks, norm, prefix = list(net.blocks), net.norm, net.num_prefix_tokens
    net.blocks, net.norm = nn.Sequential(), nn.Identity()
    return token_network(spec, Stem(net), blocks, norm, prefix)


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """The same weights with position embeddings for the spec's grid.

    Embeddings of another shape than a square grid after one token are left to the strict check.
    """
    table = state.get("pos_embed")
    grid = spec.input_size // spec.strides[0]
    if table is None or table.ndim != 3 or table.shape[1] == 1 + grid**2:
        return state
    side = round((table.shape[1] - 1) ** 0.5)
    if side < 1 or side**2 != table.shape[1] - 1:
        return state
    first, cells = table[:, :1].float(), table[:, 1:].float()
    cells = cells.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    cells = _RULES[spec.positions](cells, grid).permute(0, 2, 3, 1).flatten(1, 2)
    return state | {"pos_embed": torch.cat([first, cells], 1)}


def _hub_rule(cells: Tensor, grid: int) -> Tensor:
    """As in the DINO and DINOv2 repositories: bicubic, by a factor of (grid + 0.1) / side, no antialiasing.

    The offset was added there against rounding; with it the samples lie elsewhere than with a target size, and timm's
    antialiased rule gives features that differ.
    """
    factor = (grid + 0.1) / cells.shape[-1]
    return F.interpolate(cells, scale_factor=(factor, factor), mode="bicubic", antialias=False)


def _antialias_rule(cells: Tensor, grid: int) -> Tensor:
    """As timm does for its own checkpoints: bicubic to the target size, antialiased."""
    return F.interpolate(cells, (grid, grid), mode="bicubic", antialias=True, align_corners=False)


_RULES = {"hub": _hub_rule, "antialias": _antialias_rule}


def small(spec: EncoderSpec) -> EncoderSpec:
    """Two blocks, four numbers a head, a grid of four: see verify.py."""
    with torch.device("meta"):
        heads = bare(spec).blocks[0].attn.num_heads
    options = spec.options | {"embed_dim": 4 * heads, "depth": 2, "num_heads": heads}
    patch = spec.strides[0]
    return replace(spec, options=options, widths=(4 * heads,) * 2, strides=(patch,) * 2, layers=()).request(
        input_size=4 * patch
    )
