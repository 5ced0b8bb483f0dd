"""Adam whose state exists from the start and is named by parameter, so that it can be saved flat and strictly."""

from collections.abc import Iterable

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
