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


# width, depth, heads, hidden width
_SHAPES = {"l": (1024, 24, 16, 4096), "h": (1280, 32, 16, 5120), "g": (1408, 40, 22, 6144)}


def vjepa2(name: str, letter: str, size: int, licence: str) -> EncoderSpec:
    """A row for the encoder of that letter, trained at that size."""
    width, depth, heads, hidden = _SHAPES[letter]
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
        weights=WeightsSource(hub=f"facebook/vjepa2-vit{letter}-fpc64-{size}"),
        layout=Layout(drop=("predictor.",)),
    )


register(vjepa2("vjepa2_vitl", "l", 256, "MIT"))
register(vjepa2("vjepa2_vith", "h", 256, "Apache-2.0"))
register(vjepa2("vjepa2_vitg", "g", 256, "Apache-2.0"))
register(vjepa2("vjepa2_vitg384", "g", 384, "Apache-2.0"))
