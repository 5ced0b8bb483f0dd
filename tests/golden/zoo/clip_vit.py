"""transformers' CLIP vision model as the independent side of family `clip_vit`."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "transformers.CLIPVisionModelWithProjection"
HEADS = {
    "base": 12,
    "large": 16,
    "huge": 16,
}  # the published models': openai/CLIP build_model, open_clip's ViT-H-14.json
TEXT = {  # a text tower of width 8 with one block, dropped
    "positional_embedding": (77, 8),
    "token_embedding.weight": (20, 8),
    "transformer.resblocks.0.attn.in_proj_weight": (24, 8),
    "ln_final.weight": (8,),
    "text_projection": (8, 6),
}


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    width, patch = spec.widths[0], spec.strides[0]
    found: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (1 + (spec.input_size // patch) ** 2, width),
        "visual.proj": (width, *spec.output),
        "visual.conv1.weight": (width, 3, patch, patch),
    }
    for norm in ("ln_pre", "ln_post"):
        found |= {f"visual.{norm}.weight": (width,), f"visual.{norm}.bias": (width,)}
    for k in range(spec.depth):
        block = f"visual.transformer.resblocks.{k}."
        found |= {block + "attn.in_proj_weight": (3 * width, width), block + "attn.in_proj_bias": (3 * width,)}
        for layer, inputs, outputs in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            found |= {f"{block}{layer}.weight": (outputs, inputs), f"{block}{layer}.bias": (outputs,)}
        for norm in ("ln_1", "ln_2"):
            found |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
    return TEXT | found


def theirs(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The same weights by transformers' names."""
    model, visual = "vision_model.", "visual."
    named = {
        model + "embeddings.class_embedding": state[visual + "class_embedding"],
        model + "embeddings.patch_embedding.weight": state[visual + "conv1.weight"],
        model + "embeddings.position_embedding.weight": state[visual + "positional_embedding"],
        "visual_projection.weight": state[visual + "proj"].T,
    }
    layers = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}
    for k in range(depth):
        for ours, published in (
            ("self_attn.out_proj", "attn.out_proj"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            layers[f"encoder.layers.{k}.{ours}"] = f"transformer.resblocks.{k}.{published}"
        for kind in ("weight", "bias"):
            whole = state[f"{visual}transformer.resblocks.{k}.attn.in_proj_{kind}"]
            for part, letter in zip(whole.chunk(3), "qkv", strict=True):
                named[f"{model}encoder.layers.{k}.self_attn.{letter}_proj.{kind}"] = part
    for ours, published in layers.items():
        for kind in ("weight", "bias"):
            named[f"{model}{ours}.{kind}"] = state[f"{visual}{published}.{kind}"]
    return named


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    ensure_torchvision()
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=spec.widths[0],
        intermediate_size=4 * spec.widths[0],
        num_hidden_layers=spec.depth,
        num_attention_heads=HEADS[spec.architecture.split("_")[1]],
        image_size=spec.input_size,
        patch_size=spec.strides[0],
        projection_dim=spec.output[0],
        hidden_act="quick_gelu" if spec.name.startswith("clip_") else "gelu",
        layer_norm_eps=1e-5,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    model.load_state_dict(theirs(state, spec.depth))
    result = model(pixel_values=images, output_hidden_states=True)
    if spec.feature == "output":
        return result.image_embeds
    features = []
    for layer in spec.layers:
        tokens = result.hidden_states[layer]
        if spec.norm == "keep":
            tokens = model.vision_model.post_layernorm(tokens)
        kinds = {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1), "patches": tokens[:, 1:]}
        features.append(kinds[spec.feature])
    return torch.cat(features, -1)
