"""Adam whose state exists from the start and is named by parameter, so that it can be saved flat and strictly."""

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

Named = dict[str, nn.Parameter]


class Adam:
    """Clip all gradients to one norm, then one fused Adam step; `groups` are (parameters, learning rate)."""

    def __init__(self, groups: Iterable[tuple[Named, float]], clip_norm: float, eps: float = 1e-8):
        groups = list(groups)
        self.parameters: Named = {name: p for named, _ in groups for name, p in named.items()}
        settings = [{"params": list(named.values()), "lr": lr} for named, lr in groups]
        self.inner = torch.optim.Adam(settings, eps=eps, fused=True)
        self.clip_norm = clip_norm
        for p in self.parameters.values():
            moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.inner.state[p] = {"step": torch.zeros((), device=p.device), **moments}

    def step(self, gradients: Iterable[Tensor]) -> Tensor:
        """Apply gradients in the order of `parameters`; returns their norm before clipping."""
        for p, g in zip(self.parameters.values(), gradients, strict=True):
            p.grad = g.contiguous()  # the fused step walks memory: both must lie the same way
        norm = nn.utils.clip_grad_norm_(list(self.parameters.values()), self.clip_norm)
        self.inner.step()
        self.inner.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors, not copied, named <parameter>.exp_avg, .exp_avg_sq and .step."""
        found = {name: self.inner.state[p] for name, p in self.parameters.items()}
        return {f"{name}.{key}": value for name, state in found.items() for key, value in state.items()}


class Adams:
    """An Adam for each of several networks, with gradients clipped network by network."""

    def __init__(self, adams: Iterable[Adam]):
        self.adams = list(adams)
        self.parameters: Named = {name: p for adam in self.adams for name, p in adam.parameters.items()}

    def step(self, gradients: Iterable[Tensor]) -> Tensor:
        """Apply gradients in the order of `parameters`; returns the norm of all before clipping."""
        left = iter(gradients)
        norms = [adam.step(islice(left, len(adam.parameters))) for adam in self.adams]
        if next(left, None) is not None:
            raise ValueError(f"more gradients than the {len(self.parameters)} parameters")
        return torch.stack(norms).square().sum().sqrt()

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors, not copied, named as by each `Adam`."""
        return {name: x for adam in self.adams for name, x in adam.state_dict().items()}


class LaProp:
    """Adaptive gradient clipping (Brock et al. 2021), then LaProp (Ziyin et al. 2020, arXiv 2002.04839).

    Each gradient is limited to `clip` norms of its tensor; momentum is taken of gradients that are normalised already,
    so that a tiny `eps` is safe. The learning rate rises over `warmup` steps.
    """

    def __init__(
        self,
        parameters: Named,
        lr: float,
        *,
        clip: float,
        warmup: int = 0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        least_norm: float = 1e-3,
    ):
        self.parameters, self.lr, self.clip, self.warmup = parameters, lr, clip, warmup
        self.betas, self.eps, self.least_norm = betas, eps, least_norm
        self.exp_avg = [torch.zeros_like(p) for p in parameters.values()]
        self.exp_avg_sq = [torch.zeros_like(p) for p in parameters.values()]
        self.steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, gradients: Iterable[Tensor]) -> Tensor:
        """Apply gradients in the order of `parameters`; returns their norm before clipping."""
        parameters: list[Tensor] = list(self.parameters.values())
        gradients = list(gradients)
        self.steps += 1
        count = int(self.steps)
        norms = torch._foreach_norm(gradients)
        limits = torch._foreach_norm(parameters)
        torch._foreach_clamp_min_(limits, self.least_norm)
        torch._foreach_mul_(limits, self.clip)
        scales = torch._foreach_div(limits, torch._foreach_maximum(norms, limits))
        clipped = torch._foreach_mul(gradients, scales)

        one, two = self.betas
        torch._foreach_mul_(self.exp_avg_sq, two)
        torch._foreach_addcmul_(self.exp_avg_sq, clipped, clipped, value=1 - two)
        deviations = torch._foreach_sqrt(torch._foreach_div(self.exp_avg_sq, 1 - two**count))
        torch._foreach_add_(deviations, self.eps)
        torch._foreach_div_(clipped, deviations)
        torch._foreach_lerp_(self.exp_avg, clipped, 1 - one)
        rate = self.lr * min(1.0, count / self.warmup if self.warmup else 1.0)
        torch._foreach_add_(parameters, self.exp_avg, alpha=-rate / (1 - one**count))
        return torch.stack(norms).square().sum().sqrt()

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors, not copied, named <parameter>.exp_avg and .exp_avg_sq, and `steps`."""
        named = zip(self.parameters, self.exp_avg, self.exp_avg_sq, strict=True)
        found = {f"{name}.{key}": x for name, a, b in named for key, x in (("exp_avg", a), ("exp_avg_sq", b))}
        return found | {"steps": self.steps}
