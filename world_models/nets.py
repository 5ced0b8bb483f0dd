"""Building blocks of networks. Weights come from an explicit generator, never from the global one.

Where products are bfloat16 (`world_models.precision`), linear layers, heads and norms still give float32.
"""

import itertools
import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models.precision import widened

EXP_LIMIT = 20.0  # beyond it mish(x) = x in float32, and exp(x)² would in time overflow
NORM_EPS = 1e-5


class _GroupSoftmax(torch.autograd.Function):
    """Softmax over a short last dimension; torch's own kernel takes five times as long where that has 8 entries."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        y = (x - x.amax(-1, keepdim=True)).exp_()
        y.div_(y.sum(-1, keepdim=True))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        weighted = grad * y
        return weighted.addcmul_(y, weighted.sum(-1, keepdim=True), value=-1)


def simnorm(x: Tensor, dim: int) -> Tensor:
    """Simplicial normalisation: softmax over each group of `dim` neighbours (Lavoie et al. 2022, arXiv 2204.00616)."""
    groups = x.unflatten(-1, (-1, dim))
    softmax = F.softmax(groups, -1) if torch.compiler.is_compiling() else _GroupSoftmax.apply(groups)
    return softmax.flatten(-2)


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)), by one exponential: tanh(softplus(x)) = n / (n + 2) with n = eˣ(eˣ + 2)."""
    e = x.clamp(max=EXP_LIMIT).exp()
    n = e * (e + 2)
    return x * (n / (n + 2))


class _NormMish(torch.autograd.Function):
    """Layer norm, then mish; keeps mish's slope, so that the backward pass needs no exponential."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], scale, shift, NORM_EPS)
        e = y.clamp(max=EXP_LIMIT).exp_()
        n = (e + 2).mul_(e)
        n_plus = n + 2
        gate = n / n_plus
        if any(ctx.needs_input_grad):
            slope = n.sub_(e).mul_(4).div_(n_plus.square_())  # d gate / dy = 4 e(e + 1) / (n + 2)²
            ctx.save_for_backward(x, scale, shift, mean, rstd, torch.addcmul(gate, y, slope, out=slope))
        return gate.mul_(y)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, scale, shift, mean, rstd, slope = ctx.saved_tensors
        return torch.ops.aten.native_layer_norm_backward(
            grad * slope, x, x.shape[-1:], mean, rstd, scale, shift, list(ctx.needs_input_grad)
        )


def norm_mish(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """mish(layer_norm(x)) over the last dimension; a compiler gets the plain formula, eager mode a fused one."""
    x = widened(x)
    if torch.compiler.is_compiling():
        return mish(F.layer_norm(x, x.shape[-1:], scale, shift, NORM_EPS))
    return _NormMish.apply(x, scale, shift)


def _normal(shape: tuple[int, ...], generator: Generator, std: float = 0.02) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).normal_(0, std, generator=generator))


class Linear(nn.Module):
    """x Wᵀ + b, with normal weights of deviation 0.02, or zero."""

    def __init__(self, inputs: int, outputs: int, generator: Generator, *, zero: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs)) if zero else _normal((outputs, inputs), generator)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias).float()


class NormedLinear(Linear):
    """Linear layer, layer norm, and mish (or whatever follows, where `activate` is off)."""

    def __init__(self, inputs: int, outputs: int, generator: Generator, *, activate: bool = True):
        super().__init__(inputs, outputs, generator)
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.activate:
            return norm_mish(x, self.scale, self.shift)
        return F.layer_norm(x, x.shape[-1:], self.scale, self.shift, NORM_EPS)


class HeadWeights(NamedTuple):
    """A head's weights as `apply_head` takes them; `w_a` is None where there is no action."""

    w_z: Tensor
    w_a: Tensor | None
    b_1: Tensor
    scale_1: Tensor
    shift_1: Tensor
    w_2: Tensor
    b_2: Tensor
    scale_2: Tensor
    shift_2: Tensor
    w_3: Tensor
    b_3: Tensor

    def detach(self) -> "HeadWeights":
        """The same weights outside the graph."""
        return HeadWeights(*(None if w is None else w.detach() for w in self))  # type: ignore[arg-type]


class Head(nn.Module):
    """Two hidden layers over a latent and, where `actions` > 0, an action; the output layer is linear or normed.

    The first layer keeps its weights for latent and action apart. That spares the concatenation, lets one latent
    broadcast against many actions, and spares the gradient with respect to a latent that needs none.
    """

    def __init__(
        self, latent: int, actions: int, hidden: int, outputs: int, generator: Generator, *, normed=False, zero=False
    ):
        super().__init__()
        self.first = NormedLinear(latent, hidden, generator)
        self.action_weight = _normal((hidden, actions), generator) if actions else None
        self.second = NormedLinear(hidden, hidden, generator)
        self.last = (
            NormedLinear(hidden, outputs, generator, activate=False)
            if normed
            else Linear(hidden, outputs, generator, zero=zero)
        )

    def weights(self) -> HeadWeights:
        """What `apply_head` takes; as an argument, heads can be chosen anew at each call of a compiled function."""
        first, second, last = self.first, self.second, self.last
        one = (first.weight, self.action_weight, first.bias, first.scale, first.shift)
        two = (second.weight, second.bias, second.scale, second.shift)
        return HeadWeights(*one, *two, last.weight, last.bias)

    def forward(self, z: Tensor, action: Tensor | None = None) -> Tensor:
        out = apply_head(self.weights(), z, action)
        if isinstance(self.last, NormedLinear):
            return F.layer_norm(out, out.shape[-1:], self.last.scale, self.last.shift, NORM_EPS)
        return out


def apply_head(w: HeadWeights, z: Tensor, action: Tensor | None, keep: Tensor | None = None) -> Tensor:
    """A head's output before any output norm; `keep` scales the first layer's products (dropout), shape (*, hidden)."""
    x = F.linear(z, w.w_z, w.b_1)
    if action is not None:
        assert w.w_a is not None, "this head takes no action"
        x = x + F.linear(action, w.w_a)
    if keep is not None:
        x = x * keep
    x = norm_mish(x, w.scale_1, w.shift_1)
    x = norm_mish(F.linear(x, w.w_2, w.b_2), w.scale_2, w.shift_2)
    return F.linear(x, w.w_3, w.b_3).float()


class Ensemble(nn.ModuleList):
    """Heads of one shape with weights of their own."""

    def weights(self) -> list[HeadWeights]:
        """The weights of each head."""
        return [cast(Head, head).weights() for head in self]


class MLP(nn.Module):
    """Hidden layers with norm and mish, and a normed output layer without activation."""

    def __init__(self, inputs: int, hidden: list[int], outputs: int, generator: Generator):
        super().__init__()
        sizes = [inputs, *hidden]
        layers = [NormedLinear(a, b, generator) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList([*layers, NormedLinear(sizes[-1], outputs, generator, activate=False)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Conv(nn.Module):
    """A convolution without padding, started as torch does, over channels-last memory (faster by far on CPUs)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, generator: Generator):
        super().__init__()
        bound = 1 / math.sqrt(inputs * kernel**2)
        start = torch.empty(outputs, inputs, kernel, kernel).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(start)
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound, generator=generator))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias, stride=self.stride)
