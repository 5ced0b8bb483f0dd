"""C-RADIO: vision transformers distilled from several teachers, one class token for each, no final norm.

A file holds a position table for pictures of 2048 pixels, which is resized to the input's grid. Heinrich et al. 2024,
arXiv:2412.07679.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from pvr_zoo.families import vit
from pvr_zoo.network import Network, token_network
from pvr_zoo.specs import EncoderSpec

bare = vit.bare
small = vit.small
_PATCHES = "patch_generator.embedder.weight"


class Summary(nn.Module):
    """Tokens (N, T, C) to the class tokens that RADIO returns as its summary, (N, k·C)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, : self.count].flatten(1)


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """timm's network as stem, blocks and read-out; feature "output" is the first class tokens, side by side."""
    blocks, prefix = list(net.blocks), net.num_prefix_tokens
    net.blocks = nn.Sequential()
    output = Summary(spec.output[0] // spec.widths[-1]) if spec.output else None
    return token_network(spec, vit.Stem(net), blocks, net.norm, prefix, output)


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """The patch generator's tensors as timm has them: patches by convolution, one class token, the rest registers."""
    state = {re.sub(r"\.grandma$", ".gamma", key): value for key, value in state.items()}  # the hub refuses "gamma"
    linear, tokens = state.get(_PATCHES), state.get("patch_generator.cls_token.token")
    table = state.get("patch_generator.pos_embed")
    patch = spec.strides[0]
    if linear is None or tokens is None or table is None:
        return state  # left to the strict check, as is what does not fit the following
    if linear.ndim != 2 or linear.shape[1] != 3 * patch**2 or tokens.ndim != 2 or table.ndim != 3:
        return state
    for key in (_PATCHES, "patch_generator.cls_token.token", "patch_generator.pos_embed"):
        del state[key]
    return (
        state
        | {
            "patch_embed.proj.weight": linear.unflatten(1, (3, patch, patch)),
            "patch_embed.proj.bias": torch.zeros_like(linear[:, 0]),  # the published projection has none
            "cls_token": tokens[None, :1],
            "reg_token": tokens[None, 1:],
            "pos_embed": vit.fit_positions(table, 0, spec),
        }
    )
