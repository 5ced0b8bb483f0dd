"""Convolutions of the 2023 code: 4×4 in strides of 2, layer norm over channels, down to 4×4 pixels and up again.

Layout and initial weights follow `nets.py`; frames are square, and their side is 4 times a power of 2.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models.dreamerv3.nets import LayerNorm, UniformLinear, drawn, uniform

KERNEL = 4
SMALLEST = 4  # side of the smallest maps


def stages(shape: tuple[int, int, int]) -> int:
    """How often frames are halved; ValueError where their sides do not allow it."""
    height, width, _ = shape
    count = (height // SMALLEST).bit_length() - 1
    if height != width or count < 1 or height != SMALLEST * 2**count:
        raise ValueError(
            f"pixels of {height}x{width}: convolutions=strided takes squares of {SMALLEST} times a power of 2, as 64"
        )
    return count


class Down(nn.Module):
    """A convolution that halves height and width, layer norm over channels, SiLU."""

    def __init__(self, inputs: int, outputs: int, generator: Generator):
        super().__init__()
        fan = (inputs + outputs) / 2 * KERNEL**2
        self.weight = drawn((outputs, inputs, KERNEL, KERNEL), fan, generator)
        self.activate = LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, height, width) to (N, O, height / 2, width / 2)."""
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        x = F.conv2d(x, weight, stride=2, padding=1)
        return self.activate(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Up(nn.Module):
    """A transposed convolution that doubles height and width, layer norm over channels, SiLU."""

    def __init__(self, inputs: int, outputs: int, generator: Generator):
        super().__init__()
        fan = (inputs + outputs) / 2 * KERNEL**2
        self.weight = drawn((inputs, outputs, KERNEL, KERNEL), fan, generator)
        self.activate = LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, height, width) to (N, O, 2 height, 2 width)."""
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        x = F.conv_transpose2d(x, weight, stride=2, padding=1)
        return self.activate(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LastUp(nn.Module):
    """The last transposed convolution: a bias, no norm, weights drawn uniformly."""

    def __init__(self, inputs: int, outputs: int, generator: Generator):
        super().__init__()
        fan = (inputs + outputs) / 2 * KERNEL**2
        self.weight = uniform((inputs, outputs, KERNEL, KERNEL), fan, generator)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, height, width) to (N, O, 2 height, 2 width)."""
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1).float()


class StridedEncoder(nn.Module):
    """Halved until 4×4 pixels are left, with `depth` filters at first and twice as many after each halving."""

    def __init__(self, shape: tuple[int, int, int], depth: int, generator: Generator):
        super().__init__()
        depths = [depth * 2**i for i in range(stages(shape))]
        self.convs = nn.ModuleList([Down(a, b, generator) for a, b in itertools.pairwise((shape[-1], *depths))])
        self.outputs = depths[-1] * SMALLEST**2

    def forward(self, pixels: Tensor) -> Tensor:
        """Bytes (N, height, width, 3) to (N, outputs): channels, rows, columns."""
        x = pixels.float().div_(255).sub_(0.5).permute(0, 3, 1, 2)
        for conv in self.convs:
            x = conv(x)
        return x.flatten(1)


class StridedDecoder(nn.Module):
    """Latents to an image, through the encoder's maps in reverse."""

    def __init__(self, shape: tuple[int, int, int], latent: int, depth: int, generator: Generator):
        super().__init__()
        depths = [depth * 2**i for i in reversed(range(stages(shape)))]
        self.enter = UniformLinear(latent, depths[0] * SMALLEST**2, generator)
        self.ups = nn.ModuleList([Up(a, b, generator) for a, b in itertools.pairwise(depths)])
        self.last = LastUp(depths[-1], shape[-1], generator)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """(N, D) and (N, SK) to images (N, height, width, 3), around 0.5 and unbounded."""
        x = self.enter(torch.cat([deter, stoch], -1))
        x = x.unflatten(-1, (SMALLEST, SMALLEST, -1)).permute(0, 3, 1, 2)  # channels last
        for up in self.ups:
            x = up(x)
        return self.last(x).permute(0, 2, 3, 1) + 0.5
