"""An agent's state as one flat dictionary of tensors: copied out, and put back strictly."""

import torch
from torch import Tensor


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}


def restore(mine: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Write `state` into the tensors; ValueError names what is missing, unknown or misshapen, and changes nothing."""
    missing, unknown = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
    if missing or unknown:
        raise ValueError(f"agent state lacks {missing[:5]} and holds unknown {unknown[:5]}")
    for name, value in mine.items():
        if value.shape != state[name].shape or value.dtype != state[name].dtype:
            found, wanted = ((tuple(x.shape), x.dtype) for x in (state[name], value))
            raise ValueError(f"agent state {name} is {found}, expected {wanted}")
    with torch.no_grad():
        for name, value in mine.items():
            value.copy_(state[name])
