"""`hf:ORG/NAME`, any vision backbone of these kinds on the Hugging Face hub, described by the files beside its weights.

`config.json` and the image processor's configuration are read from the zoo's cache, the hub's cache or the hub; nothing
in the repository is run. hf_model.py builds the network.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from pvr_zoo.errors import SpecError, UnknownEncoder
from pvr_zoo.rows.vjepa import VJEPA_GROUPS
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource
from pvr_zoo.weights import locate


@dataclass(frozen=True)
class Kind:
    """What transformers' model of one type is like. Keys are dropped before and after the prefix is stripped."""

    model: str  # transformers' class
    tokens: int = 1  # in front of the patches
    prefix: str = ""  # of models that were saved with a head
    drop: tuple[str, ...] = ()
    fixed: bool = True  # position embeddings fit the configured size only


_CLIP_DROP = ("text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids")
KINDS = {
    "vit": Kind("ViTModel", prefix="vit.", drop=("classifier.", "pooler.")),
    "dinov2": Kind("Dinov2Model", prefix="dinov2.", drop=("classifier.",), fixed=False),
    "dinov2_with_registers": Kind(
        "Dinov2WithRegistersModel", prefix="dinov2_with_registers.", drop=("classifier.",), fixed=False
    ),
    "ijepa": Kind("IJepaModel", tokens=0, prefix="ijepa.", drop=("classifier.", "pooler.")),
    "clip": Kind("CLIPVisionModelWithProjection", drop=_CLIP_DROP),
    "clip_vision_model": Kind("CLIPVisionModel", prefix="vision_model.", drop=_CLIP_DROP),
    "siglip": Kind("SiglipVisionModel", tokens=0, prefix="vision_model.", drop=("text_model.", "logit_")),
    "siglip_vision_model": Kind("SiglipVisionModel", tokens=0, prefix="vision_model."),
    "vjepa2": Kind("VJEPA2Model", tokens=0, prefix="vjepa2.", drop=("predictor.", "pooler.", "classifier.")),
}

# What a processor does where its file does not say: the kernel (PIL's number), and whether a size that is one number
# means both sides.
_PROCESSORS = {
    "ViT": (2, True),
    "DeiT": (3, True),
    "Siglip": (3, True),
    "CLIP": (3, False),
    "Bit": (3, False),
    "VJEPA2": (2, False),
}
_VJEPA2 = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True, "tubelet_size": 2, "in_chans": 3}
_KERNELS = {2: "bilinear", 3: "bicubic"}


def spec_of(name: str) -> EncoderSpec:
    """The spec of `hf:ORG/NAME`, or `hf:ORG/NAME@REVISION`.

    Raises UnknownEncoder for another form of name, WeightsUnavailable where the files cannot be had, and SpecError for
    what this zoo cannot load.
    """
    match = re.fullmatch(r"hf:(?!.*\.\.)([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise UnknownEncoder(f"{name!r} names no repository", hint="Write hf:ORG/NAME, or hf:ORG/NAME@REVISION.")
    hub, revision = match[1], match[2] or "main"
    config = _read(hub, revision, "config.json")
    model_type = config.get("model_type")
    if model_type not in KINDS:
        raise SpecError(
            f"{name} is a model of type {model_type!r}, which is not among those that the zoo can take apart",
            hint=f"It knows: {', '.join(sorted(KINDS))}.",
        )
    kind = KINDS[model_type]
    if model_type == "clip_vision_model" and "CLIPVisionModelWithProjection" in (config.get("architectures") or ()):
        kind = KINDS["clip"]
    vision = _vision(config)
    file = "video_preprocessor_config.json" if model_type == "vjepa2" else "preprocessor_config.json"
    transform = transform_of(_read(hub, revision, file), name)
    _check(name, kind, vision, transform)
    return _row(name, kind, vision, transform, WeightsSource(hub=hub, revision=revision))


def _check(name: str, kind: Kind, vision: dict[str, Any], transform: Transform) -> None:
    """Raise SpecError where model and processor do not fit, or the model is not as its kind is built here."""
    size, patch = vision.get("image_size", vision.get("crop_size")), vision["patch_size"]
    if kind.fixed and size != transform.crop:
        raise SpecError(f"the processor of {name} makes pictures of {transform.crop} pixels, its model takes {size}")
    if not isinstance(patch, int) or transform.crop % patch:
        raise SpecError(f"pictures of {transform.crop} pixels make no grid of patches of {patch}, which {name} has")
    if kind.model == "VJEPA2Model":
        other = {key: vision[key] for key, value in _VJEPA2.items() if vision[key] != value}
        if other:
            raise SpecError(f"{name} is no V-JEPA 2 as published: {other}", hint=f"Published is {_VJEPA2}.")


def _row(name: str, kind: Kind, vision: dict[str, Any], transform: Transform, weights: WeightsSource) -> EncoderSpec:
    width, depth, patch = vision["hidden_size"], vision["num_hidden_layers"], vision["patch_size"]
    features: tuple[str, ...] = ("cls",) * bool(kind.tokens) + ("mean", "patches", "keypoints")
    output: tuple[int, ...] = ()
    output_is = ""
    if kind is KINDS["clip"]:
        output, output_is = (vision["projection_dim"],), "the class token, normalised and projected (image_embeds)"
    elif kind.model == "SiglipVisionModel" and vision["vision_use_head"]:
        output, output_is = (width,), "the trained attention pooling (pooler_output)"
    options: dict[str, Any] = {"model": kind.model, "tokens": kind.tokens, "config": vision}
    if kind.model == "VJEPA2Model":
        options = {"heads": vision["num_attention_heads"], "hidden": int(width * vision["mlp_ratio"])}
    elif kind.model == "Dinov2WithRegistersModel":
        options["tokens"] += vision["num_register_tokens"]
    return EncoderSpec(
        name=name,
        family="hf",
        architecture=f"{kind.model}, {depth} blocks of {width}",
        builder="pvr_zoo.families.vjepa" if kind.model == "VJEPA2Model" else "pvr_zoo.families.hf_model",
        transform=transform,
        widths=(width,) * depth,
        strides=(patch,) * depth,
        features=(*features, "output") if output else features,
        output=output,
        output_is=output_is,
        groups=VJEPA_GROUPS if kind.model == "VJEPA2Model" else Groups("not stated", "not stated", "vit"),
        licence=f"as stated at https://huggingface.co/{weights.hub}",
        citation=f"https://huggingface.co/{weights.hub}",
        when_truncated=f"the final norm (norm=none leaves it out), then {features[0]}",
        final_norm=True,
        options=options,
        weights=weights,
        layout=Layout(optional=(kind.prefix,) if kind.prefix else (), drop=kind.drop),
    )


def _read(hub: str, revision: str, file: str) -> dict[str, Any]:
    path, _, _ = locate(WeightsSource(hub=hub, revision=revision, file=file))
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecError(f"{file} of {hub} cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise SpecError(f"{file} of {hub} holds no object", where=str(path))
    return content


def _vision(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the image part, with transformers' defaults for what the file leaves out."""
    from pvr_zoo.torchvision_guard import ensure_torchvision

    ensure_torchvision()
    from transformers import AutoConfig

    whole = AutoConfig.for_model(**{key: value for key, value in config.items() if key != "auto_map"})
    filled: dict[str, Any] = getattr(whole, "vision_config", whole).to_dict()
    return filled


def transform_of(processor: dict[str, Any], name: str) -> Transform:
    """What an image processor's configuration says, as a Transform. Raises SpecError where it cannot be said."""
    written = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    written = str(processor.get("video_processor_type") or written)
    kind = re.sub(r"(Image|Video)Processor(Fast|Pil)?$|FeatureExtractor$", "", written)
    if kind not in _PROCESSORS:
        known = ", ".join(f"{known}ImageProcessor" for known in _PROCESSORS)
        raise SpecError(f"{name} has the image processor {written or 'of no name'!r}", hint=f"The zoo knows: {known}.")
    kernel, square = _PROCESSORS[kind]
    kernel = processor.get("resample", kernel)
    size, squash = _side(processor.get("size"), square, name)
    crops = processor.get("do_center_crop", kind in ("CLIP", "Bit", "DeiT", "VJEPA2"))
    if kernel not in _KERNELS or not processor.get("do_resize", True) or (not crops and not squash):
        said = {key: processor.get(key) for key in ("do_resize", "size", "resample", "do_center_crop")}
        raise SpecError(f"the image processor of {name} does what no Transform says: {said}")
    crop = _side(processor.get("crop_size"), True, name)[0] if crops else size
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    normalises = processor.get("do_normalize", True)
    mean, std = (processor.get(key) for key in ("image_mean", "image_std")) if normalises else ([0.0] * 3, [1.0] * 3)
    if not mean or not std:
        raise SpecError(f"the image processor of {name} does not say its image_mean and image_std")
    return Transform(
        resize=size,
        crop=crop,
        kernel=_KERNELS[kernel],
        squash=squash,
        mean=tuple(mean),
        std=tuple(std),
        value_range=(0.0, round(255 * factor, 6)),
    )


def _side(size: Any, square: bool, name: str) -> tuple[int, bool]:
    """One length of a processor's size, and whether it is that of both sides."""
    if isinstance(size, int):
        return size, square
    if isinstance(size, dict) and "shortest_edge" in size:
        return size["shortest_edge"], False
    if isinstance(size, dict) and size.get("height") == size.get("width") is not None:
        return size["height"], True
    raise SpecError(f"the image processor of {name} has the size {size!r}; a square one is needed")
