"""torchvision's ResNets as the independent side of family `resnet`, in the files of each publisher.

The heads and wrappings are restated from facebookresearch/r3m @ b2334e7, facebookresearch/vip @ 81b0520,
sparisi/pvr_habitat @ 845d9be (src/vision_models), facebookresearch/moco @ 4397a04 and facebookresearch/dino @ 7c446df.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "torchvision.models.resnet"

# where a file has the encoder, and a sample of what else it holds
PREFIXES = {"r3m": "module.convnet.", "vip": "module.convnet.", "moco": "module.encoder_q.", "pvr": "module."}
OTHERS: dict[str, dict[str, tuple[int, ...]]] = {
    "r3m": {"module.lang_enc.model.embeddings.LayerNorm.weight": (8,), "module.lang_rew.pred.0.weight": (8, 8)},
    "moco": {
        "module.queue": (8, 16),
        "module.queue_ptr": (1,),
        "module.encoder_q.fc.0.weight": (8, 8),
        "module.encoder_q.fc.2.weight": (8, 8),
        "module.encoder_k.conv1.weight": (64, 3, 7, 7),
    },
    "pvr": {"module.fc.weight": (8, 8)},
}


def publisher(spec: EncoderSpec) -> str:
    return spec.name.split("_")[0]


def level(spec: EncoderSpec) -> int:
    """The stage that pvr_habitat compresses; 0 where it does not."""
    return int(spec.name[-1]) if spec.name.endswith(("_l3", "_l4")) else 0


def model(spec: EncoderSpec) -> nn.Module:
    """torchvision's network of the small size, ended as its publisher does."""
    ensure_torchvision()
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    block = Bottleneck if spec.architecture == "resnet50" else BasicBlock
    planes = spec.options["channels"]
    net = ResNet(block, list(spec.options["layers"]))
    for number in range(1, 5):
        net.inplanes = 64 if number == 1 else planes[number - 2] * block.expansion
        blocks, stride = spec.options["layers"][number - 1], 1 if number == 1 else 2
        setattr(net, f"layer{number}", net._make_layer(block, planes[number - 1], blocks, stride=stride))
    outputs = {"r3m": 0, "mcr": 0, "dino": 0, "moco": 0, "pvr": 0, "vip": 24}.get(publisher(spec), 10)
    net.fc = nn.Linear(planes[3] * block.expansion, outputs) if outputs else nn.Identity()
    if level(spec):
        width, channels = planes[level(spec) - 1] * block.expansion, {3: 11, 4: 42}[level(spec)]
        shortcut = nn.Sequential(nn.Conv2d(width, channels, 3, 1, 1), nn.BatchNorm2d(channels))
        stage = nn.Sequential(getattr(net, f"layer{level(spec)}"), BasicBlock(width, channels, downsample=shortcut))
        setattr(net, f"layer{level(spec)}", stage)
        net.avgpool = nn.Identity()
        if level(spec) == 3:
            net.layer4 = nn.Identity()
    return net.eval()


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    others = dict(OTHERS.get(publisher(spec), {}))
    prefix = PREFIXES.get(publisher(spec), "")
    if level(spec):  # the loader allows for what the compression was trained with
        others[f"{prefix}layer{level(spec)}.2.conv1.weight"] = (8, 8, 3, 3)
    return others | {prefix + key: tuple(value.shape) for key, value in model(spec).state_dict().items()}


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    net = model(spec)
    prefix = PREFIXES.get(publisher(spec), "")
    net.load_state_dict({key: state[prefix + key] for key in net.state_dict()})
    if spec.feature == "output":
        return net(images)
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    features = []
    stages = [getattr(net, f"layer{number}") for number in range(1, 5)]
    if level(spec):
        stages[level(spec) - 1 :] = stages[level(spec) - 1]
    for number, stage in enumerate(stages[: spec.truncate], start=1):
        x = stage(x)
        if number in spec.layers:
            features.append(x.permute(0, 2, 3, 1).flatten(1, 2) if spec.feature == "patches" else x.mean((2, 3)))
    return torch.cat(features, -1)
