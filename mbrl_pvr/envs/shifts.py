"""Visual shifts of dm_control scenes: the same task in other colours. Needs only numpy and a MuJoCo model.

A look is one of 100 stored palettes of a family (`color_easy`, `color_hard`), a severity (0 the original colours, 1 the
palette's, in between mixed) and the factors it recolours. Every fifth palette is held out from training.

    recolor = Recolor(model)                       # remembers the original colours
    for texture in recolor.apply(look):            # changes the model and says which textures must be sent to OpenGL
        mujoco.mjr_uploadTexture(model, context, texture)
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from mbrl_pvr.envs.config import FACTORS, SHIFTS

_HOLD_OUT = 5  # palettes 4, 9, 14, ... are held out: 20 %
_LOOK_STREAM = 1  # spawn key of a look's randomness, apart from the initial state's
_AGENT_MATERIALS = ("self", "effector", "skin")  # `skin` is the dog's
_BACKGROUND_TEXTURES = ("skybox", "background")  # `background` is the wall behind manipulator and stacker
_GRADIENT_TOP = np.array([0.4, 0.6, 0.8])  # of the suite's skybox; it fades to black
_MARK = 255  # the skybox's stars


class Palette(NamedTuple):
    """Colours in 0..1."""

    agent: NDArray  # (3,)
    floor: NDArray  # (2, 3): the two colours of the checker
    background: NDArray  # (3,): zenith of the sky


@dataclass(frozen=True)
class Look:
    """How one episode is coloured."""

    family: str = "none"
    index: int = 0
    severity: float = 0.0
    factors: tuple[str, ...] = FACTORS

    def __post_init__(self) -> None:
        if self.family not in SHIFTS:
            raise ValueError(f"a look's family must be one of {', '.join(SHIFTS)}, got {self.family!r}")
        if not 0 <= self.severity <= 1:
            raise ValueError(f"severity must lie in 0..1, got {self.severity!r}")
        if set(self.factors) - set(FACTORS):
            raise ValueError(f"factors must be among {', '.join(FACTORS)}, got {self.factors!r}")
        if self.family != "none" and not 0 <= self.index < len(palettes(self.family)):
            raise ValueError(f"{self.family} has palettes 0..{len(palettes(self.family)) - 1}, got {self.index}")


@cache
def palettes(family: str) -> tuple[Palette, ...]:
    """The stored palettes of a family; `make_palettes.py` drew them."""
    stored = json.loads(files("mbrl_pvr.envs").joinpath("palettes.json").read_text())
    return tuple(Palette(*(np.array(row[part]) for part in Palette._fields)) for row in stored[family])


def split_indices(split: str, count: int = 100) -> tuple[int, ...]:
    """Palettes of "train" (80 %) or "held_out" (20 %), the same on every machine."""
    if split not in ("train", "held_out"):
        raise ValueError(f"split must be train or held_out, got {split!r}")
    return tuple(i for i in range(count) if (i % _HOLD_OUT == _HOLD_OUT - 1) == (split == "held_out"))


def draw_look(
    seed: SeedSequence, family: str, split: str, severity: float = 1.0, factors: tuple[str, ...] = FACTORS
) -> Look:
    """The look of the episode with this seed; severity and factors do not change which palette is drawn."""
    if family == "none":
        return Look()
    indices = split_indices(split, len(palettes(family)))
    own = SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, _LOOK_STREAM))
    return Look(family, int(np.random.default_rng(own).choice(indices)), severity, factors)


class Recolor:
    """Recolours one compiled dm_control model (`mujoco.MjModel`) in place, from its original colours each time."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._rgba = model.mat_rgba.copy()
        self._agent = _ids(model, "material", _AGENT_MATERIALS)
        self._floor = {i: _texels(model, i).copy() for i in _ids(model, "texture", ("grid",)).values()}
        self._sky = {i: _texels(model, i).copy() for i in _ids(model, "texture", _BACKGROUND_TEXTURES).values()}
        self._applied = Look()

    def apply(self, look: Look) -> list[int]:
        """Change the model's colours to a look's; the ids of the textures that changed."""
        changed = []
        now, before = self._strength(look), self._strength(self._applied)
        if now["agent"] != before["agent"]:
            self._paint_agent(*now["agent"])
        if now["floor"] != before["floor"]:
            for i, original in self._floor.items():
                _texels(self._model, i)[...] = _checker(original, *now["floor"])
                changed.append(i)
        if now["background"] != before["background"]:
            for i, original in self._sky.items():
                _texels(self._model, i)[...] = _sky(original, *now["background"])
                changed.append(i)
        self._applied = look
        return changed

    def _strength(self, look: Look) -> dict[str, tuple[str, int, float]]:
        """(family, palette, severity) per factor; all unshifted looks are the same."""
        on = look.family != "none" and look.severity > 0
        shifted, original = (look.family, look.index, look.severity), ("none", 0, 0.0)
        return {factor: shifted if on and factor in look.factors else original for factor in FACTORS}

    def _paint_agent(self, family: str, index: int, severity: float) -> None:
        self._model.mat_rgba[:] = self._rgba
        if family == "none":
            return
        target = palettes(family)[index].agent
        own = self._rgba[self._agent["self"], :3]
        for i in self._agent.values():
            original = self._rgba[i, :3]
            textured = np.all(original == 1)  # a white material only tints its texture
            aim = target if textured else np.clip(target + original - own, 0, 1)  # parts keep their contrast
            self._model.mat_rgba[i, :3] = (1 - severity) * original + severity * aim


def _ids(model: Any, kind: str, names: tuple[str, ...]) -> dict[str, int]:
    import mujoco

    code = {"material": mujoco.mjtObj.mjOBJ_MATERIAL, "texture": mujoco.mjtObj.mjOBJ_TEXTURE}[kind]
    found = {name: mujoco.mj_name2id(model, code, name) for name in names}
    return {name: i for name, i in found.items() if i >= 0}


def _texels(model: Any, texture: int) -> NDArray:
    """A view (H, W, 3) uint8 into the model."""
    start, height, width = model.tex_adr[texture], model.tex_height[texture], model.tex_width[texture]
    return model.tex_data[start : start + height * width * 3].reshape(height, width, 3)


def _checker(original: NDArray, family: str, index: int, severity: float) -> NDArray:
    """The darker of the checker's two colours becomes floor[0], the lighter floor[1]."""
    if family == "none":
        return original
    bright = original.sum(-1, dtype=np.int32)
    light = bright > bright.min()
    first, second = original[~light][0], original[light][0]
    aim = palettes(family)[index].floor * 255
    mixed = [(1 - severity) * old + severity * new for old, new in zip((first, second), aim, strict=True)]
    return np.where(light[..., None], *(np.round(c).astype(np.uint8) for c in reversed(mixed)))


def _sky(original: NDArray, family: str, index: int, severity: float) -> NDArray:
    """The gradient keeps its shape and its stars: height is read from the blue channel, the colour looked up."""
    if family == "none":
        return original
    level = np.arange(256) / (255 * _GRADIENT_TOP[2])  # 1 at the zenith
    colour = (1 - severity) * _GRADIENT_TOP + severity * palettes(family)[index].background
    table = np.clip(np.round(255 * level[:, None] * colour), 0, 255).astype(np.uint8)
    table[_MARK] = _MARK
    return np.take(table, original[..., 2], axis=0)
