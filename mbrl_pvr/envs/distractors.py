"""Bodies that fly through the picture: their forms, colours and closed paths, by number and step, for any simulator."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHAPES = ("sphere", "box", "ellipsoid")
_BODIES = 6
_SEED = 20261124


class Body(NamedTuple):
    """One body at one step. It flies at `near` of some distance from the camera, about as far as the task's bodies;
    lengths are parts of half the view's height: places where it flies, its own sizes at that distance.
    """

    shape: str  # of SHAPES
    colour: NDArray  # (3,) in 0..1
    half_sizes: NDArray  # (3,)
    across: float  # to the right of the view's middle
    high: float  # above it
    near: float
    turn: float  # radians about the view's upright axis


def flying(index: int, step: int) -> Iterator[Body]:
    """The bodies of distractor `index` at an agent step; they are back where they began after 200 steps."""
    for shape, colour, sizes, speed, phase, near in _drawn(index):
        across, high = 0.85 * np.sin(2 * np.pi * step / 200 * speed + phase[:2])
        yield Body(shape, colour, sizes, float(across), float(high), near, phase[2] + 2 * np.pi * step / 50)


@lru_cache(maxsize=8)
def _drawn(index: int) -> list[tuple[str, NDArray, NDArray, NDArray, NDArray, float]]:
    """Shape, colour, sizes, speed (2,), phase (3,) and nearness of each body."""
    rng = np.random.default_rng((_SEED, index))
    found = []
    for _ in range(_BODIES):
        shape, colour = SHAPES[rng.integers(3)], rng.uniform(0.05, 1, 3)
        size = rng.uniform(0.08, 0.14, 3)
        speed, phase = rng.choice([-3, -2, -1, 1, 2, 3], 2), rng.uniform(0, 2 * np.pi, 3)
        size = np.full(3, size[0]) if shape == "sphere" else size
        found.append((shape, colour, size, speed, phase, rng.uniform(0.7, 0.9)))
    return found
