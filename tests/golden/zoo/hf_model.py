"""transformers' own models and processors: tiny ones are written into a folder, and asked for the same feature."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers: save_pretrained, AutoModel and AutoImageProcessor of the same folder"
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SHORT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
SQUARE = {"size": {"height": 32, "width": 32}}


def models() -> dict[str, tuple[Any, Any]]:
    """For each kind of repository a model and an image processor, both as transformers makes them."""
    ensure_torchvision()
    import transformers as hf

    fixed = SIZES | {"image_size": 32}
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    clip = hf.CLIPConfig(vision_config=fixed | {"projection_dim": 12}, text_config=TEXT | ids, projection_dim=12)
    siglip = hf.SiglipConfig(vision_config=fixed, text_config=TEXT | ids)
    dinov2 = SIZES | {"image_size": 48, "mlp_ratio": 2}
    dinov2.pop("intermediate_size")
    vjepa2 = {"hidden_size": 28, "num_hidden_layers": 3, "num_attention_heads": 2, "crop_size": 32}
    vjepa2 |= {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    square, short, half = (
        hf.ViTImageProcessor(**SQUARE),
        hf.CLIPImageProcessor(**SHORT),
        hf.SiglipImageProcessor(**SQUARE),
    )
    bit = hf.BitImageProcessor(**SHORT, **HALF)
    return {
        "vit": (hf.ViTModel(hf.ViTConfig(**fixed)), square),
        "vit_classifier": (
            hf.ViTForImageClassification(hf.ViTConfig(**fixed)),
            hf.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}),
        ),
        "dinov2": (hf.Dinov2Model(hf.Dinov2Config(**dinov2)), bit),
        "dinov2_registers": (hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**dinov2)), bit),
        "clip": (hf.CLIPModel(clip), short),
        "clip_vision": (hf.CLIPVisionModel(clip.vision_config), short),
        "clip_projected": (hf.CLIPVisionModelWithProjection(clip.vision_config), short),
        "siglip": (hf.SiglipModel(siglip), half),
        "siglip_vision": (hf.SiglipVisionModel(siglip.vision_config), half),
        "ijepa": (hf.IJepaModel(hf.IJepaConfig(**fixed)), square),
        "vjepa2": (hf.VJEPA2Model(hf.VJEPA2Config(**vjepa2)), hf.VJEPA2VideoProcessor(crop_size=32)),
    }


def write(kind: str, folder: Path) -> tuple[Any, Any]:
    """The repository's files; returns model and processor. Weights are drawn so that no part is without effect."""
    model, processor = models()[kind]
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        tensor.copy_(
            torch.randn(tensor.shape, generator=generator) * (0.2 if tensor.ndim > 1 else 0.5) + (tensor.ndim < 2)
        )
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


@torch.no_grad()
def feature(kind: str, model: Any, processor: Any, frames: np.ndarray, wanted: str) -> Tensor:
    """The feature of uint8 frames (N, H, W, 3) by the model's own forward pass at full depth, final norm kept."""
    if kind == "vjepa2":
        pixels = processor(list(frames[:, None]), return_tensors="pt")["pixel_values_videos"]
        tokens = model(pixels.repeat(1, 2, 1, 1, 1), skip_predictor=True).last_hidden_state
        return tokens if wanted == "patches" else tokens.mean(1)
    pixels = processor(list(frames), return_tensors="pt")["pixel_values"]
    if wanted == "output":
        if kind.startswith("siglip"):
            return getattr(model, "vision_model", model)(pixels).pooler_output
        seen = model.get_image_features(pixels) if kind == "clip" else model(pixels).image_embeds
        return getattr(seen, "pooler_output", seen)
    trunk = getattr(model, "vision_model", getattr(model, "vit", model))
    tokens = trunk(pixels).last_hidden_state
    if kind.startswith("clip"):
        tokens = trunk.post_layernorm(tokens)  # the model normalises the class token alone
    front = 0 if kind.startswith(("siglip", "ijepa")) else 5 if kind == "dinov2_registers" else 1
    return {"cls": tokens[:, 0], "mean": tokens[:, front:].mean(1), "patches": tokens[:, front:]}[wanted]
