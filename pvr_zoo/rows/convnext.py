"""ConvNeXts trained on ImageNet-1k, from timm's hub."""

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import IMAGENET_BICUBIC
from pvr_zoo.specs import EncoderSpec, Groups, Layout, WeightsSource

_LIU = "Liu et al. 2022, A ConvNet for the 2020s, arXiv:2201.03545"


def convnext(name: str, size: str, **fields: object) -> EncoderSpec:
    """A row for timm's ConvNeXt of that size ("tiny", "small", "base"); `fields` fill in what is not said here."""
    first = {"tiny": 96, "small": 96, "base": 128}[size]
    widths = tuple(first * 2**stage for stage in range(4))
    return EncoderSpec(
        name=name,
        family="convnext",
        architecture=f"convnext_{size}",
        builder="pvr_zoo.families.convnext",
        transform=IMAGENET_BICUBIC,
        widths=widths,
        strides=(4, 8, 16, 32),
        features=("output", "mean", "patches", "keypoints"),
        output=widths[-1:],
        output_is="the final norm of the mean of the last map",
        when_truncated="the mean of the last kept stage's map, without the final norm",
        unit="stage",
        input_multiple=32,
        **fields,  # type: ignore[arg-type]
    )


for _size in ("tiny", "small", "base"):
    register(
        convnext(
            f"convnext_{_size}_in1k",
            _size,
            groups=Groups(objective="classification", data="ImageNet-1k", backbone="convnext"),
            licence="Apache-2.0",  # as timm's hub states it; the original repository has MIT
            citation=_LIU,
            weights=WeightsSource(hub=f"timm/convnext_{_size}.fb_in1k"),
            layout=Layout(drop=("head.fc.",)),
        )
    )
