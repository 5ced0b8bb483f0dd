"""ResNets with torchvision's key names: supervised, R3M, VIP, MCR, DINO, and the MoCo encoders of pvr_habitat."""

from dataclasses import replace

from pvr_zoo.registry import register
from pvr_zoo.rows.transforms import IMAGENET, IMAGENET_BICUBIC
from pvr_zoo.specs import EncoderSpec, Groups, Layout, WeightsSource

_HE = "He et al. 2016, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
_R3M = "Nair et al. 2022, R3M: A Universal Visual Representation for Robot Manipulation, arXiv:2203.12601"
_VIP = "Ma et al. 2023, VIP: Towards Universal Visual Reward and Representation, arXiv:2210.00030"
_MCR = "Jiang et al. 2025, Robots Pre-Train Robots: Manipulation-Centric Robotic Representation, arXiv:2410.22325"
_DINO = "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294"
_PVR = "Parisi et al. 2022, The Unsurprising Effectiveness of Pre-Trained Vision Models for Control, arXiv:2203.03580"


def resnet(name: str, depth: int, **fields: object) -> EncoderSpec:
    """A row for torchvision's ResNet of that depth; `fields` say what differs."""
    wide = 4 if depth >= 50 else 1
    usual: dict[str, object] = {
        "family": "resnet",
        "architecture": f"resnet{depth}",
        "builder": "pvr_zoo.families.resnet",
        "transform": IMAGENET,
        "widths": tuple(64 * 2**stage * wide for stage in range(4)),
        "strides": (4, 8, 16, 32),
        "features": ("mean", "patches", "keypoints"),
        "groups": Groups(objective="classification", data="ImageNet-1k", backbone="resnet"),
        "licence": "BSD-3-Clause",
        "citation": _HE,
        "when_truncated": "the mean of the last kept stage's map",
        "unit": "stage",
        "input_multiple": 1,
        "channels_last": True,
        "layout": Layout(drop=("fc.",)),
    }
    return EncoderSpec(name=name, **(usual | fields))  # type: ignore[arg-type]


TORCHVISION_SHA256 = {
    18: "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    34: "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    50: "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
}
for _depth, _sha256 in TORCHVISION_SHA256.items():
    _url = f"https://download.pytorch.org/models/resnet{_depth}-{_sha256[:8]}.pth"
    register(resnet(f"resnet{_depth}_in1k", _depth, weights=WeightsSource(url=_url, sha256=_sha256)))

# R3M and VIP: the official modules take values from 0 to 255 and normalise them inside, after PIL's bilinear resize;
# the files are torchrl's copies, which VIP's own loader names too. No public record of their checksums was found.
for _depth in (18, 34, 50):
    register(
        resnet(
            f"r3m_resnet{_depth}",
            _depth,
            groups=Groups(
                objective="time contrast, video-language alignment",
                data="Ego4D",
                backbone="resnet",
                language=True,
                sequential=True,
            ),
            licence="MIT",
            citation=_R3M,
            weights=WeightsSource(url=f"https://pytorch.s3.amazonaws.com/models/rl/r3m/r3m_{_depth}.pt"),
            layout=Layout(top=("r3m",), prefix=("module.convnet.",), drop=("module.lang_enc.", "module.lang_rew.")),
        )
    )
register(
    resnet(
        "vip_resnet50",
        50,
        features=("output", "mean", "patches", "keypoints"),
        output=(1024,),
        output_is="the linear layer on the pooled map",
        options={"head": "linear"},
        groups=Groups(objective="value-implicit, goal-conditioned", data="Ego4D", backbone="resnet", sequential=True),
        licence="CC-BY-NC-4.0",
        citation=_VIP,
        when_truncated="the mean of the last kept stage's map, without the linear layer",
        weights=WeightsSource(url="https://pytorch.s3.amazonaws.com/models/rl/vip/model.pt"),
        layout=Layout(top=("vip",), prefix=("module.convnet.",)),
    )
)

# MCR was trained on normalised images, so its batch norms know no others; its example feeds the bare network values
# from 0 to 1, a step that R3M's module took inside and that was lost when MCR shipped the network alone. The first row
# is as trained, the second as in the example.
_mcr = resnet(
    "mcr_resnet50",
    50,
    groups=Groups(
        objective="dynamics alignment, action prediction, time contrast",
        data="DROID",
        backbone="resnet",
        sequential=True,
    ),
    licence="MIT",
    citation=_MCR,
    weights=WeightsSource(hub="GqJiang/robots-pretrain-robots", file="mcr_resnet50.pth"),
    layout=Layout(),
)
register(_mcr)
_unit = replace(_mcr.transform, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
register(replace(_mcr, name="mcr_resnet50_unnormalised", transform=_unit))

register(
    resnet(
        "dino_resnet50",
        50,
        transform=IMAGENET_BICUBIC,
        groups=Groups(objective="self-distillation", data="ImageNet-1k", backbone="resnet"),
        licence="Apache-2.0",
        citation=_DINO,
        weights=WeightsSource(
            url="https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
        ),
        layout=Layout(),
    )
)


def compressed(stage: int) -> dict[str, object]:
    """What differs where a ResNet-50 ends after that stage in a block of a few channels, whose map is flattened."""
    channels, side = {3: (11, 14), 4: (42, 7)}[stage]
    return {
        "widths": (*(256, 512, 1024, 2048)[:stage], channels),
        "strides": (*(4, 8, 16, 32)[:stage], 4 * 2 ** (stage - 1)),
        "features": ("output", "mean", "patches", "keypoints"),
        "output": (channels * side**2,),
        "output_is": f"the compressed map, {channels}×{side}×{side}, flattened",
        "options": {"head": "compression"},
        "input_multiple": 0,
        "when_truncated": "the mean of the last kept stage's map; the compression counts as the last stage",
    }


def pvr_resnet(name: str, file: str, groups: Groups, encoder: str, training: tuple[str, ...] = ()) -> EncoderSpec:
    """A row for a ResNet-50 of pvr_habitat; names that end in _l3 or _l4 are compressed after that stage.

    `encoder` is where the file has the network, and `training` what else it holds, by the start of the keys. Upstream
    resizes without antialiasing, which its Habitat frames of 64 pixels do not show.
    """
    stage = int(name[-1]) if name.endswith(("_l3", "_l4")) else 0
    beyond = {0: (), 3: ("layer3.2.", "layer4."), 4: ("layer4.2.",)}[stage]  # what the official loader passes over
    return resnet(
        name,
        50,
        groups=groups,
        licence="CC-BY-NC-4.0",
        citation=_PVR,
        weights=WeightsSource(url=f"https://github.com/sparisi/pvr_habitat/releases/download/models/{file}"),
        layout=Layout(
            top=("state_dict",),
            prefix=(encoder,),
            drop=(*training, *(encoder + part for part in ("fc.", *beyond))),
        ),
        **(compressed(stage) if stage else {}),
    )


# By upstream's names: "aug" has MoCo v2's augmentations, "croponly" and "coloronly" one kind of them. It is ImageNet
# where no data set is in the name; what "uber" and "demy" (layout as MoCo's) were trained on is not said there.
_MOCO = (
    *("aug", "aug_places", "aug_habitat", "aug_mujoco", "aug_uber"),
    *("aug_l3", "aug_l4", "aug_places_l3", "aug_places_l4"),
    *("croponly", "croponly_places", "croponly_habitat", "croponly_mujoco", "croponly_uber"),
    *("croponly_l3", "croponly_l4", "croponly_places_l3", "croponly_places_l4"),
    *("coloronly", "demy"),
)
_FILES = {
    "moco_aug": "moco_aug.pth.tar",
    "moco_aug_places": "moco_aug_places.pth.tar",
    "moco_aug_habitat": "moco_aug_habitat_64.pth",
    "moco_croponly_habitat": "moco_croponly_habitat_64.pth",
    "moco_demy": "demy.pth",
    "pvr_resnet50_l3": "resnet50_l3.tar",
    "pvr_resnet50_l4": "resnet50_l4.pth.tar",
    "pvr_resnet50_places": "resnet50_places.pth.tar",
    "pvr_resnet50_places_l3": "resnet50_places_l3.tar",
    "pvr_resnet50_places_l4": "resnet50_places_l4.tar",
}
_DATA = {
    "places": "Places",
    "habitat": "frames of Habitat",
    "mujoco": "frames of MuJoCo tasks",
    "uber": "several sets",
    "demy": "not stated",
}


def _groups(name: str, objective: str) -> Groups:
    words = name.split("_")
    data = next((_DATA[word] for word in words if word in _DATA), "ImageNet-1k")
    return Groups(objective=objective, data=data, backbone="resnet", diverse="uber" in words)


MOCO: dict[str, EncoderSpec] = {}
for _variant in _MOCO:
    _name = f"moco_{_variant}"
    _file, _training = _FILES.get(_name, f"{_name}.pth"), ("module.encoder_k.", "module.queue")
    _row = pvr_resnet(_name, _file, _groups(_name, "instance discrimination"), "module.encoder_q.", _training)
    MOCO[_name] = register(_row)
for _name in (name for name in _FILES if name.startswith("pvr_")):
    register(pvr_resnet(_name, _FILES[_name], _groups(_name, "classification"), "module."))
