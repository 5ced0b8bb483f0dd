"""The encoders that come with the zoo, as data. No torch here.

SHA-256 sums of url sources were compared over at least three unrelated public records of the same file (the torchvision
ones also start with the digits in the file's name). The hub repositories without one are not pinned: see WeightsSource.
"""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

_IMAGENET = Transform(resize=256, crop=224, kernel="bilinear")  # torchvision's preset for the *_V1 weights
_IMAGENET_BICUBIC = Transform(resize=256, crop=224, kernel="bicubic")  # evaluation in DINO, DINOv2 and MAE
_AUGREG = Transform(resize=248, crop=224, kernel="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # crop share 0.9
_HE = "He et al. 2016, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
_AUGREG_PAPER = "Steiner et al. 2022, How to train your ViT?, arXiv:2106.10270"
_DINO = "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294"
_DINOV2 = "Oquab et al. 2023, DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193"
_MAE = "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377"
_RANDOM = Groups(objective="none (random weights)", data="none", backbone="")


def _resnet(name: str, depth: int, **fields: object) -> EncoderSpec:
    wide = 4 if depth >= 50 else 1
    base = EncoderSpec(
        name=name,
        family="resnet",
        architecture=f"resnet{depth}",
        builder="pvr_zoo.families.resnet:build",
        transform=_IMAGENET,
        widths=tuple(64 * 2**stage * wide for stage in range(4)),
        strides=(4, 8, 16, 32),
        features=("mean", "patches"),
        groups=Groups(objective="classification", data="ImageNet-1k", backbone="resnet"),
        licence="BSD-3-Clause",
        citation=_HE,
        unit="stage",
        input_multiple=1,
        channels_last=True,
        layout=Layout(top=("state_dict",), prefix=("module.",), drop=("fc.",)),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


_VIT_SIZES = {"s": ("small", 384, 12), "b": ("base", 768, 12), "l": ("large", 1024, 24)}


def _vit(name: str, size: str, patch: int, **fields: object) -> EncoderSpec:
    word, width, depth = _VIT_SIZES[size]
    base = EncoderSpec(
        name=name,
        family="vit",
        architecture=f"vit_{word}_patch14_dinov2" if patch == 14 else f"vit_{word}_patch{patch}_224",
        builder="pvr_zoo.families.vit:build",
        transform=_IMAGENET_BICUBIC,
        widths=(width,) * depth,
        strides=(patch,) * depth,
        features=("cls", "mean", "patches"),
        groups=Groups(objective="classification", data="ImageNet-21k, ImageNet-1k", backbone="vit"),
        licence="Apache-2.0",
        citation=_AUGREG_PAPER,
        input_multiple=patch,
        final_norm=True,
        positions="antialias",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


_TORCHVISION_SHA256 = {
    18: "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    34: "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    50: "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
}
for _depth, _sha256 in _TORCHVISION_SHA256.items():
    _url = f"https://download.pytorch.org/models/resnet{_depth}-{_sha256[:8]}.pth"
    register(_resnet(f"resnet{_depth}_in1k", _depth, weights=WeightsSource(url=_url, sha256=_sha256)))

for _size, (_word, _, _) in _VIT_SIZES.items():
    _hub = f"timm/vit_{_word}_patch16_224.augreg_in21k_ft_in1k"
    register(
        _vit(
            f"vit{_size}16_in1k",
            _size,
            16,
            transform=_AUGREG,
            weights=WeightsSource(hub=_hub),
            layout=Layout(drop=("head.",)),
        )
    )

for _size, _patch in (("s", 16), ("s", 8), ("b", 16), ("b", 8)):
    register(
        _vit(
            f"vit{_size}{_patch}_dino",
            _size,
            _patch,
            groups=Groups(objective="self-distillation", data="ImageNet-1k", backbone="vit"),
            citation=_DINO,
            positions="hub",
            weights=WeightsSource(hub=f"timm/vit_{_VIT_SIZES[_size][0]}_patch{_patch}_224.dino"),
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
        _vit(
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
        _vit(
            f"mae_vit{_size}16",
            _size,
            16,
            groups=Groups(objective="masked autoencoding", data="ImageNet-1k", backbone="vit"),
            citation=_MAE,
            licence="CC-BY-NC-4.0",
            weights=WeightsSource(hub=f"timm/vit_{_VIT_SIZES[_size][0]}_patch16_224.mae"),
            layout=Layout(top=("model",), drop=("decoder", "mask_token", "head.")),
        )
    )

_CONTROL = {"seed": 0, "licence": "MIT", "citation": "", "builder": "pvr_zoo.families.random:build"}
for _depth in _TORCHVISION_SHA256:
    register(_resnet(f"random_resnet{_depth}", _depth, groups=replace(_RANDOM, backbone="resnet"), **_CONTROL))
for _size, _patch in (("s", 16), ("b", 16), ("l", 16), ("s", 8), ("b", 8), ("s", 14), ("b", 14), ("l", 14)):
    register(_vit(f"random_vit{_size}{_patch}", _size, _patch, groups=replace(_RANDOM, backbone="vit"), **_CONTROL))


def autoencoder_row(name: str, width: int, size: int) -> EncoderSpec:
    """The spec of a convolutional autoencoder's encoder, without weights."""
    return EncoderSpec(
        name=name,
        family="autoencoder",
        architecture="conv64",
        builder="pvr_zoo.families.autoencoder:build",
        transform=Transform(resize=size, crop=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        widths=(width,),
        strides=(size,),
        features=("vector",),
        groups=Groups(objective="reconstruction", data="frames of the task", backbone="convolutional"),
        licence="MIT",
        citation="mbrl_pvr; the study's in-distribution autoencoder, arXiv:2411.10175",
        unit="stage",
    )


register(
    replace(
        autoencoder_row("embedded", 256, 64),
        groups=Groups(objective="reconstruction", data="frames of six dm_control tasks", backbone="convolutional"),
        weights=WeightsSource(
            package="data/embedded.safetensors",
            command="mbrl-pvr pretrain autoencoder env=dmc/cartpole-balance, then encoder=PATH of the file it writes",
        ),
    )
)
