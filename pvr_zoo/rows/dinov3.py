"""DINOv3's vision transformers."""

from pvr_zoo.registry import register
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

_DINOV3 = "Siméoni et al. 2025, DINOv3, arXiv:2508.10104"


def _dinov3(size: str, word: str, width: int, depth: int) -> EncoderSpec:
    architecture = f"vit_{word}_patch16_dinov3"
    return EncoderSpec(
        name=f"dinov3_vit{size}16",
        family="dinov3",
        architecture=architecture,
        builder="pvr_zoo.families.eva",
        transform=Transform(resize=256, crop=256, kernel="bicubic"),
        widths=(width,) * depth,
        strides=(16,) * depth,
        features=("cls", "mean", "patches", "keypoints"),
        groups=Groups(objective="self-distillation", data="LVD-1689M", backbone="vit", diverse=True),
        licence="LicenseRef-DINOv3",
        citation=_DINOV3,
        when_truncated="the final norm (norm=none leaves it out), then the class token, or the feature asked for",
        input_multiple=16,
        final_norm=True,
        weights=WeightsSource(hub=f"timm/{architecture}.lvd1689m"),
        layout=Layout(drop=("mask_token", "rope_embed.")),  # of Meta's own files
    )


for _size, _word, _width, _depth in (("s", "small", 384, 12), ("b", "base", 768, 12), ("l", "large", 1024, 24)):
    register(_dinov3(_size, _word, _width, _depth))
