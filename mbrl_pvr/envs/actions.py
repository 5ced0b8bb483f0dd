"""What actions are, and the check that every action passes before a simulator sees it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mbrl_pvr.errors import EnvError

_SLACK = 1e-5  # an action this far outside [-1, 1] is rounding


@dataclass(frozen=True)
class ActionSpec:
    """Actions lie in [-1, 1]^dim; where `discrete`, they are one-hot vectors over `dim` choices."""

    dim: int
    discrete: bool = False

    def __str__(self) -> str:
        return f"one-hot vectors over {self.dim} choices" if self.discrete else f"[-1, 1]^{self.dim}"


def check_actions(actions: ArrayLike, spec: ActionSpec, where: str) -> NDArray:
    """(N, dim) float32 actions within bounds; EnvError names the first bad value and the action space."""
    given = np.asarray(actions)
    if given.ndim != 2 or given.shape[1] != spec.dim:
        raise EnvError(f"actions of shape {given.shape}, where (N, {spec.dim}) was expected: {spec}", where)
    if given.dtype.kind not in "fiu":
        raise EnvError(f"actions of type {given.dtype}, where float32 was expected: {spec}", where)
    checked = given.astype(np.float32)
    fits = np.abs(checked) <= 1 + _SLACK  # false for nan
    if spec.discrete:
        fits = ((checked == 0) | (checked == 1)) & (checked.sum(1) == 1)[:, None]
    if not fits.all():
        row, column = np.argwhere(~fits)[0]
        raise EnvError(f"action {row} is not in {spec}: {checked[row]} at [{column}]", where)
    return np.clip(checked, -1.0, 1.0)


def random_actions(spec: ActionSpec, num: int, rng: np.random.Generator) -> NDArray:
    """Uniform actions (num, dim), or uniform choices as one-hot vectors."""
    if spec.discrete:
        return np.eye(spec.dim, dtype=np.float32)[rng.integers(0, spec.dim, num)]
    return rng.uniform(-1, 1, (num, spec.dim)).astype(np.float32)
