"""Looks without a simulator: stable splits, draws that do not depend on each other, severity 0 changes nothing."""

import json
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.factors import FACTORS, IMAGE, PALETTE, PRESETS
from mbrl_pvr.envs.image import distort
from mbrl_pvr.envs.lane import episode_seed
from mbrl_pvr.envs.make_palettes import COUNT, RANGES, draw_palettes
from mbrl_pvr.envs.shifts import NUM_BANDS, Draw, Look, draw_look, palette_look, palettes, split_bands, split_indices
from mbrl_pvr.envs.textures import CLIP_STEPS, clip, texture

FAMILIES = ("color_easy", "color_hard")
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
PUBLISHED = {  # palettes of the first six episodes of seed 1: must never change
    ("color_easy", "train"): [96, 52, 81, 91, 88, 63],
    ("color_easy", "held_out"): [99, 54, 84, 94, 89, 64],
    ("color_hard", "train"): [96, 52, 81, 91, 88, 63],
    ("color_hard", "held_out"): [99, 54, 84, 94, 89, 64],
}


def test_stored_palettes_are_what_the_script_draws() -> None:
    assert json.loads(files("mbrl_pvr.envs").joinpath("palettes.json").read_text()) == draw_palettes()


@pytest.mark.parametrize("family", FAMILIES)
def test_palettes_keep_to_their_ranges_and_differ(family: str) -> None:
    rows = palettes(family)
    assert len(rows) == COUNT == FACTORS["agent"].stored == 100
    for name, colours in (("agent", [p.agent for p in rows]), ("floor", [p.floor[0] for p in rows])):
        low, high = RANGES[family][name]
        assert (np.array(colours) >= low).all() and (np.array(colours) <= high).all()
    assert len({tuple(p.agent) + tuple(p.background) for p in rows}) == COUNT
    np.testing.assert_allclose([p.floor[1] - p.floor[0] for p in rows], 0.1, atol=1e-9)


def test_splits_are_disjoint_complete_and_stable() -> None:
    train, held_out = split_indices("train"), split_indices("held_out")
    assert (len(train), len(held_out)) == (80, 20)
    assert sorted(train + held_out) == list(range(100))
    assert held_out == tuple(range(4, 100, 5))  # written down: must never change
    assert split_indices("held_out", 6) == (4,)  # of Miniworld's six colours


@pytest.mark.parametrize(
    ("bands", "one_sided", "held_out"),
    [
        ("interleaved", False, (4, 9, 14, 19)),
        ("interleaved", True, (4, 9, 14, 19)),
        ("outer", False, (0, 1, 18, 19)),
        ("outer", True, (16, 17, 18, 19)),
    ],
)
def test_a_fifth_of_the_bands_is_held_out(bands: str, one_sided: bool, held_out: tuple[int, ...]) -> None:
    assert split_bands("held_out", bands, one_sided=one_sided) == held_out  # written down: must never change
    train = split_bands("train", bands, one_sided=one_sided)
    assert sorted(train + held_out) == list(range(NUM_BANDS))


@pytest.mark.parametrize("bands", ["interleaved", "outer"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_episodes_draw_from_their_part_only(split: str, bands: str) -> None:
    shifts = "+".join(FACTORS)
    looks = [draw_look(SeedSequence((0, i)), shifts, split, bands=bands) for i in range(400)]
    for name, row in FACTORS.items():
        drawn = [look.draws[name] for look in looks]
        if row.stored:
            assert set(split_indices(split, row.stored)) >= {d.index for d in drawn}
            assert len({d.index for d in drawn}) > 0.9 * len(split_indices(split, row.stored))
        for k, r in enumerate(row.numbers):
            seen = {int((d.numbers[k] - r.low) / (r.high - r.low) * NUM_BANDS) for d in drawn}
            one_sided = r.neutral is not None and not r.low < r.neutral < r.high
            assert seen == set(split_bands(split, bands, one_sided=one_sided)), name


def test_palettes_are_drawn_as_in_the_first_published_curves() -> None:
    drawn = {
        (shifts, split): [
            draw_look(episode_seed(1, "train", 0, e), shifts, split).draws["agent"].index for e in range(6)
        ]
        for shifts in FAMILIES
        for split in ("train", "held_out")
    }
    assert drawn == PUBLISHED


def test_factors_draw_for_themselves() -> None:
    seed = SeedSequence((7, 8, 9))
    every = draw_look(seed, "+".join(FACTORS)).draws
    for name in FACTORS:
        assert draw_look(seed, name).draws == {name: every[name]}  # leaving others out changes nothing
    assert draw_look(seed, "+".join(reversed(FACTORS))).draws == every
    assert len({d.seed for d in every.values()}) == len(FACTORS) - len(PALETTE) + 1
    # severity and factors are other switches, not other draws
    study = draw_look(seed, "study")
    assert draw_look(seed, "study", severity=0.3, factors=("size",)) == Look({"size": study.draws["size"]}, 0.3)
    assert draw_look(seed, "none") == Look()


def test_the_three_colours_are_of_one_palette() -> None:
    draws = draw_look(SeedSequence(3), "color_easy").draws
    assert draws.keys() == set(PALETTE) and len(set(draws.values())) == 1
    assert draws["floor"].palettes == "color_easy"
    assert draw_look(SeedSequence(3), "floor").draws["floor"].palettes == "color_hard"


def test_severity_moves_along_a_line_and_presets_take_a_part_of_it() -> None:
    seed = SeedSequence(5)
    hard, easy = (draw_look(seed, f"distracting_{level}") for level in ("hard", "easy"))
    assert easy.numbers("camera_pose") == pytest.approx(np.array(hard.numbers("camera_pose")) / 3)
    half = replace(hard, severity=0.5)
    assert half.numbers("camera_fov")[0] - 1 == pytest.approx((hard.numbers("camera_fov")[0] - 1) / 2)
    assert half.numbers("size") == (1.0,) and half.choice("textures") == (0, 0.0)
    assert not replace(hard, severity=0.0).has("video") and easy.choice("video")[1] == 1.0
    angle, tilt = draw_look(seed, "light_direction").numbers("light_direction")
    less = draw_look(seed, "light_direction", severity=0.1).numbers("light_direction")
    assert less == pytest.approx((angle, tilt / 10))  # the way stays, how far shrinks


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_factors(preset: str) -> None:
    for row in PRESETS[preset].families.values():
        assert row and row.keys() <= FACTORS.keys() and all(0 < part <= 1 for part in row.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: palette_look("red", 0), "palettes are color_easy or color_hard, got 'red'"),
        (lambda: palette_look("color_easy", 100), r"palettes 0\.\.99, got 100"),
        (lambda: palette_look("color_easy", 0, 1.1), r"severity must lie in 0\.\.1, got 1\.1"),
        (lambda: palette_look("color_easy", 0, 1.0, ("sky",)), "factors must be among"),
        (lambda: Look({"size": Draw(1.0)}, 1.0), "size takes 1 numbers"),
        (lambda: split_bands("train", "inner"), "bands must be interleaved or outer, got 'inner'"),
        (lambda: draw_look(SeedSequence(1), "size", "test"), "split must be one of train, held_out, held_out:agent"),
        (lambda: EnvConfig(shifts="agent+agent"), r"env\.shifts must be none, one of study, color_easy"),
        (lambda: EnvConfig(shifts="color_easy+size"), r"env\.shifts must be none, .* got 'color_easy\+size'"),
        (lambda: EnvConfig(shifts="agent+"), r"env\.shifts must be none"),
        (lambda: EnvConfig(factors=()), r"env\.factors must be null or some of agent"),
        (lambda: EnvConfig(factors="size"), r"env\.factors must be null or some of agent"),
        (lambda: EnvConfig(bands="inner"), r"env\.bands must be one of interleaved, outer"),
        (lambda: EnvConfig(video=""), r"env\.video must be null or the path of a folder"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Something with edges, colours and all levels."""
    y, x = np.mgrid[:48, :48]
    return np.stack([x * 5, y * 5, 255 * ((x // 7 + y // 11) % 2)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("factor", IMAGE)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_shifts_of_the_frame_grow_from_nothing(factor: str, split: str, photo: np.ndarray) -> None:
    for seed in range(3):
        looks = [draw_look(SeedSequence(seed), factor, split, s) for s in SEVERITIES]
        frames = [distort(photo, look, 3) for look in looks]
        assert frames[0] is photo
        distance = [np.abs(frame.astype(float) - photo).mean() for frame in frames]
        assert all(a < b for a, b in pairwise(distance)), distance
        assert all(frame.dtype == np.uint8 and frame.shape == photo.shape for frame in frames)


def test_one_state_is_noisy_in_one_way(photo: np.ndarray) -> None:
    look, other = (draw_look(SeedSequence(i), "noise+compression") for i in range(2))
    np.testing.assert_array_equal(distort(photo, look, 3), distort(photo, look, 3))
    assert (distort(photo, look, 3) != distort(photo, look, 4)).any()
    assert (distort(photo, look, 3) != distort(photo, other, 3)).any()


def test_noise_and_blur_are_as_strong_as_they_say() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    look = Look({"noise": Draw(1.0, numbers=(20.0,), seed=1)}, 0.5)
    assert distort(grey, look, 0).std() == pytest.approx(10, rel=0.05)
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    look = Look({"blur": Draw(1.0, numbers=(1.0,))}, 1.0)
    small = distort(edge, look, 0)[32, :, 0] / 255
    large = distort(edge.repeat(2, 0).repeat(2, 1), look, 0)[64, :, 0] / 255
    np.testing.assert_allclose(large.reshape(-1, 2).mean(1), small, atol=0.06)  # of the picture, not of pixels
    assert ((small > 0.02) & (small < 0.98)).sum() in range(3, 7)


def test_procedural_pictures_differ_tile_and_move() -> None:
    tiles = [texture(i) for i in range(20)]
    assert all(tile.shape == (128, 128, 3) and tile.std() > 15 for tile in tiles)
    assert len({tile.tobytes() for tile in tiles}) == 20
    for tile in tiles:  # neighbours across the seam differ no more than the largest steps inside
        inside = np.abs(np.diff(tile.astype(int), axis=0)).mean((1, 2))
        assert np.abs(tile[0].astype(int) - tile[-1]).mean() <= inside.max() + 1
    film = clip(3).astype(float)
    steps = np.abs(np.diff(film, axis=0)).mean((1, 2, 3))
    assert len(film) == CLIP_STEPS and steps.min() > 0.5
    assert np.abs(film[0] - film[-1]).mean() <= steps.max() * 1.1  # begins again without a jump
