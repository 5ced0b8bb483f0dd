"""ConvNeXt with timm's key names (arXiv:2201.03545)."""

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

    return timm.create_model(spec.architecture, num_classes=0, **spec.options)


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """Stem, four stages (each with the convolution before it), and the final norm after the pooling for "output"."""
    return map_network(spec, net.stem, net.stages, nn.Sequential(net.head.global_pool, net.head.norm, nn.Flatten()))


def small(spec: EncoderSpec) -> EncoderSpec:
    """One or two blocks a stage, narrow: see verify.py."""
    widths = (8, 12, 16, 20)
    options = spec.options | {"depths": (2, 1, 1, 1), "dims": widths}
    return replace(spec, options=options, widths=widths, output=widths[-1:], input_size=64)
