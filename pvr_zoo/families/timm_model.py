"""`timm:NAME`: any network of timm that gives the features between its levels, with timm's own weights and transform.

Plain vision transformers and ResNets go to the families that take them apart into levels; every other network stays
whole and is asked for what its `forward_intermediates` gives.
"""

import difflib
import math
from typing import Any

import torch
from torch import Tensor, nn

from pvr_zoo.errors import SpecError, UnknownEncoder
from pvr_zoo.pooling import pool_map
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource
from pvr_zoo.torchvision_guard import ensure_torchvision

PREFIX = "timm:"
_LICENCES = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-nc-4.0": "CC-BY-NC-4.0", "bsd-3-clause": "BSD-3-Clause"}


def spec_of(name: str) -> EncoderSpec:
    """The spec of "timm:NAME" or "timm:NAME.TAG", from timm's own configuration of these weights.

    Raises UnknownEncoder for a name or tag that timm does not know, and SpecError for networks that offer no features
    between their levels or transforms that are not a resize and a crop.
    """
    ensure_torchvision()
    import timm

    wanted = name.removeprefix(PREFIX)
    architecture, _, tag = wanted.partition(".")
    tagged = timm.models.get_arch_pretrained_cfgs(architecture) if timm.is_model(architecture) else ()
    if not timm.is_model(architecture) or (tag and wanted not in tagged):
        near = difflib.get_close_matches(wanted, timm.list_models(pretrained=True), n=3, cutoff=0.5)
        guess = f" Did you mean {' or '.join(PREFIX + other for other in near)}?" if near else ""
        raise UnknownEncoder(f"timm has no {wanted!r}.{guess}", hint="See timm.list_models(pretrained=True).")
    published: Any = timm.get_pretrained_cfg(wanted)
    if any("QuickGELU" in note for note in published.notes or ()) and "quickgelu" not in architecture:
        better = wanted.replace("_clip_", "_clip_quickgelu_")
        raise SpecError(
            f"{name} would run with another activation than it was trained with", hint=f"Use {PREFIX}{better}."
        )
    with torch.device("meta"):
        net = timm.create_model(architecture, num_classes=0).eval()
    if not hasattr(net, "forward_intermediates") or not net.feature_info:
        raise SpecError(f"{name} gives no features between its levels", hint="Name another network of timm.")
    fields = _kind(net, published.input_size[-1])
    return EncoderSpec(
        name=name,
        family="timm",
        architecture=architecture,
        transform=_transform(name, published),
        groups=Groups(objective=published.tag or "unknown", data="see the model card", backbone=fields.pop("backbone")),
        licence=_LICENCES.get(published.license or "", f"LicenseRef-{published.license or 'none-stated'}"),
        citation=" ".join(["timm, https://github.com/huggingface/pytorch-image-models", *_papers(published)]),
        weights=_source(published),
        layout=Layout(top=("state_dict", "model"), drop=tuple(f"{part}." for part in _classifiers(published))),
        **fields,
    )


def _kind(net: Any, size: int) -> dict[str, Any]:
    """What depends on the network's class: the module that builds it, its levels and the features on offer."""
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    levels = list(net.feature_info)
    fields: dict[str, Any] = {"unit": "stage", "backbone": "convolutional", "builder": "pvr_zoo.families.timm_model"}
    features = ["mean", "patches", "keypoints"]
    tokens = hasattr(net, "num_prefix_tokens")
    if tokens:
        fields |= {"unit": "block", "backbone": "vit", "final_norm": _is_norm(getattr(net, "norm", None))}
        if net.num_prefix_tokens:
            features.insert(0, "cls")
    if type(net) is ResNet:
        levels = levels[1:]  # without the stem
        fields |= {"builder": "pvr_zoo.families.resnet", "input_multiple": 1, "channels_last": True}
    elif type(net) is VisionTransformer and not _is_norm(net.fc_norm):
        fields |= {"builder": "pvr_zoo.families.vit", "input_multiple": levels[0]["reduction"]}
        fields |= {"positions": "antialias"}
        if net.attn_pool is not None:
            fields |= {"output": (net.embed_dim,), "output_is": "the tokens pooled by the trained attention head"}
    else:
        shape = net(torch.empty(1, 3, size, size, device="meta")).shape[1:]
        fields |= {"output": tuple(shape), "output_is": "what timm's network returns without its classifier"}
    if fields.get("output"):
        features.insert(0, "output")
    elif tokens and net.global_pool == "avg" and "cls" in features:
        features = ["mean", "cls", *features[2:]]
    return fields | {
        "widths": tuple(level["num_chs"] for level in levels),
        "strides": tuple(level["reduction"] for level in levels),
        "features": tuple(features),
        "when_truncated": "the map after the last kept level" + (", normalised" if fields.get("final_norm") else ""),
    }


def _is_norm(module: nn.Module | None) -> bool:
    return module is not None and not isinstance(module, nn.Identity)


def _transform(name: str, published: Any) -> Transform:
    """timm's evaluation transform: the size over the crop share, rounded down, then the crop."""
    size = published.input_size[-1]
    if published.crop_mode not in ("center", "squash") or published.interpolation not in ("bilinear", "bicubic"):
        what = f"crop_mode={published.crop_mode}, interpolation={published.interpolation}"
        raise SpecError(f"the zoo does not make the transform of {name}: {what}")
    return Transform(
        resize=math.floor(size / published.crop_pct),
        crop=size,
        kernel=published.interpolation,
        squash=published.crop_mode == "squash",
        mean=published.mean,
        std=published.std,
    )


def _source(published: Any) -> WeightsSource | None:
    """On the hub, or a file of PyTorch's; None for what only timm can read."""
    if published.hf_hub_id:
        return WeightsSource(hub=published.hf_hub_id, file=published.hf_hub_filename or "model.safetensors")
    return WeightsSource(url=published.url) if published.url and not published.custom_load else None


def _classifiers(published: Any) -> tuple[str, ...]:
    parts = published.classifier or ()
    return (parts,) if isinstance(parts, str) else tuple(parts)


def _papers(published: Any) -> tuple[str, ...]:
    papers = published.paper_ids or ()
    return (papers,) if isinstance(papers, str) else tuple(papers)


class Intermediates(nn.Module):
    """A whole network of timm, asked for its maps after some levels: images (N, 3, S, S) to the spec's feature."""

    def __init__(self, net: Any, spec: EncoderSpec) -> None:
        super().__init__()
        self.feature = spec.feature
        indices = [layer - 1 for layer in spec.layers]
        self.arguments = {"indices": indices, "norm": spec.norm == "keep", "stop_early": True}
        if spec.feature != "output" and hasattr(net, "prune_intermediate_layers"):
            self.arguments["indices"] = net.prune_intermediate_layers(indices, prune_norm=spec.norm == "none")
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        if self.feature == "output":
            output: Tensor = self.net(images)
            return output
        if self.feature == "cls":
            pairs = self.net.forward_intermediates(
                images, intermediates_only=True, return_prefix_tokens=True, **self.arguments
            )
            return torch.cat([prefix[:, 0] for _, prefix in pairs], -1)
        maps = self.net.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW", **self.arguments)
        return torch.cat([pool_map(features, self.feature) for features in maps], -1)


def bare(spec: EncoderSpec) -> Any:
    """The whole network without its classifier, untrained."""
    ensure_torchvision()
    import timm

    return timm.create_model(spec.architecture, num_classes=0, **spec.options)


def arrange(net: Any, spec: EncoderSpec) -> Intermediates:
    """The network with the tables that its constructor makes and no file holds (windows, rotations)."""
    device = next(net.parameters()).device
    for module in net.modules():
        tables = {key: table for key, table in module.named_buffers(recurse=False) if table.device != device}
        for key, table in tables.items():
            module.register_buffer(key, torch.empty_like(table, device=device), persistent=False)
        if tables:
            module.init_non_persistent_buffers()
    return Intermediates(net, spec)
