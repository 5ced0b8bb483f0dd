"""Encoders of the Taskonomy tasks as published for mid-level vision: a ResNet-50 that keeps a large map, compressed.

It came from TensorFlow, and differs from torchvision's in where it pads and where it halves. The max-pooling has no
padding but rounds its size up; stages 1 and 2 halve the map in their last block, whose shortcut drops every other cell;
stages 3 and 4 do not halve it. A 3×3 convolution to 8 channels follows, each of them normalised over the picture:
8 × 16 × 16 numbers for an image of 256 pixels.

Written from alexsax/visual-prior @ 6abde8b, whose weights have these key names (arXiv:1812.11971).
"""

from dataclasses import replace

from torch import Tensor, nn

from pvr_zoo.network import Network, map_network
from pvr_zoo.specs import EncoderSpec

_BLOCKS = (3, 4, 6, 3)
_CHANNELS = (64, 128, 256, 512)  # inside the blocks; four times as many come out of them


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up to four times `channels`; `shortcut` brings the input to the same shape."""

    def __init__(self, inputs: int, channels: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        around = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(self.bn3(self.conv3(inner)) + around)
        return result


def stage(inputs: int, channels: int, blocks: int, halve: bool) -> nn.Sequential:
    """Blocks of one width: the first changes the number of channels, the last may halve the map."""
    wide = 4 * channels
    widen = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide))
    middle = [Bottleneck(wide, channels) for _ in range(blocks - 2)]
    every_other = nn.Sequential(nn.MaxPool2d(1, stride=2)) if halve else None
    last = Bottleneck(wide, channels, stride=2 if halve else 1, shortcut=every_other)
    return nn.Sequential(Bottleneck(inputs, channels, shortcut=widen), *middle, last)


class TaskonomyEncoder(nn.Module):
    """The published network's parts under its names; `arrange` puts them in order."""

    def __init__(self, blocks: tuple[int, ...], channels: tuple[int, ...], compressed: int) -> None:
        super().__init__()
        first, second, third, fourth = channels
        self.conv1 = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = stage(first, first, blocks[0], halve=True)
        self.layer2 = stage(4 * first, second, blocks[1], halve=True)
        self.layer3 = stage(4 * second, third, blocks[2], halve=False)
        self.layer4 = stage(4 * third, fourth, blocks[3], halve=False)
        self.compress1 = nn.Conv2d(4 * fourth, compressed, 3, padding=1, bias=False)
        self.compress_bn = nn.BatchNorm2d(compressed)


def bare(spec: EncoderSpec) -> TaskonomyEncoder:
    """The encoder without its task's decoder, untrained."""
    blocks, channels = spec.options.get("blocks", _BLOCKS), spec.options.get("channels", _CHANNELS)
    return TaskonomyEncoder(blocks, channels, spec.widths[-1])


def arrange(net: TaskonomyEncoder, spec: EncoderSpec) -> Network:
    """Stem, four stages and the compressed map as a fifth, whose mean would be 0 after the norm: that is "output"'s."""
    stem = nn.Sequential(net.conv1, net.bn1, nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, ceil_mode=True))
    compress = nn.Sequential(net.compress1, net.compress_bn, nn.ReLU(inplace=True))
    each = spec.widths[-1]
    output = nn.Sequential(nn.GroupNorm(each, each, affine=False), nn.Flatten())
    return map_network(spec, stem, (net.layer1, net.layer2, net.layer3, net.layer4, compress), output)


def small(spec: EncoderSpec) -> EncoderSpec:
    """Two or three blocks a stage, images of 64 pixels, all of the compressed channels: see verify.py.

    So narrow that none of these channels is dead under the weights of verify.py, which normalising would blow up.
    """
    channels, size, compressed = (4, 6, 8, 10), 64, spec.widths[-1]
    return replace(
        spec,
        options={"blocks": (3, 2, 2, 2), "channels": channels},
        widths=(*(4 * c for c in channels), compressed),
        output=(compressed * (size // spec.strides[-1]) ** 2,),
        input_size=size,
    )
