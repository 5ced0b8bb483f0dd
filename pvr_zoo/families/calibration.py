"""The stored frames on which random networks are calibrated, and the script that draws them.

Scenes like a simulator's: a graded sky, a checkered floor, a few round-ended rods. Rewrite the file only together with
a new recipe number in `random.py`, since every random encoder changes:

    python -m pvr_zoo.families.calibration
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).parents[1] / "data" / "calibration.npz"
_COUNT, _SIZE = 4, 64


def load() -> NDArray[np.uint8]:
    """The stored frames, uint8 (4, 64, 64, 3)."""
    with np.load(FILE, allow_pickle=False) as stored:
        frames: NDArray[np.uint8] = stored["frames"]
    return frames


def draw(seed: int = 0) -> NDArray[np.uint8]:
    return np.stack([_scene(np.random.default_rng((seed, index))) for index in range(_COUNT)])


def _scene(random: np.random.Generator) -> NDArray[np.uint8]:
    y, x = np.mgrid[:_SIZE, :_SIZE] + 0.5
    sky, floor, other = random.uniform(0.05, 0.95, (3, 3))
    horizon = random.uniform(0.3, 0.8) * _SIZE
    picture = sky * (0.4 + 0.6 * y / _SIZE)[..., None]
    depth = _SIZE / (y - horizon + 4)  # rows nearer to the horizon are farther away
    checks = (np.floor((x - 32) * depth / 24) + np.floor(depth * 2)) % 2
    ground = np.where(checks[..., None] > 0, floor, other)
    picture = np.where((y > horizon)[..., None], ground, picture)
    for _ in range(random.integers(2, 6)):
        picture = _rod(picture, x, y, random)
    frame: NDArray[np.uint8] = np.clip(np.round(picture * 255), 0, 255).astype(np.uint8)
    return frame


def _rod(
    picture: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    ax, ay, bx, by = random.uniform(6, _SIZE - 6, 4)
    radius = random.uniform(0.8, 6)
    colour = random.uniform(0.05, 1, 3)
    dx, dy = bx - ax, by - ay
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    distance = np.sqrt((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2)
    cover = np.clip(radius - distance + 0.5, 0, 1)[..., None]
    shade = 1 - 0.5 * np.clip(distance / radius, 0, 1)[..., None]
    covered: NDArray[np.float64] = picture * (1 - cover) + colour * shade * cover
    return covered


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, frames=draw())
