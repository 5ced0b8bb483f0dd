"""What an agent would see: one state of an environment under shifts, from severity 0 to 1, and a film of them all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mbrl_pvr.envs import EnvConfig, VectorEnv, make
from mbrl_pvr.envs.actions import random_actions
from mbrl_pvr.envs.names import resolve
from mbrl_pvr.envs.offers import check_offers, physical, presets, shifted
from mbrl_pvr.envs.shifts import Look, draw_look
from mbrl_pvr.envs.video import count_clips
from mbrl_pvr.storage import make_folders, replace_atomic
from mbrl_pvr.video import write_video

SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
FILM_STEPS = 32  # agent steps
_STREAM = "preview"
_HOLD = 8  # agent steps for which a random action is held, so that something moves
_WARM_UP = 16  # agent steps before the sheet's state
_LABEL = 18  # pixels of a line of text
_NAMES = 150  # pixels of the column of names


@dataclass(frozen=True)
class Preview:
    """One state under `shifts` × `severities`, and a film of an episode under all of them at severity 1; under shifts
    that change the physics, an episode that begins alike and acts alike.
    """

    shifts: tuple[str, ...]
    severities: tuple[float, ...]
    frames: NDArray  # (shifts, severities, H, W, 3) uint8; severity 0 is the simulator's own look
    film: NDArray  # (T, 1 + shifts, H, W, 3) uint8, the simulator's own look first
    fps: float


def preview(config: EnvConfig, shifts: Sequence[str] = (), *, split: str = "train", seed: int = 0) -> Preview:
    """Draw an environment under shifts, by default every preset and every factor that it has, from `split`.

    Of `config` everything but shifts, severity and factors counts. Raises ConfigError for a shift that it cannot draw.
    """
    config = replace(config, name=resolve(config.name), shifts="none", factors=None, severity=1.0, pixels=False)
    chosen = tuple(shifts) or _all(config)
    for shift in chosen:
        check_offers(replace(config, shifts=shift))
    stored = {"video": count_clips(config.video)}
    looks = {
        shift: draw_look(SeedSequence((seed, i)), shift, split, env=config.name, bands=config.bands, stored=stored)
        for i, shift in enumerate(chosen)
        if not physical(shift, config.name)
    }
    rng = np.random.default_rng(seed)
    with make(config, num=1, seed=seed, stream=_STREAM) as env:
        held = [random_actions(env.action_spec, 1, rng) for _ in range(0, FILM_STEPS, _HOLD)]
        own = _episode(env, held, Look())
        drawn = {shift: _drawn(env, held, look) for shift, look in looks.items()}
        fps = env.fps
    built = {s: _built(replace(config, shifts=s), split, seed, held) for s in chosen if s not in looks}
    grids, films = zip(*((drawn | built)[shift] for shift in chosen), strict=True)
    return Preview(chosen, SEVERITIES, np.stack(grids), np.stack([own, *films], axis=1), fps)


def _drawn(env: VectorEnv, held: Sequence[NDArray], look: Look) -> tuple[NDArray, NDArray]:
    """One state at every severity of a look (S, H, W, 3), and a film under it (T, H, W, 3)."""
    film = _episode(env, held, look)
    _warm_up(env, held)
    return env.call("frames_of", [replace(look, severity=s) for s in SEVERITIES])[0], film


def _built(config: EnvConfig, split: str, seed: int, held: Sequence[NDArray]) -> tuple[NDArray, NDArray]:
    """The same of a shift that changes the physics, with an environment for each severity."""
    frames = []
    for severity in SEVERITIES:
        with make(replace(config, severity=severity), num=1, seed=seed, stream=_STREAM, split=split) as env:
            _warm_up(env, held)
            frames.append(env.render()[0])
            film = _episode(env, held)
    return np.stack(frames), film


def _warm_up(env: VectorEnv, held: Sequence[NDArray]) -> None:
    env.reset(episode=0)
    for step in range(_WARM_UP):
        env.step(held[step // _HOLD])


def _episode(env: VectorEnv, held: Sequence[NDArray], look: Look | None = None) -> NDArray:
    """Episode 0 under one look, by default its own, (T, H, W, 3): drawn look after look, since a change of look sends
    whole textures to the renderer.
    """
    env.reset(episode=0)
    drawn = []
    for step in range(FILM_STEPS):
        drawn.append(env.render()[0] if look is None else env.call("frames_of", [look])[0][0])
        env.step(held[step // _HOLD])
    return np.stack(drawn)


def write_preview(shown: Preview, out: Path) -> tuple[Path, Path]:
    """Write sheet.png and film.mp4 into a folder; files of these names are replaced."""
    sheet, film = out / "sheet.png", out / "film.mp4"
    make_folders(out.absolute())
    with replace_atomic(sheet) as temporary:
        Image.fromarray(draw_sheet(shown)).save(temporary)
    with replace_atomic(film) as temporary:
        write_video(temporary, _film(shown), min(shown.fps, 15.0))
    return sheet, film


def draw_sheet(shown: Preview) -> NDArray:
    """The contact sheet (height, width, 3) uint8: a row for each shift, a column for each severity."""
    rows, columns, height, width, _ = shown.frames.shape
    sheet = Image.new("RGB", (_NAMES + columns * width, _LABEL + rows * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.text((4, 2), "severity", "black", font)
    for column, severity in enumerate(shown.severities):
        pen.text((_NAMES + column * width + 3, 2), f"{severity:g}", "black", font)
    for row, shift in enumerate(shown.shifts):
        top = _LABEL + row * height
        pen.text((4, top + height // 2 - 8), shift.replace("+", "+\n"), "black", font)
        sheet.paste(Image.fromarray(np.concatenate(shown.frames[row], axis=1)), (_NAMES, top))
    return np.asarray(sheet)


def _film(shown: Preview) -> list[NDArray]:
    """Frames of a grid of films, with a name above each."""
    steps, count, height, width, _ = shown.film.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    page = Image.new("RGB", (across * width, down * (height + _LABEL)), "white")
    pen = ImageDraw.Draw(page)
    places = [(i % across * width, i // across * (height + _LABEL)) for i in range(count)]
    for name, (left, top) in zip(("none", *shown.shifts), places, strict=True):
        font = next((f for f in map(ImageFont.load_default, (12, 10, 8)) if f.getlength(name) < width - 4), None)
        pen.text((left + 2, top + 2), name, "black", font or ImageFont.load_default(7))
    pages = np.repeat(np.asarray(page)[None], steps, axis=0)
    for i, (left, top) in enumerate(places):
        pages[:, top + _LABEL : top + _LABEL + height, left : left + width] = shown.film[:, i]
    return list(pages)


def _all(config: EnvConfig) -> tuple[str, ...]:
    """Presets and factors of an environment; without shadows where none are drawn."""
    able = (*presets(config.name), *shifted(config.name))
    return tuple(shift for shift in able if not (shift == "shadows" and config.render == "fast"))
