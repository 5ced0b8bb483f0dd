"""Names of visual shifts: what can be shifted, by how much at severity 1, and the presets. Pure data, no numpy.

`env.shifts` is `none`, a preset, or factors joined by `+`. To add a factor: a row here, its drawing in an adapter
(`dmc_look.py`, `maniskill_look.py`, `miniworld_look.py`) or, if it only changes a finished frame, in `image.py`, and
its name among what the adapter can do, in `offers.py`. A new simulator adds its presets' rows and its line there.

Two factors are of another kind (`PHYSICAL`): they change what is built at the start of an episode, and so its physics.
"""

from collections.abc import Iterable
from typing import NamedTuple

from mbrl_pvr.envs.names import MANISKILL_SIZED, MANISKILL_STORED, family, spelled

BANDS = ("interleaved", "outer")


class Range(NamedTuple):
    """One number of a factor. Severity moves it from `neutral` to what was drawn in low..high; None: not moved."""

    low: float
    high: float
    neutral: float | None


class Factor(NamedTuple):
    """Something that can look different: one of `stored` things, or numbers from ranges."""

    about: str
    stored: int = 0
    numbers: tuple[Range, ...] = ()


def _gain(low: float, high: float) -> Range:
    return Range(low, high, 1.0)


def _amount(low: float, high: float) -> Range:
    return Range(low, high, 0.0)


_ANGLE = Range(0.0, 360.0, None)  # which way, in degrees; how far says another number
PALETTE = ("agent", "floor", "background")  # the three share one palette
FACTORS = {
    "agent": Factor("colour of the agent", stored=100),
    "floor": Factor(
        "colours of the floor, of table and ground: of their darker and of their lighter parts", stored=100
    ),
    "background": Factor("colour of the sky, and of the wall behind manipulators", stored=100),
    "objects": Factor("colours of the objects: one of six, or two of them mixed", stored=10),
    "tint": Factor(
        "objects: hue turned, darker or lighter; of colourless ones hue if they move, if they stand, and saturation",
        numbers=(_amount(-20, 20), _amount(-0.35, 0.35), _ANGLE, _ANGLE, _amount(0.3, 0.8)),
    ),
    "size": Factor("size of every moving part or object, as drawn", numbers=(_gain(0.7, 1.3),)),
    "physical_size": Factor(
        "sizes that physics has, of bodies, cubes, charger; width over height of charger and receptacle",
        numbers=(_gain(0.7, 1.3), _gain(0.8, 1.25)),
    ),
    "configurations": Factor("which of the task's stored scenes", stored=100),
    "light_position": Factor("lights moved sideways, in their height", numbers=(_ANGLE, _amount(0.2, 0.8))),
    "light_direction": Factor("lights tilted, in degrees", numbers=(_ANGLE, _amount(20, 60))),
    "light_color": Factor("red, green, blue of all lights", numbers=(_gain(0.3, 1.4),) * 3),
    "shadows": Factor(
        "part of the lights that comes from everywhere, so that shadows fade", numbers=(_amount(0.5, 1),)
    ),
    "camera_pose": Factor(
        "camera turned about the scene (at the wrist: in its place): sideways, up, rolled, in degrees",
        numbers=(_amount(-25, 25), _amount(-6, 18), _amount(-15, 15)),
    ),
    "camera_fov": Factor("width of the view", numbers=(_gain(0.7, 1.4),)),
    "textures": Factor("procedural textures in place of floor (and walls)", stored=100),
    "distractors": Factor("six bodies that fly through the picture", stored=100),
    "video": Factor("moving pictures in place of the sky", stored=100),
    "noise": Factor("standard deviation of the sensor's noise, of 255", numbers=(_amount(8, 32),)),
    "blur": Factor("standard deviation of a blur, in 1/64 of the picture", numbers=(_amount(0.5, 1.5),)),
    "compression": Factor("how coarse JPEG is; 1 is its quality 50, 6 its quality 8", numbers=(_amount(1, 6),)),
    "brightness": Factor("gain", numbers=(_gain(0.4, 1.6),)),
    "contrast": Factor("gain about mid-grey", numbers=(_gain(0.3, 1.7),)),
}
PHYSICAL = ("physical_size", "configurations")  # change the scene and its physics: no two looks of one state
IMAGE = ("noise", "blur", "compression", "brightness", "contrast")  # of the finished frame, in every simulator


class Preset(NamedTuple):
    """Factors by environment or family of them, each with the part of its range that severity 1 means."""

    families: dict[str, dict[str, float]]
    palettes: str = "color_hard"


_COLORS = dict.fromkeys(PALETTE, 1.0)


def _distracting(amount: float) -> Preset:
    camera = {"camera_pose": amount, "camera_fov": amount, "light_color": amount}
    return Preset(
        {
            "dmc": {"agent": amount, "floor": amount, "video": 1.0, **camera},
            "maniskill": {"agent": amount, "textures": amount, **camera},
            "miniworld": {"textures": amount, "video": 1.0, **camera},
        }
    )


_COLORED = {
    "dmc": _COLORS,
    "maniskill": {"agent": 1.0, "floor": 1.0},  # no sky is in sight
    "miniworld": {"floor": 1.0, "background": 1.0},  # the agent does not see itself
}
PRESETS = {
    "study": Preset(
        {
            "dmc": {**_COLORS, "size": 1.0},
            "miniworld": {"objects": 1.0},
            "maniskill": {"tint": 1.0},
            **{f"maniskill/{task}": {"tint": 1.0, "physical_size": 1.0} for task in MANISKILL_SIZED},
            **{f"maniskill/{task}": {"configurations": 1.0} for task in MANISKILL_STORED},
        },
        "color_easy",
    ),
    "color_easy": Preset(_COLORED, "color_easy"),
    "color_hard": Preset(_COLORED, "color_hard"),
    "distracting_easy": _distracting(1 / 3),
    "distracting_medium": _distracting(2 / 3),
    "distracting_hard": _distracting(1.0),
}


def names_in(shifts: str, factors: Iterable[str] | None = None) -> frozenset[str]:
    """Every factor that a shift may have, in whatever environment; `factors` leaves only these."""
    if shifts == "none":
        return frozenset()
    preset = PRESETS[shifts].families.values() if shifts in PRESETS else [shifts.split("+")]
    named = frozenset(name for row in preset for name in row)
    return named if factors is None else named & frozenset(factors)


def palettes_of(shifts: str) -> str:
    """The family of palettes that a shift draws from: a preset's own, the hard one of factors by name."""
    return PRESETS[shifts].palettes if shifts in PRESETS else "color_hard"


def check_shifts(shifts: object) -> None:
    """ValueError unless it is `none`, a preset, or different factors joined by `+`."""
    if isinstance(shifts, str) and (shifts == "none" or shifts in PRESETS):
        return
    names = shifts.split("+") if isinstance(shifts, str) else []
    if not names or set(names) - set(FACTORS) or len(set(names)) < len(names):
        what = f"none, one of {', '.join(PRESETS)}, or of the factors {', '.join(FACTORS)}, joined by +"
        raise ValueError(f"env.shifts must be {what}, got {shifts!r}")


def check_factors(factors: object) -> None:
    """ValueError unless it is None or a list of factors."""
    listed = isinstance(factors, list | tuple) and factors and all(name in FACTORS for name in factors)
    if factors is not None and not listed:
        raise ValueError(f"env.factors must be null or some of {', '.join(FACTORS)}, got {factors!r}")


def strengths(shifts: str, env: str, factors: Iterable[str] | None = None) -> dict[str, float]:
    """Factors of a shift in an environment, or a family, in the table's order, with the part of the range each takes.

    `factors` leaves only these. Empty where the shift is none, or a preset that the environment does not have.
    """
    if shifts == "none":
        return {}
    chosen = dict.fromkeys(shifts.split("+"), 1.0)
    if shifts in PRESETS:
        rows = PRESETS[shifts].families
        chosen = rows.get(spelled(env), rows.get(family(env), {}))
    return {name: chosen[name] for name in FACTORS if name in chosen and (factors is None or name in tuple(factors))}
