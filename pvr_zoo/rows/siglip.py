"""SigLIP and SigLIP 2, the image towers.

timm's networks, whose default GELU is exact, with the tanh form of big_vision (flax's `gelu`) and transformers. The
transform is open_clip's, whose files these are: both sides bicubically to the input size. (big_vision's demonstration
resizes bilinearly without antialiasing.)
"""

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import HALF
from pvr_zoo.specs import EncoderSpec, Groups, Transform, WeightsSource

_SIGLIP = "Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343"
_SIGLIP2 = "Tschannen et al. 2025, SigLIP 2: Multilingual Vision-Language Encoders, arXiv:2502.14786"


def _siglip(
    name: str, citation: str, tag: str, word: str, width: int, depth: int, patch: int, side: int
) -> EncoderSpec:
    architecture = f"vit_{word}_patch{patch}_siglip_{side}"
    return EncoderSpec(
        name=name,
        family="siglip",
        architecture=architecture,
        builder="pvr_zoo.families.vit",
        transform=Transform(resize=side, crop=side, kernel="bicubic", squash=True, mean=HALF, std=HALF),
        widths=(width,) * depth,
        strides=(patch,) * depth,
        features=("output", "mean", "patches", "keypoints"),
        output=(width,),
        output_is="the image embedding, pooled by the trained attention head, before normalisation",
        groups=Groups(objective="image-text contrast", data="WebLI", backbone="vit", language=True, diverse=True),
        licence="Apache-2.0",
        citation=citation,
        when_truncated="the final norm (norm=none leaves it out), then the mean over patches; no attention pooling",
        input_multiple=patch,
        final_norm=True,
        options={"act_layer": "gelu_tanh"},
        positions="antialias",
        weights=WeightsSource(hub=f"timm/{architecture}.{tag}"),
    )


for _prefix, _paper, _tag in (("siglip", _SIGLIP, "webli"), ("siglip2", _SIGLIP2, "v2_webli")):
    register(_siglip(f"{_prefix}_vitb16", _paper, _tag, "base", 768, 12, 16, 224))
    register(_siglip(f"{_prefix}_vitl16", _paper, _tag, "large", 1024, 24, 16, 256))
    register(_siglip(f"{_prefix}_so400m14", _paper, _tag, "so400m", 1152, 27, 14, 224))
