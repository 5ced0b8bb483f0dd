"""The look of an episode: which shifts it has, drawn from the part of their values for training, or held out from it.

Needs only numpy. A look says for each factor (`factors.py`) what was drawn, at severity 1. Severity 0 is the own look
of the simulator bit for bit, and between them everything moves along a straight line.

    look = draw_look(np.random.SeedSequence(7), "color_easy+size", "held_out", severity=0.5)
    (scale,) = look.numbers("size")                      # e.g. 1.12, and 1.0 where size is not shifted
    index, strength = look.choice("textures")            # texture 24, mixed half with the floor's own

Of stored things (palettes, textures, clips, colours) every fifth is held out, by index. Ranges are cut into 20 bands:
`interleaved` holds out every fifth (interpolation), `outer` the outer tenth at each end, or, where the neutral value is
not inside the range, the last fifth (extrapolation). Each factor has its own stream of random numbers, so that adding
one or leaving one out does not change what the others draw.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs.factors import BANDS, FACTORS, PALETTE, Range, palettes_of, strengths

SPLITS = ("train", "held_out")
NUM_BANDS = 20
_HOLD_OUT = 5  # numbers 4, 9, 14, ... are held out: 20 %
_LOOK_STREAM = 1  # spawn key of a look's randomness, apart from the initial state's


class Palette(NamedTuple):
    """Colours in 0..1."""

    agent: NDArray  # (3,)
    floor: NDArray  # (2, 3): the two colours of the checker
    background: NDArray  # (3,): zenith of the sky


@dataclass(frozen=True)
class Draw:
    """What one factor drew: number `index` of its stored things, or `numbers`, both at severity 1."""

    strength: float  # part of the range that severity 1 means
    index: int = 0
    numbers: tuple[float, ...] = ()
    palettes: str = ""
    seed: int = 0  # of what is random from step to step


@dataclass(frozen=True)
class Look:
    """How one episode is drawn. Equal looks draw one state alike."""

    draws: Mapping[str, Draw] = field(default_factory=dict)
    severity: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.severity <= 1:
            raise ValueError(f"severity must lie in 0..1, got {self.severity!r}")
        if unknown := set(self.draws) - set(FACTORS):
            raise ValueError(f"factors must be among {', '.join(FACTORS)}, got {sorted(unknown)}")
        for name, draw in self.draws.items():
            row = FACTORS[name]
            if len(draw.numbers) != len(row.numbers) or draw.index < 0:
                raise ValueError(f"{name} takes {len(row.numbers)} numbers and an index from 0, got {draw}")
            if name in PALETTE and draw.index >= len(palettes(draw.palettes)):
                raise ValueError(
                    f"{draw.palettes} has palettes 0..{len(palettes(draw.palettes)) - 1}, got {draw.index}"
                )

    def has(self, factor: str) -> bool:
        """Whether it differs from the simulator's own look in this factor."""
        return factor in self.draws and self.strength(factor) > 0

    def strength(self, factor: str) -> float:
        """How much of a drawn thing shows, 0..1."""
        return self.severity * self.draws[factor].strength if factor in self.draws else 0.0

    def choice(self, factor: str) -> tuple[int, float]:
        """Index of the drawn thing and how much of it shows; (0, 0.0) where the factor is not shifted."""
        return (self.draws[factor].index, self.strength(factor)) if self.has(factor) else (0, 0.0)

    def palette(self, factor: str) -> tuple[str, int, float]:
        """Family and index of a palette and how much of it shows; ("none", 0, 0.0) where not shifted."""
        return (self.draws[factor].palettes, *self.choice(factor)) if self.has(factor) else ("none", 0, 0.0)

    def numbers(self, factor: str) -> tuple[float, ...]:
        """A factor's numbers at this severity; the neutral ones where it is not shifted."""
        ranges = FACTORS[factor].numbers
        if not self.has(factor):
            return tuple(r.neutral or 0.0 for r in ranges)
        s, drawn = self.strength(factor), self.draws[factor].numbers
        return tuple(
            d if r.neutral is None else r.neutral + s * (d - r.neutral) for r, d in zip(ranges, drawn, strict=True)
        )


@cache
def palettes(family: str) -> tuple[Palette, ...]:
    """The stored palettes of a family; `make_palettes.py` drew them."""
    stored = json.loads(files("mbrl_pvr.envs").joinpath("palettes.json").read_text())
    if family not in stored:
        raise ValueError(f"palettes are {' or '.join(stored)}, got {family!r}")
    return tuple(Palette(*(np.array(row[part]) for part in Palette._fields)) for row in stored[family])


def check_split(split: str, factors: Iterable[str] = FACTORS) -> None:
    """ValueError unless it is train, held_out, or held_out:FACTOR with one of `factors`."""
    part, colon, alone = split.partition(":")
    if part not in SPLITS or (colon and (part != "held_out" or alone not in factors)):
        named = ", ".join(f"held_out:{name}" for name in factors)
        raise ValueError(f"split must be one of train, held_out, {named}, got {split!r}")


def split_of(split: str, factor: str) -> str:
    """The part that one factor draws from: with held_out:FACTOR all others draw as in training."""
    part, _, alone = split.partition(":")
    return part if alone in ("", factor) else "train"


def split_indices(split: str, count: int = 100) -> tuple[int, ...]:
    """Stored things of "train" (80 %) or "held_out" (every fifth), the same on every machine."""
    if split not in SPLITS:
        raise ValueError(f"split must be train or held_out, got {split!r}")
    return tuple(i for i in range(count) if (i % _HOLD_OUT == _HOLD_OUT - 1) == (split == "held_out"))


def split_bands(split: str, bands: str = "interleaved", *, one_sided: bool = False) -> tuple[int, ...]:
    """Which of a range's 20 bands belong to "train" or "held_out"."""
    if bands not in BANDS:
        raise ValueError(f"bands must be {' or '.join(BANDS)}, got {bands!r}")
    if bands == "interleaved":
        return split_indices(split, NUM_BANDS)
    edge = NUM_BANDS // 10
    outer = range(NUM_BANDS - 2 * edge, NUM_BANDS) if one_sided else (*range(edge), *range(NUM_BANDS - edge, NUM_BANDS))
    return tuple(b for b in range(NUM_BANDS) if (b in outer) == (split == "held_out"))


def draw_look(
    seed: SeedSequence,
    shifts: str,
    split: str = "train",
    severity: float = 1.0,
    factors: Iterable[str] | None = None,
    *,
    env: str = "dmc",
    bands: str = "interleaved",
    stored: Mapping[str, int] = MappingProxyType({}),
) -> Look:
    """The look of the episode with this seed. Neither severity nor `factors`, which leaves only these, changes a draw.

    `split` is train, held_out, or held_out:FACTOR, which holds out that factor alone. `env`, an environment or its
    family, says what a preset means; `stored` is how many things of a factor there are, where the table does not say.
    """
    check_split(split)
    draws = {}
    for name, strength in strengths(shifts, env, factors).items():
        part = split_of(split, name)
        if name in PALETTE:  # one draw for all three, that of the first published curves
            own = SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, _LOOK_STREAM))
            kind = palettes_of(shifts)
            indices = split_indices(part, len(palettes(kind)))
            draws[name] = Draw(strength, int(np.random.default_rng(own).choice(indices)), palettes=kind)
            continue
        key = (*seed.spawn_key, _LOOK_STREAM, zlib.crc32(name.encode()))
        rng = np.random.default_rng(SeedSequence(seed.entropy, spawn_key=key))
        count = stored.get(name, FACTORS[name].stored)
        index = int(rng.choice(split_indices(part, count))) if count else 0
        numbers = tuple(_draw_number(rng, r, part, bands) for r in FACTORS[name].numbers)
        draws[name] = Draw(strength, index, numbers, seed=int(rng.integers(2**32)))
    return Look(draws, severity if draws else 0.0)


def _draw_number(rng: Generator, r: Range, split: str, bands: str) -> float:
    band = rng.choice(split_bands(split, bands, one_sided=r.neutral is not None and not r.low < r.neutral < r.high))
    return float(r.low + (r.high - r.low) * (band + rng.random()) / NUM_BANDS)


def palette_look(family: str, index: int, severity: float = 1.0, factors: Iterable[str] = PALETTE) -> Look:
    """The colours of one stored palette."""
    return Look({name: Draw(1.0, index, palettes=family) for name in factors}, severity)


@contextmanager
def changed(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Things with other attributes (thing, name, value) for a while; as they were afterwards, also after an error."""
    own = [getattr(thing, name) for thing, name, _ in changes]
    try:
        for thing, name, value in changes:
            setattr(thing, name, value)
        yield
    finally:
        for (thing, name, _), value in zip(changes, own, strict=True):
            setattr(thing, name, value)


def rotation(axis: NDArray, angle: float) -> NDArray:
    """The matrix (3, 3) of a turn about `axis`, of length 1, by `angle` in radians: Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
