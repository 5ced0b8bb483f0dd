"""Theia (Shang et al. 2024, arXiv:2407.20179): DeiT backbones, from files with the names of transformers 4's ViT.

The names are those in the file. transformers 5 renames them as it loads, so that its models' own state dicts differ.
"""

import re
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pvr_zoo.families import vit
from pvr_zoo.specs import EncoderSpec

arrange, small = vit.arrange, vit.small

_NAMES = (
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def bare(spec: EncoderSpec) -> Any:
    """timm's DeiT with the epsilon of transformers' ViT."""
    norm = partial(nn.LayerNorm, eps=1e-12)
    return vit.bare(replace(spec, options=spec.options | {"norm_layer": norm}))


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """The same weights with timm's names; query, key and value become one product where all three are there."""
    for published, ours in _NAMES:
        state = {re.sub(published, ours, key): value for key, value in state.items()}
    for query in [key for key in state if ".attn.q." in key]:
        parts = [query.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if all(part in state and state[part].shape == state[query].shape != () for part in parts):
            state[query.replace(".attn.q.", ".attn.qkv.")] = torch.cat([state.pop(part) for part in parts])
    return vit.convert(state, spec)
