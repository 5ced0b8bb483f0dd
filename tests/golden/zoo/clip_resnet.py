"""timm's CLIP ResNets as the independent side of family `clip_resnet`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "timm.models.byobnet"
HEADS = {"clip_rn50": 32, "clip_rn50x64": 64}  # of the attention pool: 64 numbers each at full size
TEXT = {"positional_embedding": (77, 8), "ln_final.weight": (8,), "text_projection": (8, 6)}  # dropped


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    stem, final = spec.widths[0] // 4, spec.widths[-1]
    found: dict[str, tuple[int, ...]] = {
        "visual.attnpool.positional_embedding": (1 + (spec.input_size // 32) ** 2, final)
    }
    for letter, outputs in (("q", final), ("k", final), ("v", final), ("c", spec.output[0])):
        layer = f"visual.attnpool.{letter}_proj"
        found |= {f"{layer}.weight": (outputs, final), f"{layer}.bias": (outputs,)}
    for number, (before, after) in enumerate(((3, stem // 2), (stem // 2, stem // 2), (stem // 2, stem)), start=1):
        found |= _pair("visual.", f"conv{number}", f"bn{number}", (after, before, 3, 3))
    inputs = stem
    for stage, (width, blocks) in enumerate(zip(spec.widths, spec.options["layers"], strict=True), start=1):
        for k in range(blocks):
            block, inner = f"visual.layer{stage}.{k}.", width // 4
            found |= _pair(block, "conv1", "bn1", (inner, inputs, 1, 1))
            found |= _pair(block, "conv2", "bn2", (inner, inner, 3, 3))
            found |= _pair(block, "conv3", "bn3", (width, inner, 1, 1))
            if k == 0:
                found |= _pair(block, "downsample.0", "downsample.1", (width, inputs, 1, 1))
            inputs = width
    return TEXT | found


def _pair(prefix: str, conv: str, norm: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    named: dict[str, tuple[int, ...]] = {f"{prefix}{norm}.{kind}": shape[:1] for kind in kinds}
    return named | {f"{prefix}{norm}.num_batches_tracked": (), f"{prefix}{conv}.weight": shape}


def model(spec: EncoderSpec) -> Any:
    """timm's network of the small size."""
    ensure_torchvision()
    from timm.layers import AttentionPool2d
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    stem, depths = spec.widths[0] // 4, spec.options["layers"]
    blocks = [
        ByoBlockCfg(type="bottle", d=depth, c=width, s=1 if number == 0 else 2, br=0.25)
        for number, (depth, width) in enumerate(zip(depths, spec.widths, strict=True))
    ]
    config = ByoModelCfg(
        blocks=tuple(blocks),
        stem_chs=(stem // 2, stem // 2, stem),
        stem_type="",
        stem_pool="avg2",
        downsample="avg",
        aa_layer="avg",
    )
    net = ByobNet(config, num_classes=0, in_chans=3)
    net.head = AttentionPool2d(
        spec.widths[-1],
        feat_size=spec.input_size // 32,
        out_features=spec.output[0],
        num_heads=HEADS[spec.name],
        qkv_separate=True,
    )
    return net.eval()


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    from timm.models.byobnet import checkpoint_filter_fn

    net = model(spec)
    net.load_state_dict(checkpoint_filter_fn(dict(state), net))
    x = net.stem(images)
    features = []
    for number in range(1, spec.truncate + 1):
        x = net.stages[number - 1](x)
        if number in spec.layers:
            features.append(x.permute(0, 2, 3, 1).flatten(1, 2) if spec.feature == "patches" else x.mean((2, 3)))
    return net.head(x) if spec.feature == "output" else torch.cat(features, -1)
