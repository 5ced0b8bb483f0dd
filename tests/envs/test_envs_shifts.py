"""Looks: stable splits, drawn by episode, severity 0 is the original bit for bit, physics untouched."""

import json
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.config import FACTORS
from mbrl_pvr.envs.dmc import DMCEnv
from mbrl_pvr.envs.lane import Lane
from mbrl_pvr.envs.make_palettes import COUNT, RANGES, draw_palettes
from mbrl_pvr.envs.shifts import Look, draw_look, palettes, split_indices

FAMILIES = ("color_easy", "color_hard")


@pytest.fixture(scope="module")
def walker(egl) -> DMCEnv:
    env = DMCEnv(EnvConfig(name="dmc/walker-walk", size=48, render="fast"))
    env.begin(SeedSequence(1))
    yield env
    env.close()


def test_stored_palettes_are_what_the_script_draws() -> None:
    assert json.loads(files("mbrl_pvr.envs").joinpath("palettes.json").read_text()) == draw_palettes()


@pytest.mark.parametrize("family", FAMILIES)
def test_palettes_keep_to_their_ranges_and_differ(family: str) -> None:
    rows = palettes(family)
    assert len(rows) == COUNT == 100
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


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_episodes_draw_from_their_split_only(split: str) -> None:
    drawn = [draw_look(SeedSequence((0, i)), "color_hard", split).index for i in range(500)]
    assert set(drawn) <= set(split_indices(split))
    assert len(set(drawn)) > 0.9 * len(split_indices(split))


def test_a_look_is_a_function_of_the_episodes_seed() -> None:
    seed = SeedSequence((7, 8, 9))
    first, again = draw_look(seed, "color_easy", "train"), draw_look(seed, "color_easy", "train")
    assert first == again
    # severity and factors are other switches, not other draws
    assert draw_look(seed, "color_easy", "train", 0.3, ("agent",)) == Look("color_easy", first.index, 0.3, ("agent",))
    assert draw_look(seed, "none", "train") == Look()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("red", 0, 1.0), "family must be one of none, color_easy"),
        (("color_easy", 100, 1.0), r"palettes 0\.\.99, got 100"),
        (("color_easy", 0, 1.1), r"severity must lie in 0\.\.1, got 1\.1"),
        (("color_easy", 0, 1.0, ("sky",)), "factors must be among"),
    ],
)
def test_impossible_looks_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Look(*arguments)


def test_severity_zero_is_the_original_also_after_another_look(walker: DMCEnv) -> None:
    original = walker.frame()
    frames = walker.frames_of(
        [Look("color_hard", 3, 1.0), Look("color_hard", 3, 0.0), Look("color_easy", 5, 0.0), Look()]
    )
    assert (frames[0] != original).any()
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame, original)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_severer_look_differs_more(walker: DMCEnv, family: str) -> None:
    severities = (0.0, 0.25, 0.5, 0.75, 1.0)
    for index in (0, 4, 9):
        frames = walker.frames_of([Look(family, index, s) for s in severities]).astype(float)
        distance = np.abs(frames - frames[0]).mean(axis=(1, 2, 3))
        assert all(a < b for a, b in pairwise(distance)), distance


def test_each_factor_recolours_its_own_part(walker: DMCEnv) -> None:
    original = walker.frame()
    alone = walker.frames_of([Look("color_hard", 4, 1.0, (factor,)) for factor in FACTORS])
    changed = [(frame != original).any(-1) for frame in alone]
    for i, factor in enumerate(FACTORS):
        assert 0.02 < changed[i].mean() < 0.9, factor
    assert not (changed[0] & changed[1] & changed[2]).any()
    together = walker.frames_of([Look("color_hard", 4, 1.0)])[0]
    only_sky = changed[2] & ~changed[0] & ~changed[1]
    np.testing.assert_array_equal(together[only_sky], alone[2][only_sky])


def test_many_looks_of_one_state_leave_the_state_alone(walker: DMCEnv) -> None:
    before, own = walker.get_sim_state(), walker.look
    looks = [Look("color_hard", i, 1.0) for i in range(4)]
    first, again = walker.frames_of(looks), walker.frames_of(looks[::-1])[::-1]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(walker.get_sim_state(), before)
    assert walker.look == own


@pytest.mark.usefixtures("egl")
def test_episodes_change_look_but_not_physics() -> None:
    plain, train, held_out = _lane("none", "train"), _lane("color_hard", "train"), _lane("color_hard", "held_out")
    zero = _lane("color_hard", "train", severity=0.0)
    lanes = (plain, train, held_out, zero)
    ticks = [lane.reset() for lane in lanes]
    seen: list[set[int]] = [set(), set()]
    for _ in range(9):  # four episodes
        for tick in ticks[1:]:
            np.testing.assert_array_equal(tick.proprio, ticks[0].proprio)
        np.testing.assert_array_equal(ticks[3].frame, ticks[0].frame)
        assert (ticks[1].frame != ticks[0].frame).any()
        for indices, lane in zip(seen, (train, held_out), strict=True):
            indices.add(lane.env.look.index)
        ticks = [lane.step(np.full(6, 0.3, np.float32)) for lane in lanes]
    assert len(seen[0]) >= 3 and seen[0] <= set(split_indices("train"))
    assert len(seen[1]) >= 2 and seen[1] <= set(split_indices("held_out"))
    for lane in lanes:
        lane.env.close()


def _lane(shifts: str, split: str, severity: float = 1.0) -> Lane:
    config = EnvConfig(
        name="dmc/cheetah-run", size=32, render="fast", proprio=True, max_steps=2, shifts=shifts, severity=severity
    )
    return Lane(DMCEnv(config, split), seed=0, stream="t", index=0)
