"""`openclip:ARCH/TAG`: a spec for any of open_clip's CLIPs whose image tower is a plain ViT or a ModifiedResNet.

The tower is described by open_clip's own model and weights tables, so the activation, mean, std and resizing are those
that the weights were trained with, also where the architecture's name says otherwise. Licence, groups and citation of
weights that the zoo has a row for are that row's.
"""

import difflib
from typing import Any

from pvr_zoo import registry
from pvr_zoo.errors import SpecError, UnknownEncoder
from pvr_zoo.rows.clip import clip_resnet, clip_vit
from pvr_zoo.specs import EncoderSpec, Groups, Transform, WeightsSource
from pvr_zoo.torchvision_guard import ensure_torchvision

PREFIX = "openclip:"
LISTED = 20  # names that a hint gives in full
_PLAIN = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}  # what our two families build


def spec_of(name: str) -> EncoderSpec:
    """The spec of "openclip:ARCH/TAG"; imports open_clip.

    Raises UnknownEncoder for what open_clip does not list, SpecError for towers that are neither of the two kinds.
    """
    ensure_torchvision()
    import open_clip

    arch, _, tag = name.removeprefix(PREFIX).partition("/")
    model = open_clip.get_model_config(arch)
    if model is None:
        raise _unknown(f"open_clip has no architecture {arch!r}", arch, open_clip.list_models())
    trained = open_clip.get_pretrained_cfg(arch, tag)
    if not trained:
        raise _unknown(
            f"open_clip has no weights {tag!r} for {arch}", tag, open_clip.list_pretrained_tags_by_model(arch)
        )
    vision = model["vision_cfg"]
    if "timm_model_name" in vision:
        raise SpecError(f"the image tower of {name} is timm's", hint=f"Use timm:{vision['timm_model_name']}.")
    special = sorted(vision.keys() - _PLAIN)
    if special or trained["resize_mode"] not in ("shortest", "squash"):
        what = ", ".join(special) or f"resize_mode={trained['resize_mode']}"
        raise SpecError(f"the image tower of {name} is of a kind that the zoo does not build: {what}")
    weights = _source(trained)
    fields = {
        "architecture": arch,
        "transform": _transform(vision["image_size"], trained),
        "groups": Groups("image-text contrast", data=tag, backbone="vit", language=True),
        "licence": "MIT" if tag == "openai" else "unknown: see the model card of the weights",
        "citation": "open_clip, https://github.com/mlfoundations/open_clip",
        "weights": weights,
    }
    resnet = isinstance(vision["layers"], list)
    if resnet:
        fields["groups"] = Groups("image-text contrast", data=tag, backbone="resnet", language=True)
    if (row := _row_of(weights)) is not None:
        fields |= {"groups": row.groups, "licence": row.licence, "citation": row.citation}
    if resnet:
        fields["output"] = (model["embed_dim"],)
        return clip_resnet(name, vision["width"], tuple(vision["layers"]), vision["image_size"], **fields)
    quick = model.get("quick_gelu", False) or trained.get("quick_gelu", False)
    fields["options"] = {
        "model_name": f"vit_base_patch16_clip{'_quickgelu' if quick else ''}_224",
        "patch_size": vision["patch_size"],
        "embed_dim": vision["width"],
        "depth": vision["layers"],
        "num_heads": vision["width"] // vision.get("head_width", 64),
        "mlp_ratio": vision.get("mlp_ratio", 4.0),
    }
    shape = (vision["width"], vision["layers"], model["embed_dim"])
    return clip_vit(name, "", vision["patch_size"], shape, **fields)


def _row_of(weights: WeightsSource) -> EncoderSpec | None:
    """The zoo's own row for these weights; a hub repository holds the same ones in several forms."""
    for row in map(registry.spec, registry.list_encoders()):
        if row.family == "clip" and row.weights and (row.weights.url, row.weights.hub) == (weights.url, weights.hub):
            return row
    return None


def _unknown(what: str, wanted: str, known: list[str]) -> UnknownEncoder:
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    guess = f". Did you mean {' or '.join(map(repr, near))}?" if near else ""
    some = f" There are: {', '.join(known)}." if len(known) <= LISTED else ""
    return UnknownEncoder(what + guess, hint=f"Write {PREFIX}ARCH/TAG.{some} All: open_clip.list_pretrained().")


def _transform(size: int, trained: dict[str, Any]) -> Transform:
    return Transform(
        resize=size,
        crop=size,
        kernel=trained["interpolation"],
        squash=trained["resize_mode"] == "squash",
        mean=tuple(trained["mean"]),
        std=tuple(trained["std"]),
    )


def _source(trained: dict[str, Any]) -> WeightsSource:
    if trained["url"]:
        digits = trained["url"].split("/")[-2]  # OpenAI's urls hold the checksum
        return WeightsSource(url=trained["url"], sha256=digits if len(digits) == 64 else "")
    owner, repository, file = trained["hf_hub"].split("/", 2)
    return WeightsSource(hub=f"{owner}/{repository}", file=file or "open_clip_pytorch_model.bin")
