"""ResNet-18/34/50 with torchvision's key names, from timm."""

from dataclasses import replace
from typing import Any

from torch import nn

from pvr_zoo.network import Network, map_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision


def bare(spec: EncoderSpec) -> Any:
    """The whole network without its classifier, untrained."""
    ensure_torchvision()
    import timm

    return timm.create_model(spec.architecture, num_classes=0, global_pool="", zero_init_last=False, **spec.options)


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """Stem, four stages, and the pooling that the spec asks for."""
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
    return map_network(spec, stem, (net.layer1, net.layer2, net.layer3, net.layer4))


def small(spec: EncoderSpec) -> EncoderSpec:
    """One or two blocks a stage, narrow: see verify.py."""
    channels = (8, 12, 16, 20)
    wide = spec.widths[0] // 64
    options = spec.options | {"layers": (2, 1, 1, 1), "channels": channels}
    return replace(spec, options=options, widths=tuple(wide * c for c in channels)).request(input_size=64)
