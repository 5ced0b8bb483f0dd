"""transformers' ViT, given the file's tensors by their stored names."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers.ViTModel, layer_norm_eps of facebook/deit-*-patch16-224"
PREFIX = "backbone.model."
HEAD = "translator.translator_heads.facebook/dinov2-large.adapter.8"
BLOCK = {
    "attention.attention.query": (1, 1),
    "attention.attention.key": (1, 1),
    "attention.attention.value": (1, 1),
    "attention.output.dense": (1, 1),
    "intermediate.dense": (4, 1),
    "output.dense": (1, 4),
}


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    width, patch, cells = spec.widths[0], spec.strides[0], spec.grid(1) ** 2
    found: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 1 + cells, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
    }
    for number in range(spec.depth):
        for name, (outputs, inputs) in BLOCK.items():
            key = f"encoder.layer.{number}.{name}"
            found |= {f"{key}.weight": (outputs * width, inputs * width), f"{key}.bias": (outputs * width,)}
        for name in ("layernorm_before", "layernorm_after"):
            found |= {f"encoder.layer.{number}.{name}.{part}": (width,) for part in ("weight", "bias")}
    found |= {f"layernorm.{part}": (width,) for part in ("weight", "bias")}
    named = {PREFIX + key: shape for key, shape in found.items()}
    return named | {f"{HEAD}.weight": (1024, width), f"{HEAD}.bias": (1024,)}


def model(spec: EncoderSpec, state: Mapping[str, Tensor]) -> nn.Module:
    """transformers' network with the first blocks of the file."""
    ensure_torchvision()
    from transformers import ViTConfig, ViTModel

    width = spec.widths[0]
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=spec.truncate,
        num_attention_heads={"tiny": 3, "small": 6, "base": 12}[spec.architecture.split("_")[1]],
        intermediate_size=4 * width,
        image_size=spec.input_size,
        patch_size=spec.strides[0],
        layer_norm_eps=1e-12,
    )
    beyond = tuple(f"{PREFIX}encoder.layer.{number}." for number in range(spec.truncate, spec.depth))
    kept = {key.removeprefix(PREFIX): value for key, value in state.items() if not key.startswith((*beyond, HEAD))}
    net, said = ViTModel.from_pretrained(
        None, config=config, state_dict=kept, output_loading_info=True, add_pooling_layer=False
    )
    assert not any(said.values()), said
    return net.eval()


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    tokens = model(spec, state)(images).last_hidden_state
    return {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1), "patches": tokens[:, 1:]}[spec.feature]
