"""Pictures of our own making, by number: textures that tile without a seam, clips that begin again without a jump."""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

CLIP_STEPS = 64  # agent steps until a procedural clip begins again
CLIP_SIDE = 64  # pixels
TILES = 2  # of a texture along a side of a picture that it covers
_SEEDS = {"texture": 20261122, "clip": 20261123}


@lru_cache(maxsize=8)
def texture(index: int, side: int = 128) -> NDArray:
    """Texture `index` as (side, side, 3) uint8: two or three colours in clouds, marble, bricks, stripes or spots."""
    rng = np.random.default_rng((_SEEDS["texture"], index))
    kind = (_clouds, _marble, _bricks, _stripes, _spots)[index % 7 % 5]
    level = kind(rng, side)  # (side, side) in 0..1
    dark, light = _contrasting(rng)
    grain = 0.06 * (_clouds(rng, side, cells=32) - 0.5)
    colour = dark + np.clip(level + grain, 0, 1)[..., None] * (light - dark)
    return np.round(255 * colour).astype(np.uint8)


def tiled(own: NDArray, index: int, strength: float) -> NDArray:
    """A picture (H, W, 3) uint8 with `TILES` of texture `index` along a side mixed in."""
    if strength == 0:
        return own
    tile = texture(index)
    rows, columns = (np.arange(n) * TILES * len(tile) // n % len(tile) for n in own.shape[:2])
    return np.round((1 - strength) * own + strength * tile[rows[:, None], columns].astype(np.float32)).astype(np.uint8)


def recoloured(own: NDArray, colours: NDArray, strength: float) -> NDArray:
    """A picture (H, W, 3) uint8 whose darkest tenth takes the first of `colours` (2, 3) in 0..1, whose lightest tenth
    the second; what lies between them follows.
    """
    if strength == 0:
        return own
    level = own.astype(np.float32).mean(-1)  # (H, W)
    dark, light = np.quantile(level[::8, ::8], (0.1, 0.9))
    part = np.clip((level - dark) / max(light - dark, 1.0), 0, 1)[..., None]
    first, second = (255 * colour.astype(np.float32) for colour in colours)
    aim = first + part * (second - first)
    return np.round((1 - strength) * own + strength * aim).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def clip(index: int, side: int = CLIP_SIDE) -> NDArray:
    """Clip `index` as (CLIP_STEPS, side, side, 3) uint8: coloured waves that wander, and begin again without a jump."""
    rng = np.random.default_rng((_SEEDS["clip"], index))
    turn = 2 * np.pi * np.arange(CLIP_STEPS)[:, None, None] / CLIP_STEPS  # (T, 1, 1)
    y, x = np.mgrid[:side, :side] / side  # (side, side)
    level = np.zeros((CLIP_STEPS, side, side))
    for _ in range(4):
        kx, ky = rng.uniform(-2.5, 2.5, 2)
        speed = rng.choice([-2, -1, 1, 2])
        level += np.sin(2 * np.pi * (kx * x + ky * y + rng.random()) + speed * turn)
    level = (level / 2.5).clip(-1, 1)
    colours = rng.uniform(0, 1, (2, 3))
    hues = np.stack([0.5 + 0.5 * np.sin(np.pi * level + phase) for phase in rng.uniform(0, 2 * np.pi, 3)], axis=-1)
    mixed = colours[0] + hues * (colours[1] - colours[0]) * 1.5
    return np.round(255 * np.clip(0.5 * mixed + 0.5 * hues, 0, 1)).astype(np.uint8)


def _contrasting(rng: Generator) -> tuple[NDArray, NDArray]:
    """Two colours far enough apart for the texture to be seen."""
    while True:
        dark, light = rng.uniform(0.02, 0.98, (2, 3))
        if np.abs(dark - light).mean() > 0.3:
            return dark, light


def _clouds(rng: Generator, side: int, cells: int = 4) -> NDArray:
    """Octaves of smooth noise that wraps around, in 0..1."""
    total, weight = np.zeros((side, side)), 1.0
    while cells <= side // 2 and weight > 0.1:
        total += weight * _smooth(rng.random((cells, cells)), side)
        cells, weight = 2 * cells, weight / 2
    total -= total.min()
    return total / total.max()


def _smooth(grid: NDArray, side: int) -> NDArray:
    """A grid of values stretched to (side, side) along smooth steps, wrapping around."""
    place = np.arange(side) * len(grid) / side
    low = place.astype(int)
    part = place - low
    part = part * part * (3 - 2 * part)
    high = (low + 1) % len(grid)
    rows = grid[low] * (1 - part)[:, None] + grid[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def _marble(rng: Generator, side: int) -> NDArray:
    bands = rng.integers(2, 6)
    place = np.arange(side) / side
    return 0.5 + 0.5 * np.sin(2 * np.pi * (bands * place[:, None] + 1.5 * _clouds(rng, side)))


def _bricks(rng: Generator, side: int) -> NDArray:
    rows = 2 * int(rng.integers(2, 5))
    columns = rows // 2
    y, x = np.mgrid[:side, :side] * rows / side
    row = y.astype(int)
    along = x * columns / rows + 0.5 * (row % 2)
    joint = ((y - row) < 0.12) | ((along % 1) < 0.06)
    shade = rng.uniform(0.55, 1.0, (rows, columns))[row, along.astype(int) % columns]
    return np.where(joint, 0.0, shade)


def _stripes(rng: Generator, side: int) -> NDArray:
    y, x = np.mgrid[:side, :side] / side
    across, down = rng.integers(0, 5, 2)
    wave = np.sin(2 * np.pi * ((across + (across + down == 0)) * x + down * y))
    return 1 / (1 + np.exp(-8 * wave))


def _spots(rng: Generator, side: int) -> NDArray:
    y, x = np.mgrid[:side, :side] / side
    level = np.zeros((side, side))
    for _ in range(int(rng.integers(8, 20))):
        cx, cy, radius = *rng.random(2), rng.uniform(0.04, 0.14)
        dx, dy = (np.abs(((a - c + 0.5) % 1) - 0.5) for a, c in ((x, cx), (y, cy)))
        level = np.maximum(level, np.clip((radius - np.hypot(dx, dy)) * side / 2, 0, 1) * rng.uniform(0.6, 1.0))
    return level
