"""V-JEPA 2, video encoders that take a still image as two equal frames."""

from pvr_zoo.registry import register
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

_VJEPA2 = (
    "Assran et al. 2025, V-JEPA 2: Self-Supervised Video Models Enable Understanding, Prediction and Planning,"
    " arXiv:2506.09985"
)
VJEPA_GROUPS = Groups(
    objective="masked feature prediction",
    data="VideoMix22M (internet video, ImageNet-1k)",
    backbone="vit",
    sequential=True,
    diverse=True,
)


def vjepa2(
    name: str, hub: str, *, width: int, depth: int, heads: int, hidden: int, size: int, licence: str
) -> EncoderSpec:
    """A row for an encoder of that width and depth, trained at that size."""
    return EncoderSpec(
        name=name,
        family="vjepa2",
        architecture=f"V-JEPA 2, {depth} blocks of {width}",
        builder="pvr_zoo.families.vjepa",
        transform=Transform(resize=size * 256 // 224, crop=size),
        widths=(width,) * depth,
        strides=(16,) * depth,
        features=("mean", "patches", "keypoints"),
        groups=VJEPA_GROUPS,
        licence=licence,
        citation=_VJEPA2,
        when_truncated="the final norm (norm=none leaves it out), then the mean over patches",
        input_multiple=16,
        final_norm=True,
        options={"heads": heads, "hidden": hidden},
        weights=WeightsSource(hub=hub),
        layout=Layout(drop=("predictor.",)),
    )


for _row in (
    vjepa2(
        "vjepa2_vitl",
        "facebook/vjepa2-vitl-fpc64-256",
        width=1024,
        depth=24,
        heads=16,
        hidden=4096,
        size=256,
        licence="MIT",
    ),
    vjepa2(
        "vjepa2_vith",
        "facebook/vjepa2-vith-fpc64-256",
        width=1280,
        depth=32,
        heads=16,
        hidden=5120,
        size=256,
        licence="Apache-2.0",
    ),
    vjepa2(
        "vjepa2_vitg",
        "facebook/vjepa2-vitg-fpc64-256",
        width=1408,
        depth=40,
        heads=22,
        hidden=6144,
        size=256,
        licence="Apache-2.0",
    ),
    vjepa2(
        "vjepa2_vitg384",
        "facebook/vjepa2-vitg-fpc64-384",
        width=1408,
        depth=40,
        heads=22,
        hidden=6144,
        size=384,
        licence="Apache-2.0",
    ),
):
    register(_row)
