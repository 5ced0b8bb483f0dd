"""CLIP's vision transformers, OpenAI's and OpenCLIP's: timm's networks, the files' own names.

QuickGELU is x · sigmoid(1.702 x), and belongs to OpenAI's weights alone (timm's architectures say which); LayerNorm's
ε is 1e-5.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from pvr_zoo.families import vit
from pvr_zoo.network import Network, token_network
from pvr_zoo.specs import EncoderSpec

_NAMES = {
    "visual.proj": "head.weight",
    "visual.": "",
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1": "patch_embed.proj",
    "ln_pre": "norm_pre",
    "ln_post": "norm",
    "transformer.resblocks": "blocks",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class Project(nn.Module):
    """Tokens (N, 1 + P, C) to the class token, normalised and projected: (N, D)."""

    def __init__(self, norm: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.norm, self.head = norm, head

    def forward(self, tokens: Tensor) -> Tensor:
        feature: Tensor = self.head(self.norm(tokens[:, 0]))
        return feature


def bare(spec: EncoderSpec) -> Any:
    """The image tower with its projection, untrained, for the spec's input size."""
    net = vit.bare(spec)
    net.head = nn.Linear(net.embed_dim, spec.output[0], bias=False)
    return net


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """timm's network as stem, blocks and read-out; takes the network apart."""
    blocks, norm, head = list(net.blocks), net.norm, net.head
    net.blocks, net.norm, net.head = nn.Sequential(), nn.Identity(), nn.Identity()
    return token_network(spec, vit.Stem(net), blocks, norm, 1, Project(norm, head))


Fits = Mapping[str, Callable[[Tensor, EncoderSpec], Tensor]]


def convert(state: dict[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """timm's names and shapes, and positions for the spec's grid; other names are left to the strict check."""
    return renamed(state, spec, _NAMES, _FITS)


def renamed(state: Mapping[str, Tensor], spec: EncoderSpec, names: Mapping[str, str], fits: Fits) -> dict[str, Tensor]:
    """`state` with each part of a key that `names` has replaced, and the tensors that have a fit put through it."""
    pattern = re.compile("|".join(map(re.escape, names)))
    fitted = {pattern.sub(lambda part: names[part[0]], key): value for key, value in state.items()}
    return fitted | {key: fit(fitted[key], spec) for key, fit in fits.items() if key in fitted}


def fit_positions(table: Tensor, spec: EncoderSpec) -> Tensor:
    """Positions (1, 1 + side², C) for the spec's grid; a table of another shape is left to the strict check."""
    return vit.fit_positions(table, 1, spec) if table.ndim == 3 else table


_FITS: Fits = {
    "cls_token": lambda token, spec: token[None, None],
    "pos_embed": lambda table, spec: fit_positions(table[None], spec),
    "head.weight": lambda projection, spec: projection.transpose(0, -1),  # the file multiplies from the right
}


def small(spec: EncoderSpec) -> EncoderSpec:
    """As for other ViTs, with a narrow projection: see verify.py."""
    return replace(vit.small(spec), output=(6,))
