"""ImageBind's vision trunk: OpenCLIP's ViT-H/14 under names of its own, with ε = 1e-6 and an output of length 1.

Its stem is a three-dimensional convolution over the picture taken twice, as two frames. That is the two-dimensional one
whose weights are the sum over both frames, and costs half.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pvr_zoo.families import clip_vit
from pvr_zoo.families.clip_vit import small
from pvr_zoo.network import Network
from pvr_zoo.specs import EncoderSpec

__all__ = ["arrange", "bare", "convert", "small"]
_NAMES = {
    "modality_preprocessors.vision.cls_token": "cls_token",
    "modality_preprocessors.vision.pos_embedding_helper.pos_embed": "pos_embed",
    "modality_preprocessors.vision.rgbt_stem.proj.1": "patch_embed.proj",
    "modality_trunks.vision.pre_transformer_layer.0": "norm_pre",
    "modality_trunks.vision.": "",
    "norm_1": "norm1",
    "norm_2": "norm2",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj": "attn.proj",
    "modality_heads.vision.0": "norm",
    "modality_heads.vision.2": "head",
}


class UnitLength(nn.Module):
    """What `project` gives, divided by its Euclidean length."""

    def __init__(self, project: nn.Module) -> None:
        super().__init__()
        self.project = project

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.project(tokens), dim=-1)


def bare(spec: EncoderSpec) -> Any:
    """The trunk with its head, untrained, for the spec's input size."""
    return clip_vit.bare(replace(spec, options=spec.options | {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}))


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """Stem, blocks and read-out; takes the network apart."""
    network = clip_vit.arrange(net, spec)
    if spec.feature == "output":
        network.read = UnitLength(network.read)
    return network


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """timm's names, one frame in the stem, positions for the spec's grid; other names are left to the strict check."""
    return clip_vit.renamed(state, spec, _NAMES, _FITS)


def _one_frame(stem: Tensor, spec: EncoderSpec) -> Tensor:
    """(C, 3, 2, 14, 14) to (C, 3, 14, 14)."""
    return stem.float().sum(2) if stem.ndim == 5 else stem


_FITS = {"pos_embed": clip_vit.fit_positions, "patch_embed.proj.weight": _one_frame}
