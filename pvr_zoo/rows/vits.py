"""Vision transformers with timm's key names.

The sums of DINOv2's files are those of finegrain-ai/refiners (its conversion script names all eight) and, for the
smaller ones, of many other public records.
"""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import AUGREG, IMAGENET, IMAGENET_BICUBIC
from pvr_zoo.specs import EncoderSpec, Groups, Layout, Transform, WeightsSource

_AUGREG_PAPER = "Steiner et al. 2022, How to train your ViT?, arXiv:2106.10270"
_DINO = "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294"
_DINOV2 = "Oquab et al. 2023, DINOv2: Learning Robust Visual Features without Supervision, arXiv:2304.07193"
_REGISTERS = "Darcet et al. 2023, Vision Transformers Need Registers, arXiv:2309.16588"
_MAE = "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377"
_VC1 = "Majumdar et al. 2023, Where are we in the search for an Artificial Visual Cortex?, arXiv:2303.18240"
_MVP = "Xiao et al. 2022, Masked Visual Pre-training for Motor Control, arXiv:2203.06173"
_EGOSOUP = "Radosavovic et al. 2022, Real-World Robot Learning with Masked Visual Pre-training, arXiv:2210.03109"
_SPA = "Zhu et al. 2024, SPA: 3D Spatial-Awareness Enables Effective Embodied Representation, arXiv:2410.08208"
_IJEPA = "Assran et al. 2023, Self-Supervised Learning from Images with a JEPA, arXiv:2301.08243"

VIT_SIZES = {
    "s": ("small", 384, 12),
    "b": ("base", 768, 12),
    "l": ("large", 1024, 24),
    "h": ("huge", 1280, 32),
    "g": ("giant", 1536, 40),
}


def vit(name: str, size: str, patch: int, **fields: object) -> EncoderSpec:
    """A row for timm's ViT of that size ("s", "b", "l", "h", "g") and patch; `fields` say what differs."""
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
        when_truncated="the final norm (norm=none leaves it out), then the class token, or the feature asked for",
        positions="antialias",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


for _size in "sbl":
    _hub = f"timm/vit_{VIT_SIZES[_size][0]}_patch16_224.augreg_in21k_ft_in1k"
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


def _dinov2(name: str, size: str, file: str, sha256: str, **fields: object) -> EncoderSpec:
    base = vit(
        name,
        size,
        14,
        groups=Groups(objective="self-distillation", data="LVD-142M", backbone="vit", diverse=True),
        citation=_DINOV2,
        positions="hub",
        weights=WeightsSource(
            url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14/{file}_pretrain.pth", sha256=sha256
        ),
        layout=Layout(drop=("mask_token",)),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


_DINOV2_SHA256 = {  # without and with registers
    "s": (
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    ),
    "b": (
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    ),
    "l": (
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
    ),
    "g": (
        "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
        "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283",
    ),
}
for _size, (_plain, _registers) in _DINOV2_SHA256.items():
    _name, _word = f"dinov2_vit{_size}14", VIT_SIZES[_size][0]
    register(_dinov2(_name, _size, _name, _plain))
    register(
        _dinov2(
            f"{_name}_reg",
            _size,
            f"{_name}_reg4",
            _registers,
            architecture=f"vit_{_word}_patch14_reg4_dinov2",
            citation=_REGISTERS,
            positions="antialias",  # the hub's rule for these, unlike that for the ones without registers
        )
    )


def _mae(name: str, size: str, patch: int, **fields: object) -> EncoderSpec:
    base = vit(
        name,
        size,
        patch,
        architecture=f"vit_{VIT_SIZES[size][0]}_patch{patch}_224",
        groups=Groups(objective="masked autoencoding", data="ImageNet-1k", backbone="vit"),
        citation=_MAE,
        licence="CC-BY-NC-4.0",
        positions="plain",
        layout=Layout(top=("model",), drop=("decoder", "mask_token", "head.")),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


for _size, _patch in (("b", 16), ("l", 16), ("h", 14)):
    _hub = f"timm/vit_{VIT_SIZES[_size][0]}_patch{_patch}_224.mae"
    register(_mae(f"mae_vit{_size}{_patch}", _size, _patch, weights=WeightsSource(hub=_hub)))

_VC1_DATA = "Ego4D, manipulation, navigation, ImageNet"
for _name, _size, _licence, _repository, _data in (
    ("vc1_vitb", "b", "CC-BY-NC-4.0", "facebook/vc1-base", _VC1_DATA),
    ("vc1_vitl", "l", "CC-BY-NC-4.0", "facebook/vc1-large", _VC1_DATA),
    ("vc1_vitl_permissive", "l", "MIT", "facebook/vc1-large-permissive", "not stated"),
):
    register(
        _mae(
            _name,
            _size,
            16,
            groups=Groups(
                objective="masked autoencoding",
                data=_data,
                backbone="vit",
                diverse=True,
            ),
            licence=_licence,
            citation=_VC1,
            weights=WeightsSource(hub=_repository, file="pytorch_model.bin"),
        )
    )

# MVP: the links of its repository are dead and it states no licence, so the weights are the user's own. It has no
# evaluation transform either: its simulators render at the network's size, its camera pictures are shrunk bilinearly.
for _name, _size, _side, _data, _fields in (
    (
        "mvp_vits16",
        "s",
        224,
        "human-object interaction videos",
        {  # twelve heads of 32: timm's six would load as well and compute something else
            "architecture": "vit_small_patch16_12heads",
            "options": {"model_name": "vit_small_patch16_224", "num_heads": 12},
            "citation": _MVP,
        },
    ),
    ("mvp_vitb16", "b", 224, "Ego4D, Epic Kitchens, Something-Something, 100 DOH, ImageNet", {}),
    (
        "mvp_vitl16",
        "l",
        256,
        "Ego4D, Epic Kitchens, Something-Something, 100 DOH, ImageNet",
        {"architecture": "vit_large_patch16_256", "options": {"model_name": "vit_large_patch16_224"}},
    ),
):
    _base = _mae(
        _name,
        _size,
        16,
        groups=Groups(objective="masked autoencoding", data=_data, backbone="vit", diverse=_size != "s"),
        licence="LicenseRef-none-stated",
        citation=_EGOSOUP,
        transform=Transform(resize=_side, crop=_side, kernel="bilinear"),
        input_size=_side,
    )
    register(replace(_base, **_fields))  # type: ignore[arg-type]

_SPA_PRETRAINING = ("decoder", "mask_token", "readout_project", "upsample")  # what of the backbone serves rendering
for _size in "bl":
    register(
        _mae(
            f"spa_vit{_size}16",
            _size,
            16,
            groups=Groups(
                objective="neural rendering of masked views",
                data="multi-view indoor and robot scenes",
                backbone="vit",
                diverse=True,
            ),
            licence="MIT",
            citation=_SPA,
            transform=Transform(resize=224, crop=224, kernel="bicubic"),
            weights=WeightsSource(hub="HaoyiZhu/SPA", file=f"spa-{_size}.safetensors"),
            layout=Layout(
                prefix=("model.img_backbone.",),
                drop=("model.view_transform.", "model.dense_head.", *_SPA_PRETRAINING),
            ),
        )
    )


def _ijepa(name: str, architecture: str, width: int, depth: int, patch: int, file: str, data: str) -> EncoderSpec:
    """The files hold both encoders; the paper evaluates the target encoder, the running average of the other one.

    timm and transformers load the context encoder ("encoder"). There is no class token. The repository has no
    evaluation transform; the paper's linear evaluation is VISSL's, which resizes bilinearly.
    """
    return vit(
        name,
        "h",
        patch,
        architecture=architecture,
        transform=IMAGENET,
        widths=(width,) * depth,
        strides=(patch,) * depth,
        layers=(depth,),
        features=("mean", "patches", "keypoints"),
        feature="mean",
        groups=Groups(objective="prediction of masked latents", data=data, backbone="vit"),
        licence="CC-BY-NC-4.0",
        citation=_IJEPA,
        when_truncated="the final norm (norm=none leaves it out), then the mean over patches",
        positions="plain",
        weights=WeightsSource(url=f"https://dl.fbaipublicfiles.com/ijepa/{file}.pth.tar"),  # no public record of a sum
        layout=Layout(top=("target_encoder",), prefix=("module.",)),
    )


_HUGE = "vit_huge_patch14_gap_224"
register(_ijepa("ijepa_vith14", _HUGE, 1280, 32, 14, "IN1K-vit.h.14-300e", "ImageNet-1k"))
register(_ijepa("ijepa_vith14_22k", _HUGE, 1280, 32, 14, "IN22K-vit.h.14-900e", "ImageNet-22k"))
register(_ijepa("ijepa_vitg16_22k", "vit_giant_patch16_gap_224", 1408, 40, 16, "IN22K-vit.g.16-600e", "ImageNet-22k"))
