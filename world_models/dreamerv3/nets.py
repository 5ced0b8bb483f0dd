"""Building blocks of DreamerV3: norms with SiLU, dense and block-diagonal layers, convolutions, heads.

Weights come from an explicit generator: normal, cut off at two deviations, of variance 1 / fan_in (the published code's
`trunc_normal_in`). Where the norm is "layer", as in 2023, the mean of inputs and outputs takes the place of fan_in, and
last layers are drawn uniformly. Images are (N, C, height, width) with channels last in memory. Where products are
bfloat16 (`world_models.precision`), linear layers and norms still give float32.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models.precision import widened

NORM_EPS = 1e-4
LAYER_NORM_EPS = 1e-3
TRUNCATED = 1.1368  # makes up for the variance that cutting off at two deviations takes
KERNEL = 5


def drawn(shape: tuple[int, ...], fan: float, generator: Generator, scale: float = 1.0) -> nn.Parameter:
    """Weights of variance 1 / fan, times `scale`: normal, cut off at two deviations."""
    std = TRUNCATED / math.sqrt(fan)
    weight = torch.empty(shape)
    nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)
    return nn.Parameter(weight.mul_(scale))


def uniform(shape: tuple[int, ...], fan: float, generator: Generator, scale: float = 1.0) -> nn.Parameter:
    """Weights of variance scale / fan: uniform."""
    limit = math.sqrt(3 * scale / fan)
    return nn.Parameter(torch.empty(shape).uniform_(-limit, limit, generator=generator))


class _NormSilu(torch.autograd.Function):
    """silu(scale x / rms(x)), keeping only what the backward pass reads."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor) -> Tensor:
        inverse = _inverse_rms(x)
        y = (x * inverse).mul_(scale)
        ctx.save_for_backward(x, scale, inverse)
        return F.silu(y, inplace=not any(ctx.needs_input_grad))

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, scale, inverse = ctx.saved_tensors
        unit = x * inverse
        grad = torch.ops.aten.silu_backward(grad, unit * scale)
        grad_scale = (grad * unit).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        grad = grad.mul_(scale)
        along = (grad * unit).mean(-1, keepdim=True)
        return grad.addcmul_(unit, along, value=-1).mul_(inverse), grad_scale


def _inverse_rms(x: Tensor) -> Tensor:
    """1 / sqrt(mean(x²) + ε) over the last dimension, kept."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.square_().div_(x.shape[-1]).add_(NORM_EPS).rsqrt_()


def norm_silu(x: Tensor, scale: Tensor) -> Tensor:
    """silu(rms_norm(x)) over the last dimension; a compiler gets the plain formula, eager mode a fused one."""
    x = widened(x)
    if torch.compiler.is_compiling():
        return F.silu(F.rms_norm(x, x.shape[-1:], scale, NORM_EPS))
    return _NormSilu.apply(x, scale)


class Linear(nn.Module):
    """x Wᵀ + b; `scale` multiplies the initial weights."""

    def __init__(self, inputs: int, outputs: int, generator: Generator, *, scale: float = 1.0):
        super().__init__()
        self.weight = drawn((outputs, inputs), inputs, generator, scale)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias).float()


class NormedLinear(Linear):
    """Linear layer, RMS norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, generator: Generator):
        super().__init__(inputs, outputs, generator)
        self.scale = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(super().forward(x))

    def activate(self, x: Tensor) -> Tensor:
        """What comes after the product and its bias."""
        return norm_silu(x, self.scale)


class LayerNorm(nn.Module):
    """Layer norm over the last dimension, then SiLU unless `silu` is off."""

    def __init__(self, width: int, *, silu: bool = True):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.float(), x.shape[-1:], self.scale, self.shift, LAYER_NORM_EPS)
        return F.silu(x) if self.silu else x


class LayerNormedLinear(nn.Module):
    """Linear layer without a bias, layer norm, SiLU."""

    bias = None  # the norm shifts

    def __init__(self, inputs: int, outputs: int, generator: Generator, *, silu: bool = True):
        super().__init__()
        self.weight = drawn((outputs, inputs), (inputs + outputs) / 2, generator)
        self.activate = LayerNorm(outputs, silu=silu)

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(F.linear(x, self.weight))


class UniformLinear(Linear):
    """x Wᵀ + b, the weights drawn uniformly; `scale` multiplies their variance."""

    def __init__(self, inputs: int, outputs: int, generator: Generator, *, scale: float = 1.0):
        nn.Module.__init__(self)
        self.weight = uniform((outputs, inputs), (inputs + outputs) / 2, generator, scale)
        self.bias = nn.Parameter(torch.zeros(outputs))


Normed = type[NormedLinear] | type[LayerNormedLinear]
NORMS: dict[str, tuple[Normed, type[Linear]]] = {  # hidden and last layers
    "rms": (NormedLinear, Linear),
    "layer": (LayerNormedLinear, UniformLinear),
}


class MLP(nn.Module):
    """`layers` normed layers of `units`; `out` linear outputs after them, whose initial weights `scale` multiplies."""

    def __init__(
        self,
        inputs: int,
        units: int,
        layers: int,
        generator: Generator,
        *,
        out: int = 0,
        scale: float = 1.0,
        norm: str = "rms",
    ):
        super().__init__()
        normed, last = NORMS[norm]
        sizes = [inputs, *[units] * layers]
        self.layers = nn.ModuleList([normed(a, b, generator) for a, b in itertools.pairwise(sizes)])
        self.out = last(sizes[-1], out, generator, scale=scale) if out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


class BlockLinear(nn.Module):
    """A block-diagonal layer, kept as bmm reads it: weight (G, I / G, O / G), bias (O,)."""

    def __init__(self, inputs: int, outputs: int, blocks: int, generator: Generator):
        super().__init__()
        self.weight = drawn((blocks, inputs // blocks, outputs // blocks), inputs, generator)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, I) to (N, O)."""
        blocks = self.weight.shape[0]
        grouped = x.unflatten(-1, (blocks, -1)).transpose(0, 1)  # (G, N, I / G)
        return torch.bmm(grouped, self.weight).transpose(0, 1).flatten(1) + self.bias  # float32, as the bias is


class Conv(nn.Module):
    """A 5×5 convolution that keeps height and width."""

    def __init__(self, inputs: int, outputs: int, generator: Generator):
        super().__init__()
        self.weight = drawn((outputs, inputs, KERNEL, KERNEL), inputs * KERNEL**2, generator)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias, padding=KERNEL // 2)


def _pixels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


class ConvEncoder(nn.Module):
    """Four times: convolution, largest of 2×2, RMS norm over channels, SiLU; then (channels, rows, columns) flat."""

    def __init__(self, shape: tuple[int, int, int], depths: tuple[int, ...], generator: Generator):
        super().__init__()
        height, width, colours = shape
        self.convs = nn.ModuleList([Conv(a, b, generator) for a, b in itertools.pairwise((colours, *depths))])
        self.scales = nn.ParameterList([torch.ones(depth) for depth in depths])
        shrink = 2 ** len(depths)
        if min(height, width) < shrink:
            raise ValueError(f"pixels of {height}x{width} are too small for {len(depths)} halvings: at least {shrink}")
        self.outputs = depths[-1] * (height // shrink) * (width // shrink)

    def forward(self, pixels: Tensor) -> Tensor:
        """Bytes (N, height, width, 3) to (N, outputs)."""
        x = pixels.float().div_(255).sub_(0.5).permute(0, 3, 1, 2)
        for conv, scale in zip(self.convs, self.scales, strict=True):
            x = F.max_pool2d(conv(x), 2)
            x = norm_silu(_pixels_last(x), scale).permute(0, 3, 1, 2)
        return x.flatten(1)


def _phases() -> Tensor:
    """(2, 3, 5): which taps of a 5-wide kernel over doubled rows meet the same row of the small image, by phase."""
    taps = torch.zeros(2, 3, KERNEL)
    for phase, tap in itertools.product(range(2), range(KERNEL)):
        taps[phase, (phase + tap - KERNEL // 2) // 2 + 1, tap] = 1
    return taps


class UpConv(Conv):
    """Each pixel doubled in both directions, then a 5×5 convolution, as one 3×3 convolution on the small image.

    Four outputs a pixel, one for each place in its 2×2: 9 products an output instead of 25.
    """

    phases: Tensor

    def __init__(self, inputs: int, outputs: int, generator: Generator):
        super().__init__(inputs, outputs, generator)
        self.register_buffer("phases", _phases(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, height, width) to (N, 2 height, 2 width, O)."""
        count, _, height, width = x.shape
        taps = self.phases
        rows = torch.einsum("axk,oikl->aoixl", taps, self.weight)
        weight = torch.einsum("byl,aoixl->aboixy", taps, rows).flatten(0, 2)  # (4 O, I, 3, 3)
        out = F.conv2d(x, weight.contiguous(memory_format=torch.channels_last), self.bias.repeat(4), padding=1)
        split = _pixels_last(out).unflatten(-1, (2, 2, -1))  # (N, height, width, 2, 2, O)
        return split.permute(0, 1, 3, 2, 4, 5).reshape(count, 2 * height, 2 * width, -1)


class ConvDecoder(nn.Module):
    """Recurrent state and sampled latent to an image, through maps of 1/16 of its size that both give a part of."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        deter: int,
        stoch: int,
        units: int,
        blocks: int,
        depths: tuple[int, ...],
        generator: Generator,
    ):
        super().__init__()
        height, width, colours = shape
        shrink = 2 ** len(depths)
        if height % shrink or width % shrink:
            raise ValueError(f"pixels of {height}x{width} cannot be decoded: both must be multiples of {shrink}")
        if depths[-1] % blocks:
            raise ValueError(f"{depths[-1]} filters of the decoder, 4 depth, are not divisible by blocks={blocks}")
        self.map = (height // shrink, width // shrink, depths[-1])
        self.blocks = blocks
        self.from_deter = BlockLinear(deter, math.prod(self.map), blocks, generator)
        self.from_stoch = MLP(stoch, 2 * units, 1, generator, out=math.prod(self.map))
        outputs = (*reversed(depths[:-1]), colours)
        self.convs = nn.ModuleList([UpConv(a, b, generator) for a, b in zip(reversed(depths), outputs, strict=True)])
        self.scales = nn.ParameterList([torch.ones(depth) for depth in reversed(depths)])

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """(N, D) and (N, SK) to images (N, height, width, 3), from 0 to 1."""
        height, width, channels = self.map
        x = self.from_deter(deter).view(-1, self.blocks, height, width, channels // self.blocks)
        x = x.permute(0, 2, 3, 1, 4).reshape(-1, height, width, channels)
        x = x + self.from_stoch(stoch).view_as(x)
        for conv, scale in zip(self.convs, self.scales, strict=True):
            x = conv(norm_silu(x, scale).permute(0, 3, 1, 2))  # twice as high and wide, channels last
        return torch.sigmoid(x.float())
