"""ResNet-18/34/50 with torchvision's key names, from timm."""

from typing import Any

import torch
from torch import Tensor, nn

from pvr_zoo.checkpoint import load_strictly
from pvr_zoo.network import Network, map_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision


def bare(spec: EncoderSpec) -> Any:
    """The whole network without its classifier, untrained."""
    ensure_torchvision()
    import timm

    return timm.create_model(spec.architecture, num_classes=0, global_pool="", zero_init_last=False)


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """Stem, four stages, and the pooling that the spec asks for."""
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
    return map_network(spec, stem, (net.layer1, net.layer2, net.layer3, net.layer4))


def build(spec: EncoderSpec, state: dict[str, Tensor] | None) -> Network:
    """With `state` as weights (WeightsError unless it fits exactly); without, on the meta device."""
    with torch.device("meta"):
        net = bare(spec)
    if state is not None:
        load_strictly(net, state, spec.name)
    return arrange(net, spec)
