"""Theia, DeiT backbones distilled from CLIP, DINOv2 and ViT: the models of its paper's main evaluation (cdiv)."""

from pvr_zoo.registry import register
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

_DEIT = Transform(
    resize=256, crop=224, kernel="bicubic", squash=True
)  # the processor that the model holds; takes uint8
_SIZES = {"tiny": 192, "small": 384, "base": 768}


def theia(size: str) -> EncoderSpec:
    """The row of Theia's DeiT of that size."""
    return EncoderSpec(
        name=f"theia_{size}",
        family="theia",
        architecture=f"deit_{size}_patch16_224",
        builder="pvr_zoo.families.theia",
        transform=_DEIT,
        widths=(_SIZES[size],) * 12,
        strides=(16,) * 12,
        features=("mean", "patches", "cls", "keypoints"),  # the distillation acts on patches
        groups=Groups(objective="distillation of CLIP, DINOv2 and ViT", data="ImageNet-1k", backbone="vit"),
        licence="LicenseRef-AI-Institute-non-commercial",
        citation="Shang et al. 2024, Theia: Distilling Diverse Vision Foundation Models, arXiv:2407.20179",
        when_truncated="the final norm (norm=none leaves it out), then the mean over patches",
        input_multiple=16,
        final_norm=True,
        positions="hub",
        weights=WeightsSource(hub=f"theaiinstitute/theia-{size}-patch16-224-cdiv"),
        layout=Layout(prefix=("backbone.model.",), drop=("translator.",)),
    )


for _size in _SIZES:
    register(theia(_size))
