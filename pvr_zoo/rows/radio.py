"""C-RADIO v3 and v4."""

from pvr_zoo.registry import register
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

_V3 = "Heinrich et al. 2024, RADIOv2.5: Improved Baselines for Agglomerative Vision Foundation Models, arXiv:2412.07679"
_V4 = "Ranzinger et al. 2026, C-RADIOv4 (Tech Report), arXiv:2601.17237"
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_NO_SUMMARY = (
    "the published summary is not offered: which class tokens it is made of stands in the configuration beside the"
    " weights, which was not at hand"
)


def _radio(version: int, size: str, word: str, width: int, depth: int, hub: str, corners: bool = False) -> EncoderSpec:
    """The files' own code matches the corners of the position grids for v3-B and -H only (timm 1.0.31 found this).

    Version 4 returns the class tokens of two of its three teachers as its summary; which tokens version 3 returns is
    in the configurations beside its files, which were not at hand, so that it offers the first class token alone.
    """
    summary = (2 * width,) if version == 4 else ()
    kinds = ("cls", "mean", "patches", "keypoints")
    return EncoderSpec(
        name=f"cradio_v{version}_{size}16",
        family="radio",
        architecture=f"vit_{word}_patch16_radio_v{version}",
        builder="pvr_zoo.families.radio",
        transform=Transform(resize=512, crop=512, kernel="bicubic", mean=_CLIP_MEAN, std=_CLIP_STD),
        widths=(width,) * depth,
        strides=(16,) * depth,
        features=("output", *kinds) if summary else kinds,
        output=summary,
        output_is="the summary: the class tokens of the first two teachers" if summary else _NO_SUMMARY,
        groups=Groups(
            objective="distillation from several teachers",
            data="commercially usable pictures",
            backbone="vit",
            language=True,
            diverse=True,
        ),
        licence="LicenseRef-NVIDIA-Open-Model",
        citation=_V4 if version == 4 else _V3,
        when_truncated="the first class token; there is no final norm",
        input_multiple=16,
        positions="radio-corners" if corners else "radio",
        weights=WeightsSource(hub=f"nvidia/{hub}"),
        layout=Layout(
            prefix=("radio_model.model.",), drop=("radio_model.input_conditioner.", "radio_model.summary_idxs")
        ),
    )


register(_radio(3, "vitb", "base", 768, 12, "C-RADIOv3-B", corners=True))
register(_radio(3, "vitl", "large", 1024, 24, "C-RADIOv3-L"))
register(_radio(3, "vith", "huge", 1280, 32, "C-RADIOv3-H", corners=True))
register(_radio(3, "vitg", "giant", 1536, 40, "C-RADIOv3-g"))
register(_radio(4, "so400m", "so400m", 1152, 27, "C-RADIOv4-SO400M"))
register(_radio(4, "vith", "huge", 1280, 32, "C-RADIOv4-H"))
