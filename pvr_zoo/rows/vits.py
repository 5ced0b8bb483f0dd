"""Vision transformers with timm's key names."""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import AUGREG, IMAGENET_BICUBIC
from pvr_zoo.specs import EncoderSpec, Groups, Layout, WeightsSource

_AUGREG_PAPER = "Steiner et al. 2022, How to train your ViT?, arXiv:2106.10270"
_DINO = "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294"
_DINOV2 = "Oquab et al. 2023, DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193"
_MAE = "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377"

VIT_SIZES = {"s": ("small", 384, 12), "b": ("base", 768, 12), "l": ("large", 1024, 24)}


def vit(name: str, size: str, patch: int, **fields: object) -> EncoderSpec:
    """A row for timm's ViT of that size ("s", "b", "l") and patch; `fields` say what differs."""
    word, width, depth = VIT_SIZES[size]
    base = EncoderSpec(
        name=name,
        family="vit",
        architecture=f"vit_{word}_patch14_dinov2" if patch == 14 else f"vit_{word}_patch{patch}_224",
        builder="pvr_zoo.families.vit",
        transform=IMAGENET_BICUBIC,
        widths=(width,) * depth,
        strides=(patch,) * depth,
        features=("cls", "mean", "patches", "keypoints"),
        groups=Groups(objective="classification", data="ImageNet-21k, ImageNet-1k", backbone="vit"),
        licence="Apache-2.0",
        citation=_AUGREG_PAPER,
        input_multiple=patch,
        final_norm=True,
        when_truncated="the final norm (norm=none leaves it out), then the class token",
        positions="antialias",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


for _size, (_word, _, _) in VIT_SIZES.items():
    _hub = f"timm/vit_{_word}_patch16_224.augreg_in21k_ft_in1k"
    register(
        vit(
            f"vit{_size}16_in1k",
            _size,
            16,
            transform=AUGREG,
            weights=WeightsSource(hub=_hub),
            layout=Layout(drop=("head.",)),
        )
    )

for _size, _patch in (("s", 16), ("s", 8), ("b", 16), ("b", 8)):
    register(
        vit(
            f"vit{_size}{_patch}_dino",
            _size,
            _patch,
            groups=Groups(objective="self-distillation", data="ImageNet-1k", backbone="vit"),
            citation=_DINO,
            positions="hub",
            weights=WeightsSource(hub=f"timm/vit_{VIT_SIZES[_size][0]}_patch{_patch}_224.dino"),
            layout=Layout(drop=("head.",)),
        )
    )

_DINOV2_SHA256 = {
    "s": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "b": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "l": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
}
for _size, _sha256 in _DINOV2_SHA256.items():
    _file = f"dinov2_vit{_size}14"
    register(
        vit(
            _file,
            _size,
            14,
            groups=Groups(objective="self-distillation", data="LVD-142M", backbone="vit", diverse=True),
            citation=_DINOV2,
            positions="hub",
            weights=WeightsSource(
                url=f"https://dl.fbaipublicfiles.com/dinov2/{_file}/{_file}_pretrain.pth", sha256=_sha256
            ),
            layout=Layout(drop=("mask_token",)),
        )
    )

for _size in ("b", "l"):
    register(
        vit(
            f"mae_vit{_size}16",
            _size,
            16,
            groups=Groups(objective="masked autoencoding", data="ImageNet-1k", backbone="vit"),
            citation=_MAE,
            licence="CC-BY-NC-4.0",
            weights=WeightsSource(hub=f"timm/vit_{VIT_SIZES[_size][0]}_patch16_224.mae"),
            layout=Layout(top=("model",), drop=("decoder", "mask_token", "head.")),
        )
    )
