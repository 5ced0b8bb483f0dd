"""Vision transformers with timm's key names: supervised, DINO, DINOv2, MAE and its relatives, I-JEPA, SigLIP."""

import math
import re
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvr_zoo.network import Network, token_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

_DINOV2_NAMES = (("register_tokens", "reg_token"), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))


class Stem(nn.Module):
    """Images to the tokens before the first block: class token and registers in front, positions added."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.net.norm_pre(self.net._pos_embed(self.net.patch_embed(images)))
        return tokens


def bare(spec: EncoderSpec) -> Any:
    """The whole network without a classifier, untrained, for the spec's input size.

    `spec.options` are timm's arguments; `model_name` among them stands for an architecture that timm has no name for.
    """
    ensure_torchvision()
    import timm

    arguments = {"model_name": spec.architecture, "num_classes": 0, "img_size": spec.input_size} | spec.options
    return timm.create_model(**arguments)  # type: ignore[arg-type]


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """timm's network as stem, blocks and read-out; takes the network apart.

    Feature "output" is the final norm and the trained attention pooling of networks that have one (SigLIP).
    """
    blocks, norm, prefix = list(net.blocks), net.norm, net.num_prefix_tokens
    output = None if net.attn_pool is None else nn.Sequential(norm, net.attn_pool)
    net.blocks, net.norm, net.attn_pool = nn.Sequential(), nn.Identity(), None
    return token_network(spec, Stem(net), blocks, norm, prefix, output)


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """The same weights with timm's names, and position embeddings for the spec's grid."""
    registers = "register_tokens" in state
    for published, ours in _DINOV2_NAMES:
        state = {re.sub(published, ours, key): value for key, value in state.items()}
    table = state.get("pos_embed")
    if table is None or table.ndim != 3:
        return state
    first = 0 if math.isqrt(table.shape[1]) ** 2 == table.shape[1] else 1  # places in the table that belong to no cell
    state["pos_embed"] = fit_positions(table, first, spec)
    if registers and "cls_token" in state:
        state = _fold_class_position(state)
    return state


def fit_positions(table: Tensor, first: int, spec: EncoderSpec) -> Tensor:
    """Position embeddings (1, first + side², C) for the spec's grid, (1, first + grid², C).

    A table that is no square grid after its first places is left to the strict check.
    """
    grid = spec.input_size // spec.strides[0]
    side = round((table.shape[1] - first) ** 0.5)
    if side == grid or side < 1 or side**2 != table.shape[1] - first:
        return table
    cells = table[:, first:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    cells = _RULES[spec.positions](cells, grid).permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([table[:, :first].float(), cells], 1)


def _fold_class_position(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2 with registers gives the class token a position and the registers none; timm gives neither one."""
    token, table = state["cls_token"], state["pos_embed"]
    if token.shape != table[:, :1].shape:
        return state  # left to the strict check
    return state | {"cls_token": token + table[:, :1], "pos_embed": table[:, 1:]}


def _hub_rule(cells: Tensor, grid: int) -> Tensor:
    """As in the DINO and DINOv2 repositories: bicubic, by a factor of (grid + 0.1) / side, no antialiasing.

    The offset was added there against rounding; with it the samples lie elsewhere than with a target size, and timm's
    antialiased rule gives features that differ.
    """
    factor = (grid + 0.1) / cells.shape[-1]
    return F.interpolate(cells, scale_factor=(factor, factor), mode="bicubic", antialias=False)


def _plain_rule(cells: Tensor, grid: int) -> Tensor:
    """As in MAE's fine-tuning, VC-1 and SPA: bicubic to the target size, no antialiasing."""
    return F.interpolate(cells, (grid, grid), mode="bicubic", antialias=False)


def _antialias_rule(cells: Tensor, grid: int) -> Tensor:
    """As timm does for its own checkpoints, and DINOv2's repository for the models with registers: antialiased."""
    return F.interpolate(cells, (grid, grid), mode="bicubic", antialias=True)


def _radio_rule(cells: Tensor, grid: int) -> Tensor:
    """As in RADIO's repository: bilinear to the target size, no antialiasing."""
    return F.interpolate(cells, (grid, grid), mode="bilinear")


def _radio_corners_rule(cells: Tensor, grid: int) -> Tensor:
    """As in the code beside the files of C-RADIOv3-B and -H: the corners of the grids coincide."""
    return F.interpolate(cells, (grid, grid), mode="bilinear", align_corners=True)


_RULES = {
    "hub": _hub_rule,
    "plain": _plain_rule,
    "antialias": _antialias_rule,
    "radio": _radio_rule,
    "radio-corners": _radio_corners_rule,
}


def small(spec: EncoderSpec) -> EncoderSpec:
    """Two blocks, four numbers a head, a grid of four: see verify.py."""
    with torch.device("meta"):
        heads = bare(spec).blocks[0].attn.num_heads
    width, patch = 4 * heads, spec.strides[0]
    options = spec.options | {"embed_dim": width, "depth": 2, "num_heads": heads}
    shrunk = replace(
        spec,
        options=options,
        widths=(width,) * 2,
        strides=(patch,) * 2,
        output=tuple(size // spec.widths[-1] * width for size in spec.output),
        layers=(),
    )
    return shrunk.request(input_size=4 * patch)
