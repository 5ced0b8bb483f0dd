"""Looks in dm_control: each factor shows, grows with severity, and never reaches the physics."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.random import SeedSequence
from PIL import Image

from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.base import FrameEnv
from mbrl_pvr.envs.dmc import DMCEnv
from mbrl_pvr.envs.factors import PALETTE, PHYSICAL
from mbrl_pvr.envs.lane import Lane
from mbrl_pvr.envs.offers import shifted
from mbrl_pvr.envs.registry import build_env
from mbrl_pvr.envs.shifts import Draw, Look, draw_look, palette_look, split_indices
from mbrl_pvr.errors import ConfigError, EnvError
from mbrl_pvr.video import write_video

FAMILIES = ("color_easy", "color_hard")
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
EVERY = tuple(f for f in shifted("dmc/walker-walk") if f not in PHYSICAL)


def _open(task: str = "walker-walk", split: str = "train", **config) -> FrameEnv:
    return build_env(EnvConfig(name=f"dmc/{task}", **{"size": 48, "render": "fast", **config}), split)


@pytest.fixture(scope="module")
def walker(egl) -> DMCEnv:
    env = _walking("fast")
    yield env
    env.close()


@pytest.fixture(scope="module")
def shaded(egl) -> DMCEnv:
    """The same state with its shadow."""
    env = _walking("standard")
    yield env
    env.close()


def _walking(render: str) -> FrameEnv:
    env = _open(render=render)
    env.begin(SeedSequence(1))
    for _ in range(5):
        env.act(np.full(6, 0.3, np.float32))
    return env


def test_severity_zero_is_the_original_also_after_another_look(walker: DMCEnv) -> None:
    original = walker.picture()
    looks = [
        palette_look("color_hard", 3),
        palette_look("color_hard", 3, 0.0),
        palette_look("color_easy", 5, 0.0),
        Look(),
    ]
    frames = walker.frames_of(looks)
    assert (frames[0] != original).any()
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame, original)


def test_an_episode_drawn_again_from_its_states_is_as_drawn_on_the_way(egl) -> None:
    """Also what moves by itself, and noise that differs from step to step."""
    env = _open(render="fast")
    look, states, frames = draw_look(SeedSequence(2), "color_hard+distractors+noise", "held_out"), [], []
    env.begin(SeedSequence(1))
    for _ in range(4):
        states.append(env.get_sim_state())
        frames.append(env.frames_of([look])[0])
        env.act(np.full(6, 0.3, np.float32))
    env.begin(SeedSequence(3))
    np.testing.assert_array_equal(env.redraw(np.stack(states[:3]), look), frames[:3])
    np.testing.assert_array_equal(env.redraw(np.stack(states[3:]), look, 3), frames[3:])
    env.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_severer_palette_differs_more(walker: DMCEnv, family: str) -> None:
    for index in (0, 4, 9):
        _assert_grows(walker, palette_look(family, index))


@pytest.mark.parametrize("factor", EVERY)
def test_every_factor_grows_from_nothing(walker: DMCEnv, shaded: DMCEnv, factor: str) -> None:
    for split in ("train", "held_out"):
        _assert_grows(shaded if factor == "shadows" else walker, draw_look(SeedSequence((2, 1)), factor, split))


def _assert_grows(env: DMCEnv, look: Look) -> None:
    frames = env.frames_of([Look(), *(replace(look, severity=s) for s in SEVERITIES)]).astype(float)
    np.testing.assert_array_equal(frames[1], frames[0])
    distance = np.abs(frames[1:] - frames[0]).mean(axis=(1, 2, 3))
    assert all(a < b for a, b in pairwise(distance)), distance


def test_each_colour_paints_its_own_part(walker: DMCEnv) -> None:
    original = walker.picture()
    alone = walker.frames_of([palette_look("color_hard", 4, 1.0, (factor,)) for factor in PALETTE])
    changed = [(frame != original).any(-1) for frame in alone]
    for i, factor in enumerate(PALETTE):
        assert 0.02 < changed[i].mean() < 0.9, factor
    assert not (changed[0] & changed[1] & changed[2]).any()
    together = walker.frames_of([palette_look("color_hard", 4)])[0]
    only_sky = changed[2] & ~changed[0] & ~changed[1]
    np.testing.assert_array_equal(together[only_sky], alone[2][only_sky])


def test_a_video_shows_in_the_sky_alone(walker: DMCEnv) -> None:
    black, clip = walker.frames_of([Look(), draw_look(SeedSequence(1), "video")])
    sky = walker.frames_of([palette_look("color_hard", 4, 1.0, ("background",))])[0]
    changed = (clip != black).any(-1)
    assert changed.mean() > 0.2 and not (changed & (sky == black).all(-1)).mean() > 0.02  # its border is mixed


def test_size_is_drawn_as_it_says(walker: DMCEnv) -> None:
    """Of the agent's outline against a bare sky: wider by the gain, about."""
    small, original, large = (
        (walker.frames_of([look, replace(look, draws={**look.draws, **_magenta()})]).astype(int))
        for look in (_size(0.7), _size(1.0), _size(1.3))
    )
    area = [(np.abs(pair[0] - pair[1]).sum(-1) > 40).mean() for pair in (small, original, large)]
    assert area[0] < 0.85 * area[1] and area[2] > 1.15 * area[1]


def _magenta() -> dict:
    return palette_look("color_hard", 3, 1.0, ("agent",)).draws


def _size(gain: float) -> Look:
    from mbrl_pvr.envs.shifts import Draw

    return Look({"size": Draw(1.0, numbers=(gain,))}, 1.0)


def test_many_looks_of_one_state_leave_the_state_alone(walker: DMCEnv) -> None:
    before, own = walker.get_sim_state(), walker.look
    looks = [draw_look(SeedSequence(i), "+".join(EVERY), "held_out") for i in range(4)]
    first, again = walker.frames_of(looks), walker.frames_of(looks[::-1])[::-1]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(walker.get_sim_state(), before)
    assert walker.look == own
    assert len({frame.tobytes() for frame in first}) == 4


def test_what_moves_moves_with_the_episode(walker: DMCEnv) -> None:
    """Distractors, video and noise at two steps of one state."""
    env = _open(size=32)
    for factor in ("distractors", "video", "noise"):
        env.begin(SeedSequence(1))
        look = draw_look(SeedSequence(3), factor)
        at = []
        for step in (0, 8):
            env._steps = step
            at.append(env.frames_of([look])[0])
        assert (at[0] != at[1]).any(), factor
    env.close()


@pytest.mark.usefixtures("egl")
def test_physics_is_the_same_under_every_shift() -> None:
    plain, shifted_env = (
        _open("cheetah-run", size=32, shifts=s) for s in ("none", "+".join(f for f in EVERY if f != "shadows"))
    )
    for env in (plain, shifted_env):
        env.begin(SeedSequence(4))
    for _ in range(12):
        action = np.random.default_rng(0).uniform(-1, 1, 6).astype(np.float32)
        assert plain.act(action) == shifted_env.act(action)
        assert (plain.picture() != shifted_env.picture()).any()
        np.testing.assert_array_equal(plain.get_sim_state(), shifted_env.get_sim_state())
    for env in (plain, shifted_env):
        env.close()


@pytest.mark.usefixtures("egl")
def test_episodes_change_look_but_not_physics() -> None:
    plain, train, held_out = _lane("none", "train"), _lane("color_hard", "train"), _lane("color_hard", "held_out")
    zero = _lane("+".join(f for f in EVERY if f != "shadows"), "train", severity=0.0)
    lanes = (plain, train, held_out, zero)
    ticks = [lane.reset() for lane in lanes]
    seen: list[set[int]] = [set(), set()]
    for _ in range(9):  # four episodes
        for tick in ticks[1:]:
            np.testing.assert_array_equal(tick.proprio, ticks[0].proprio)
        np.testing.assert_array_equal(ticks[3].frame, ticks[0].frame)
        assert (ticks[1].frame != ticks[0].frame).any()
        for indices, lane in zip(seen, (train, held_out), strict=True):
            indices.add(lane.env.look.draws["agent"].index)
        ticks = [lane.step(np.full(6, 0.3, np.float32)) for lane in lanes]
    assert len(seen[0]) >= 3 and seen[0] <= set(split_indices("train"))
    assert len(seen[1]) >= 2 and seen[1] <= set(split_indices("held_out"))
    for lane in lanes:
        lane.env.close()


def _lane(shifts: str, split: str, severity: float = 1.0) -> Lane:
    env = _open("cheetah-run", split, size=32, proprio=True, max_steps=2, shifts=shifts, severity=severity)
    return Lane(env, seed=0, stream="t", index=0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shifts": "objects"}, r"env\.shifts=objects means nothing in dmc/walker-walk: it cannot draw objects"),
        ({"shifts": "shadows"}, r"env\.shifts=shadows with env\.render=fast: no shadows are drawn"),
        ({"shifts": "color_easy", "factors": ("size",)}, r"env\.factors=\['size'\]: size is no factor of env\.shifts="),
        ({"shifts": "size", "task": "dog-run"}, r"env\.shifts=size means nothing in dmc/dog-run: it cannot draw size"),
        ({"shifts": "video", "video": "/nowhere"}, r"env\.video is no folder \(/nowhere\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_starts(
    config: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbrl_pvr.envs.registry._constructor", None)
    with pytest.raises(ConfigError, match=words):
        _open(config.pop("task", "walker-walk"), **config)


def test_a_look_that_cannot_be_drawn_is_refused(walker: DMCEnv) -> None:
    with pytest.raises(EnvError, match="objects cannot be drawn"):
        walker.frames_of([draw_look(SeedSequence(1), "objects")])


def _folder(tmp_path: Path, count: int) -> Path:
    """Pictures of one colour each, and a video that turns from black to white."""
    for i in range(count):
        Image.new("RGB", (30, 20), (40 * i, 0, 255 - 40 * i)).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.usefixtures("egl")
def test_files_of_a_folder_show_in_the_sky(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 4)
    write_video(folder / "9.mp4", [np.full((32, 32, 3), 30 * i, np.uint8) for i in range(8)], 10)  # the fifth: held out
    (folder / "notes.txt").write_text("no picture")
    pictures = _open(shifts="video", video=str(folder))
    for episode in range(3):
        pictures.begin(SeedSequence(episode))
        top = pictures.picture()[2, 10]
        assert top[1] == 0 and top[0] % 40 == 0 and int(top[0]) + int(top[2]) == 255
    video = _open(split="held_out", shifts="video", video=str(folder))
    video.begin(SeedSequence(1))
    grey = []
    for _ in range(4):
        grey.append(int(video.picture()[2, 10].mean()))
        video.act(np.zeros(6, np.float32))
    assert grey == pytest.approx([0, 30, 60, 90], abs=6)
    for env in (pictures, video):
        env.close()


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env\.video holds no videos or pictures[\s\S]*at least 5"):
        _open(shifts="video", video=str(tmp_path))
    folder = _folder(tmp_path, 4)
    with pytest.raises(ConfigError, match=r"env\.video holds 4 videos or pictures"):
        _open(shifts="video", video=str(folder))


@pytest.mark.usefixtures("egl")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.mp4").write_bytes(b"no video")
    env = _open(shifts="video", video=str(tmp_path))
    env.begin(SeedSequence(1))
    with pytest.raises(EnvError, match=r"cannot be read as a video or picture: .*\d\.mp4"):
        env.picture()
    env.close()


@pytest.mark.slow
@pytest.mark.usefixtures("egl")
@pytest.mark.parametrize(
    "task", ["finger-spin", "reacher-easy", "manipulator-bring_ball", "quadruped-run", "dog-run", "fish-swim"]
)
def test_other_bodies_are_shifted_too(task: str) -> None:
    env = _open(task)
    env.begin(SeedSequence(1))
    for factor in shifted(env.config.name):
        if factor in ("background", "video", "shadows", *PHYSICAL):
            continue  # the sky may be out of sight
        frames = env.frames_of([Look(), draw_look(SeedSequence(3), factor)])
        assert (frames[0] != frames[1]).mean() > 0.001, factor
    env.close()


# What is built larger or smaller


def _sized(gain: float) -> Look:
    return Look({"physical_size": Draw(1.0, numbers=(gain, 1.0))}, 1.0)


def _begin(env: FrameEnv, look: Look, steps: int = 4) -> np.ndarray:
    """An episode of a given look, some steps on: what it observes."""
    env.look = look
    env.start(SeedSequence(3))
    env._over = False
    for _ in range(steps):
        env.act(np.full(env.action_spec.dim, 0.5, np.float32))
    return env.proprio()


@pytest.mark.parametrize("task", ["walker-walk", "finger-spin", "ball_in_cup-catch", "quadruped-walk"])
def test_a_physical_size_is_what_mujoco_makes_of_it_and_goes_away_again(task: str) -> None:
    env = _open(task, pixels=False)
    model = env.physics.model.ptr
    numbers = [name for name in dir(model) if name[0] != "_" and isinstance(getattr(model, name, None), np.ndarray)]
    moving = model.geom_bodyid != 0
    first = _begin(env, Look())
    own = {name: getattr(model, name).copy() for name in numbers}
    larger = _begin(env, _sized(1.3))
    grown = model.body_mass.sum() / own["body_mass"].sum()
    assert 1.3 < grown <= 1.3**3 + 1e-9, "masses follow volumes, of limbs between joints their cross-sections"
    ratio = model.geom_size[moving][:, 0] / own["geom_size"][moving][:, 0]
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], 1.3)
    np.testing.assert_array_equal(model.geom_size[~moving], own["geom_size"][~moving])
    for name in ("jnt_pos", "body_pos", "actuator_gear", "actuator_ctrlrange", "opt_timestep"):
        if name in own and name != "body_pos":  # tasks put targets there
            np.testing.assert_array_equal(getattr(model, name), own[name])
    assert not np.array_equal(larger, first), "the same actions do something else to a heavier body"
    np.testing.assert_array_equal(_begin(env, _sized(1.3)), larger)
    np.testing.assert_array_equal(_begin(env, Look()), first)
    for name in numbers:
        np.testing.assert_array_equal(getattr(model, name), own[name], err_msg=name)


def test_a_state_knows_its_size(egl: None) -> None:
    env, other = _open("walker-walk"), _open("walker-walk")
    _begin(env, _sized(0.8))
    _begin(other, Look(), steps=2)
    state = env.get_sim_state()
    other.set_sim_state(state)
    np.testing.assert_array_equal(other.get_sim_state(), state)
    np.testing.assert_array_equal(other.picture(), env.picture())
    for one in (env, other):
        one.act(np.full(6, -0.4, np.float32))
    np.testing.assert_array_equal(other.proprio(), env.proprio())


def test_physical_sizes_are_drawn_from_the_episodes_seed_and_not_paired(egl: None) -> None:
    env = _open("cheetah-run", shifts="physical_size", split="held_out")
    masses = []
    for seed in (1, 2, 1):
        env.begin(SeedSequence(seed))
        masses.append(env.physics.model.ptr.geom_size[1:].copy())
    assert np.array_equal(masses[0], masses[2]) and not np.array_equal(masses[0], masses[1])
    with pytest.raises(EnvError, match="physical_size changes the physics: one state cannot be drawn"):
        env.frames_of([env.look])
    still = _open("cheetah-run", shifts="physical_size", severity=0.0)
    still.begin(SeedSequence(1))
    plain = _open("cheetah-run")
    plain.begin(SeedSequence(1))
    np.testing.assert_array_equal(still.picture(), plain.picture())
