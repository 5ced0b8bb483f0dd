"""transformers' DINOv3 (Meta's own port) as the independent side of family `eva`, fed with timm's key names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers 5.23 (DINOv3ViT)"
HEADS = {"dinov3_vits16": 6, "dinov3_vitb16": 12, "dinov3_vitl16": 16}
REGISTERS = 4
NAMES = [
    (r"^cls_token", "embeddings.cls_token"),
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
    (r"^blocks\.", "model.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.([qkv])\.", r".attention.\1_proj."),
    (r"\.gamma_([12])", r".layer_scale\1.lambda1"),
    (r"\.mlp\.fc1\.", ".mlp.up_proj."),
    (r"\.mlp\.fc2\.", ".mlp.down_proj."),
]


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file (timm's on the hub)."""
    width = spec.widths[0]
    found: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width), "reg_token": (1, REGISTERS, width)}
    found |= {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    for number in range(spec.depth):
        block: dict[str, tuple[int, ...]] = {"gamma_1": (width,), "gamma_2": (width,)}
        block |= {"attn.qkv.weight": (3 * width, width)}  # without biases
        block |= {"attn.proj.weight": (width, width), "attn.proj.bias": (width,)}
        block |= {"mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,)}
        block |= {"mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,)}
        for norm in ("norm1", "norm2"):
            block |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
        found |= {f"blocks.{number}.{key}": shape for key, shape in block.items()}
    return found | {"norm.weight": (width,), "norm.bias": (width,)}


def model(spec: EncoderSpec) -> nn.Module:
    """transformers' network of the small size."""
    ensure_torchvision()
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=spec.widths[0],
        intermediate_size=4 * spec.widths[0],
        num_hidden_layers=spec.depth,
        num_attention_heads=HEADS[spec.name],
        num_register_tokens=REGISTERS,
        image_size=spec.input_size,
        patch_size=16,
        query_bias=False,
        key_bias=False,
        value_bias=False,
        rope_theta=100.0,
        layer_norm_eps=1e-5,
    )
    return DINOv3ViTModel(config).eval()


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    net = model(spec)
    found = {"embeddings.mask_token": torch.zeros(1, 1, spec.widths[0])}
    for key, value in state.items():
        if key.endswith("attn.qkv.weight"):
            parts = {key.replace("qkv", letter): part for letter, part in zip("qkv", value.chunk(3), strict=True)}
        else:
            parts = {key: value}
        for pattern, name in NAMES:
            parts = {re.sub(pattern, name, part): tensor for part, tensor in parts.items()}
        found |= parts
    net.load_state_dict(found, strict=True)
    x = net.embeddings(images)  # type: ignore[operator]
    angles = net.rope_embeddings(images)  # type: ignore[operator]
    features = []
    for number, block in enumerate(net.model.layer[: spec.truncate], start=1):  # type: ignore[index,union-attr]
        x = block(x, position_embeddings=angles)
        if number in spec.layers:
            y = net.norm(x) if spec.norm == "keep" else x  # type: ignore[operator]
            patches = y[:, 1 + REGISTERS :]
            features.append({"cls": y[:, 0], "patches": patches, "mean": patches.mean(1)}[spec.feature])
    return torch.cat(features, -1)
