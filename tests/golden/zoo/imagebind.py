"""ImageBind's vision branch written out with plain functions, from the official source."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pvr_zoo.specs import EncoderSpec

SOURCE = "facebookresearch/ImageBind @ 53680b0 (models/imagebind_model.py, transformer.py), restated"
HEADS, EPS = 16, 1e-6
STEM, TRUNK, HEAD = "modality_preprocessors.vision.", "modality_trunks.vision.", "modality_heads.vision."
OTHERS = {  # some of what the other senses hold, dropped
    "modality_preprocessors.text.pos_embed": (1, 77, 8),
    "modality_trunks.audio.blocks.0.attn.bias_k": (1, 1, 8),
    "modality_heads.depth.2.weight": (6, 8),
    "modality_postprocessors.imu.1.log_logit_scale": (1,),
}


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    width, patch = spec.widths[0], spec.strides[0]
    found: dict[str, tuple[int, ...]] = {
        STEM + "cls_token": (1, 1, width),
        STEM + "rgbt_stem.proj.1.weight": (width, 3, 2, patch, patch),
        STEM + "pos_embedding_helper.pos_embed": (1, 1 + (spec.input_size // patch) ** 2, width),
        HEAD + "2.weight": (spec.output[0], width),
    }
    layers = {TRUNK + "pre_transformer_layer.0": (width,), HEAD + "0": (width,)}
    for k in range(spec.depth):
        block = f"{TRUNK}blocks.{k}."
        found |= {block + "attn.in_proj_weight": (3 * width, width), block + "attn.in_proj_bias": (3 * width,)}
        layers |= {block + "norm_1": (width,), block + "norm_2": (width,), block + "attn.out_proj": (width, width)}
        layers |= {block + "mlp.fc1": (4 * width, width), block + "mlp.fc2": (width, 4 * width)}
    for layer, shape in layers.items():
        found |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return OTHERS | found


def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""

    def norm(layer: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        return scaled * state[layer + ".weight"] + state[layer + ".bias"]

    def linear(layer: str, x: Tensor) -> Tensor:
        return x @ state[layer + ".weight"].T + state[layer + ".bias"]

    def attend(block: str, x: Tensor) -> Tensor:
        x = x @ state[block + "attn.in_proj_weight"].T + state[block + "attn.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in x.chunk(3, -1))
        weight = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return linear(block + "attn.out_proj", (weight @ v).transpose(1, 2).flatten(2))

    clip = torch.stack([images, images], 2)  # (N, 3, 2, S, S): the picture as two frames
    kernel = state[STEM + "rgbt_stem.proj.1.weight"]
    x = F.conv3d(clip, kernel, stride=tuple(kernel.shape[2:])).flatten(2).mT
    x = torch.cat([state[STEM + "cls_token"].expand(len(x), -1, -1), x], 1)
    x = norm(TRUNK + "pre_transformer_layer.0", x + state[STEM + "pos_embedding_helper.pos_embed"])
    features = []
    for number in range(1, spec.truncate + 1):
        block = f"{TRUNK}blocks.{number - 1}."
        x = x + attend(block, norm(block + "norm_1", x))
        hidden = linear(block + "mlp.fc1", norm(block + "norm_2", x))
        x = x + linear(block + "mlp.fc2", hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))
        if number in spec.layers:
            tokens = norm(HEAD + "0", x) if spec.norm == "keep" else x
            kinds = {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1), "patches": tokens[:, 1:]}
            features.append(kinds["cls" if spec.feature == "output" else spec.feature])
    if spec.feature == "output":
        projected = features[0] @ state[HEAD + "2.weight"].T
        return projected / projected.square().sum(-1, keepdim=True).sqrt()
    return torch.cat(features, -1)
