"""CLIP's ResNets: three stem convolutions, average pools where others stride, an attention pool at the end."""

from dataclasses import replace
from typing import Any

from torch import nn

from pvr_zoo.network import Network, map_network
from pvr_zoo.specs import EncoderSpec
from pvr_zoo.torchvision_guard import ensure_torchvision


def bare(spec: EncoderSpec) -> nn.ModuleDict:
    """open_clip's image tower, untrained, under the name that the files give it."""
    ensure_torchvision()
    from open_clip.modified_resnet import ModifiedResNet

    tower = ModifiedResNet(output_dim=spec.output[0], image_size=spec.input_size, **spec.options)
    return nn.ModuleDict({"visual": tower})


def arrange(net: nn.ModuleDict, spec: EncoderSpec) -> Network:
    """Stem, four stages, and the pooling that the spec asks for."""
    tower: Any = net["visual"]
    stem = nn.Sequential(
        *(tower.conv1, tower.bn1, tower.act1, tower.conv2, tower.bn2, tower.act2),
        *(tower.conv3, tower.bn3, tower.act3, tower.avgpool),
    )
    return map_network(spec, stem, (tower.layer1, tower.layer2, tower.layer3, tower.layer4), tower.attnpool)


def small(spec: EncoderSpec) -> EncoderSpec:
    """One or two blocks a stage, narrow: see verify.py."""
    width = 8
    options = spec.options | {"layers": (2, 1, 1, 1), "width": width}
    transform = replace(spec.transform, resize=64, crop=64)
    widths = tuple(4 * width * 2**stage for stage in range(4))
    return replace(spec, options=options, widths=widths, output=(6,), transform=transform, input_size=64)
