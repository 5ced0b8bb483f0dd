"""ResNet-18/34/50 with torchvision's key names, from timm."""

from typing import Any

import torch
from torch import Tensor, nn

from pvr_zoo.checkpoint import load_strictly
from pvr_zoo.pooling import pool_map
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision


class ResNet(nn.Module):
    """The stem and the first `truncate` stages; the feature is the mean of the last map, or its cells."""

    def __init__(self, net: Any, truncate: int, feature: str) -> None:
        super().__init__()
        self.stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
        self.stages = nn.Sequential(*(getattr(net, f"layer{k}") for k in range(1, truncate + 1)))
        self.feature = feature

    def forward(self, images: Tensor) -> Tensor:
        return pool_map(self.stages(self.stem(images)), self.feature)


def bare(spec: EncoderSpec) -> Any:
    """The whole network without its classifier, untrained."""
    ensure_torchvision()
    import timm

    return timm.create_model(spec.architecture, num_classes=0, global_pool="", zero_init_last=False)


def build(spec: EncoderSpec, state: dict[str, Tensor] | None) -> ResNet:
    """With `state` as weights (WeightsError unless it fits exactly); without, on the meta device."""
    with torch.device("meta"):
        net = bare(spec)
    if state is not None:
        load_strictly(net, state, spec.name)
    return ResNet(net, spec.truncate, spec.feature)
