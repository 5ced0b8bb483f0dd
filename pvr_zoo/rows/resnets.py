"""ResNets with torchvision's key names."""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import IMAGENET
from pvr_zoo.specs import EncoderSpec, Groups, Layout, WeightsSource

_HE = "He et al. 2016, Deep Residual Learning for Image Recognition, arXiv:1512.03385"


def resnet(name: str, depth: int, **fields: object) -> EncoderSpec:
    """A row for torchvision's ResNet of that depth; `fields` say what differs."""
    wide = 4 if depth >= 50 else 1
    base = EncoderSpec(
        name=name,
        family="resnet",
        architecture=f"resnet{depth}",
        builder="pvr_zoo.families.resnet",
        transform=IMAGENET,
        widths=tuple(64 * 2**stage * wide for stage in range(4)),
        strides=(4, 8, 16, 32),
        features=("mean", "patches", "keypoints"),
        groups=Groups(objective="classification", data="ImageNet-1k", backbone="resnet"),
        licence="BSD-3-Clause",
        citation=_HE,
        when_truncated="the mean of the last kept stage's map",
        unit="stage",
        input_multiple=1,
        channels_last=True,
        layout=Layout(top=("state_dict",), prefix=("module.",), drop=("fc.",)),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


TORCHVISION_SHA256 = {
    18: "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    34: "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    50: "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
}
for _depth, _sha256 in TORCHVISION_SHA256.items():
    _url = f"https://download.pytorch.org/models/resnet{_depth}-{_sha256[:8]}.pth"
    register(resnet(f"resnet{_depth}_in1k", _depth, weights=WeightsSource(url=_url, sha256=_sha256)))
