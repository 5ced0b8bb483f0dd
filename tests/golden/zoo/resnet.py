"""torchvision's ResNets as the independent side of family `resnet`."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

SOURCE = "torchvision.models.resnet"


def model(spec: EncoderSpec) -> nn.Module:
    """torchvision's network of the small size."""
    ensure_torchvision()
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    block = Bottleneck if spec.architecture == "resnet50" else BasicBlock
    net = ResNet(block, list(spec.options["layers"]))
    for number, planes in enumerate(spec.options["channels"], start=1):
        net.inplanes = 64 if number == 1 else spec.options["channels"][number - 2] * block.expansion
        blocks, stride = spec.options["layers"][number - 1], 1 if number == 1 else 2
        setattr(net, f"layer{number}", net._make_layer(block, planes, blocks, stride=stride))
    net.fc = nn.Linear(spec.widths[-1], 10)
    return net.eval()


def shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the small published file."""
    return {key: tuple(value.shape) for key, value in model(spec).state_dict().items()}


@torch.no_grad()
def feature(spec: EncoderSpec, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What the spec asks for, of images (N, 3, S, S) already normalised."""
    net = model(spec)
    net.load_state_dict(state)
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    features = []
    for number in range(1, spec.truncate + 1):
        x = getattr(net, f"layer{number}")(x)
        if number in spec.layers:
            features.append(x.permute(0, 2, 3, 1).flatten(1, 2) if spec.feature == "patches" else x.mean((2, 3)))
    return torch.cat(features, -1)
