"""ResNet-18/34/50 with torchvision's key names, from timm, and the two ends that publishers have put on them.

`options["head"]` says which: "linear" (VIP: a linear layer after the pooling) or "compression" (pvr_habitat: a residual
block to a few channels in place of the later stages and of the pooling).
"""

from dataclasses import replace
from typing import Any

from torch import nn

from pvr_zoo.network import Network, map_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision

_STAGES = ("layer1", "layer2", "layer3", "layer4")


def bare(spec: EncoderSpec) -> Any:
    """The whole network without its classifier, untrained."""
    ensure_torchvision()
    import timm

    options = {key: value for key, value in spec.options.items() if key != "head"}
    outputs = spec.output[0] if spec.options.get("head") == "linear" else 0
    net = timm.create_model(spec.architecture, num_classes=outputs, zero_init_last=False, **options)
    if spec.options.get("head") == "compression":
        _compress(net, spec)
    return net


def _compress(net: Any, spec: EncoderSpec) -> None:
    """End the network in a residual block whose shortcut is a 3×3 convolution with bias, as pvr_habitat does.

    The block is the second member of the last kept stage, and so it is named in the files.
    """
    from timm.models.resnet import BasicBlock

    *_, width, channels = spec.widths
    shortcut = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels))
    last, *beyond = _STAGES[spec.depth - 2 :]
    setattr(net, last, nn.Sequential(getattr(net, last), BasicBlock(width, channels, downsample=shortcut)))
    for name in beyond:
        delattr(net, name)


def arrange(net: Any, spec: EncoderSpec) -> Network:
    """Stem, the stages (and the compression as one more), and the pooling that the spec asks for."""
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
    levels = [getattr(net, name) for name in _STAGES if hasattr(net, name)]
    output: nn.Module | None = None
    if spec.options.get("head") == "linear":
        output = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.fc)
    elif spec.options.get("head") == "compression":
        levels[-1:] = levels[-1]
        output = nn.Flatten()
    return map_network(spec, stem, levels, output)


def small(spec: EncoderSpec) -> EncoderSpec:
    """One or two blocks a stage, narrow, for images of 64 pixels: see verify.py."""
    size, channels = 64, (8, 12, 16, 20)
    wide = spec.widths[0] // 64
    options = spec.options | {"layers": (2, 1, 1, 1), "channels": channels}
    widths, output = tuple(wide * c for c in channels), spec.output
    if spec.options.get("head") == "linear":
        output = (24,)
    elif spec.options.get("head") == "compression":
        widths = (*widths[: spec.depth - 1], spec.widths[-1])
        output = (spec.widths[-1] * (size // spec.strides[-1]) ** 2,)
    return replace(spec, options=options, widths=widths, output=output, input_size=size)
