"""Looks in ManiSkill: each factor shows, grows with severity and is undone; only physical ones reach the physics."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig, VectorEnv, list_envs, make
from mbrl_pvr.envs.factors import IMAGE, PHYSICAL
from mbrl_pvr.envs.maniskill_look import tinted
from mbrl_pvr.envs.names import MANISKILL_SIZED, MANISKILL_SPARSE
from mbrl_pvr.envs.offers import check_pairs, presets, shifted
from mbrl_pvr.envs.shifts import NUM_BANDS, Draw, Look, draw_look, split_bands
from mbrl_pvr.errors import ConfigError, EnvError, Unavailable
from mbrl_pvr.preview import preview

pytestmark = pytest.mark.xdist_group("maniskill")  # one process of the suite, or each would start workers of its own
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
OWN = [f for f in shifted("maniskill/StackCube-v1") if f not in (*IMAGE, *PHYSICAL)]
DOWN = np.array([[-0.3, 0, -0.3, 0, 1]], np.float32)
CUBES = slice(25, 39)  # of StackCube's state: position and quaternion of both


def open_task(task: str, *, split: str = "train", episode: int = 0, steps: int = 0, **config) -> VectorEnv:
    reward = "sparse" if task in MANISKILL_SPARSE else "dense"
    settings = EnvConfig(name=f"maniskill/{task}", **{"size": 64, "action_repeat": 1, "reward": reward, **config})
    envs = make(settings, num=1, seed=5, stream="t", split=split, start_timeout=500)
    envs.reset(episode=episode)
    for _ in range(steps):
        envs.step(DOWN)
    return envs


@pytest.fixture(scope="module")
def stack(maniskill: None) -> Iterator[VectorEnv]:
    """Both cubes and a finger are in sight."""
    with open_task("StackCube-v1", proprio=True, episode=10, steps=4) as envs:
        yield envs


@pytest.fixture(scope="module")
def plug(maniskill: None) -> Iterator[VectorEnv]:
    """Charger, receptacle and a finger are in sight."""
    with open_task("PlugCharger-v1", proprio=True, episode=2, steps=4) as envs:
        yield envs


@pytest.mark.parametrize("task", ["stack", "plug"])
@pytest.mark.parametrize("factor", OWN)
def test_every_factor_grows_from_nothing(task: str, factor: str, request: pytest.FixtureRequest) -> None:
    envs = request.getfixturevalue(task)
    for split in ("train", "held_out"):
        look = draw_look(SeedSequence(2), factor, split, env="maniskill")
        looks = [Look(), *(replace(look, severity=s) for s in SEVERITIES), Look()]
        frames = envs.call("frames_of", looks)[0].astype(float)
        np.testing.assert_array_equal(frames[1], frames[0])
        np.testing.assert_array_equal(frames[-1], frames[0])  # nothing of it stays
        distance = np.abs(frames[1:-1] - frames[0]).mean(axis=(1, 2, 3))
        assert (np.diff(distance) > 0).all(), distance


def test_one_state_is_drawn_alike_and_stays_as_it_is(stack: VectorEnv) -> None:
    before, state = stack.call("digest"), stack.get_state()
    looks = [draw_look(SeedSequence(i), "+".join(OWN), env="maniskill") for i in range(2)]
    first = stack.call("frames_of", [Look(), *looks])[0]
    again = stack.call("frames_of", [*looks[::-1], Look()])[0][::-1]
    np.testing.assert_array_equal(first, again)
    assert len({frame.tobytes() for frame in first}) == 3
    large = stack.call("frames_of", [Look(), *looks], 128)[0]  # by another camera
    assert np.abs(large.reshape(3, 64, 2, 64, 2, 3).mean((2, 4)) - first).mean() < 12
    assert stack.call("digest") == before and stack.get_state() == state
    again = stack.call("redraw", np.stack(stack.call("get_sim_state")), looks[1], 4)[0]
    np.testing.assert_array_equal(again[0], first[2])


def test_red_stays_reddish_and_green_greenish(stack: VectorEnv) -> None:
    """At the ends of every range, as the camera sees them; the table keeps its colour."""
    looks = [Look()]
    looks += [
        Look({"tint": Draw(1.0, numbers=(turn, lighter, 0.0, 0.0, 0.5))}, 1.0)
        for turn in (-20, 20)
        for lighter in (-0.35, 0.35)
    ]
    own, *frames = stack.call("frames_of", looks)[0].astype(int)
    red, green = ((own[..., a] > 150) & (own[..., b] < 20) & (own[..., 2] < 20) for a, b in ((0, 1), (1, 0)))
    table = (own[..., 0] > own[..., 1] + 20) & (own[..., 1] > own[..., 2] + 10) & (own[..., 2] > 30)
    assert red.sum() > 10 < green.sum() and table.mean() > 0.5
    for frame in frames:
        assert (frame[red].argmax(-1) == 0).all() and (frame[green].argmax(-1) == 1).all()
        assert (frame[red] != own[red]).any() and (frame[green] != own[green]).any()
        np.testing.assert_array_equal(frame[table], own[table])


def test_charger_and_receptacle_take_colours_of_their_own(plug: VectorEnv) -> None:
    blue, yellow = 240.0, 60.0
    look = Look({"tint": Draw(1.0, numbers=(0.0, 0.0, blue, yellow, 0.8))}, 1.0)
    frame = plug.call("frames_of", [look])[0][0].astype(int)
    surplus = frame[..., 2] - frame[..., :2].min(-1)
    assert (surplus > 60).sum() > 10 and (surplus < -60).sum() > 100


@pytest.mark.parametrize("turn", [-20.0, 0.0, 20.0])
def test_tints_are_as_strong_as_they_say(turn: float) -> None:
    half = np.array([1.0, turn / 60, 0]) if turn >= 0 else np.array([1.0, 0, -turn / 60])
    red, grey = np.array([1.0, 0, 0]), np.full(3, 0.6)
    np.testing.assert_allclose(tinted(red, turn, 0.0, 123.0, 0.5), half, atol=1e-9)
    np.testing.assert_allclose(tinted(red, turn, 0.3, 123.0, 0.5), 0.7 * half + 0.3, atol=1e-9)
    np.testing.assert_allclose(tinted(red, turn, -0.3, 123.0, 0.5), 0.7 * half, atol=1e-9)
    np.testing.assert_allclose(tinted(grey, turn, 0.0, 120.0, 0.5), [0.3, 0.6, 0.3], atol=1e-9)  # has no hue to turn


@pytest.mark.parametrize("task", ["stack", "plug"])
def test_looks_do_not_reach_the_physics(task: str, request: pytest.FixtureRequest, same) -> None:
    """The same actions without and with pictures of every look in between."""
    envs = request.getfixturevalue(task)
    before, digests, last = envs.get_state(), [[], []], []
    looks = [draw_look(SeedSequence(i), "+".join((*OWN, *IMAGE)), env="maniskill") for i in range(2)]
    for shown, seen in zip((None, looks), digests, strict=True):
        envs.reset(episode=3)
        for action in np.random.default_rng(0).uniform(-1, 1, (6, 1, 5)).astype(np.float32):
            if shown:
                envs.call("frames_of", shown)
            step = envs.step(action)
            seen.append(envs.call("digest"))
        last.append(step)
    assert digests[0] == digests[1] and len(set(map(tuple, digests[0]))) == 6
    same(*last)
    envs.set_state(before)


@pytest.mark.slow
def test_episodes_change_look_but_not_physics(maniskill: None, stack: VectorEnv) -> None:
    before = stack.get_state()
    with open_task("StackCube-v1", proprio=True, shifts="+".join((*OWN, *IMAGE))) as other:
        for episode in (3, 4):
            ticks = [envs.reset(episode=episode) for envs in (stack, other)]
            for action in np.random.default_rng(0).uniform(-1, 1, (3, 1, 5)).astype(np.float32):
                assert stack.call("digest") == other.call("digest") and ticks[0].reward == ticks[1].reward
                assert (ticks[0].frame != ticks[1].frame).any()
                ticks = [envs.step(action) for envs in (stack, other)]
    stack.set_state(before)


@pytest.fixture(scope="module")
def sized(maniskill: None) -> Iterator[VectorEnv]:
    """Nothing is drawn in it. Cubes have another size in each episode, held out from training."""
    config = {"split": "held_out", "shifts": "physical_size+tint", "proprio": True, "pixels": False}
    with open_task("StackCube-v1", **config) as envs:
        yield envs


def half_side(envs: VectorEnv, episode: int) -> float:
    """Of the cubes, from how high their middles lie; both lie still."""
    first = envs.reset(episode=episode).proprio[0, CUBES].reshape(2, 7)
    for _ in range(5):
        last = envs.step(np.zeros((1, 5), np.float32)).proprio[0, CUBES].reshape(2, 7)
    assert first[0, 2] == first[1, 2] and np.abs(last - first).max() < 1e-3
    return float(first[0, 2])


def test_cubes_are_larger_or_smaller_by_what_was_held_out(sized: VectorEnv) -> None:
    gains = [half_side(sized, episode) / 0.02 for episode in range(8)]
    bands = {int((gain - 0.7) / 0.6 * NUM_BANDS) for gain in gains}
    assert bands <= set(split_bands("held_out")) and len(bands) > 1, gains
    assert half_side(sized, 0) / 0.02 == gains[0]


def test_a_size_comes_back_with_its_moment_and_its_episode(sized: VectorEnv, same) -> None:
    push = np.array([[0.2, 0.1, -0.4, 0.2, -1]], np.float32)
    sized.reset(episode=0)
    for _ in range(3):
        sized.step(push)
    saved, moment, seen = sized.get_state(), sized.call("get_sim_state")[0], sized.call("proprio")[0]
    after = sized.step(push)
    other = half_side(sized, 1)
    sized.call("set_sim_state", moment)
    np.testing.assert_allclose(sized.call("proprio")[0], seen, atol=1e-5)
    assert abs(seen[CUBES][2] - other) > 1e-4
    np.testing.assert_allclose(sized.step(push).proprio, after.proprio, atol=1e-3)
    sized.reset(episode=1)
    assert sized.set_state(saved) == [True]
    same(after, sized.step(push))


def test_a_size_of_one_is_the_simulators_own(stack: VectorEnv) -> None:
    own = stack.call("proprio")[0]
    config = {"proprio": True, "pixels": False, "shifts": "study", "severity": 0.0}
    with open_task("StackCube-v1", episode=10, steps=4, **config) as zero:
        np.testing.assert_array_equal(zero.call("proprio")[0], own)


def test_looks_that_change_the_physics_have_no_pairs(stack: VectorEnv) -> None:
    look = draw_look(SeedSequence(1), "study", env="maniskill/StackCube-v1")
    assert set(look.draws) == {"tint", "physical_size"}
    with pytest.raises(EnvError, match="physical_size changes the physics: one state cannot be drawn"):
        stack.call("frames_of", [Look(), look])
    with pytest.raises(ConfigError, match=r"shift=study in \S+: physical_size changes the physics[\s\S]*: tint"):
        check_pairs("study", "maniskill/StackCube-v1")
    with pytest.raises(ConfigError, match=r"configurations changes the physics[\s\S]*changes the picture alone"):
        check_pairs("study", "maniskill/AssemblingKits-v1")


@pytest.mark.parametrize(
    ("task", "shifts", "words"),
    [
        ("StackCube-v1", "background", r"cannot draw background[\s\S]*It can do: study, .*agent, floor, tint"),
        ("StackCube-v1", "video+shadows", "cannot draw shadows, video"),
        ("StackCube-v1", "objects", r"cannot draw objects[\s\S]*tint"),
        ("RollBall-v1", "physical_size", "cannot draw physical_size"),
        ("PickCube-v1", "configurations", "cannot draw configurations"),
        ("PickSingleYCB-v1", "study", "cannot draw tint"),
    ],
)
def test_what_a_task_has_not_is_refused_before_a_worker_starts(
    task: str, shifts: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbrl_pvr.envs.vector.VectorEnv", None)
    with pytest.raises(ConfigError, match=words):
        open_task(task, shifts=shifts)


def test_others_have_no_physical_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbrl_pvr.envs.vector.VectorEnv", None)
    for name in ("dmc/dog-run", "miniworld/Hallway", "gym:CartPole-v1"):
        with pytest.raises(ConfigError, match=r"cannot draw physical_size[\s\S]*It can do:"):
            make(EnvConfig(name=name, action_repeat=1, shifts="physical_size"), seed=0, stream="t")


def test_presets_mean_what_a_task_has() -> None:
    for name in list_envs():
        for preset in presets(name):
            assert draw_look(SeedSequence(1), preset, env=name).draws.keys() <= set(shifted(name)), (name, preset)
    drawn = {
        task: set(draw_look(SeedSequence(1), "study", env=f"maniskill/{task}").draws)
        for task in ("StackCube-v1", "PlugCharger-v1", "PickClutterYCB-v1", "AssemblingKits-v1", "RollBall-v1")
    }
    assert list(drawn.values()) == [*[{"tint", "physical_size"}] * 2, *[{"configurations"}] * 2, {"tint"}]
    assert "study" not in presets("maniskill/PickSingleYCB-v1") and "study" not in presets("dmc/dog-run")
    assert presets("StackCube-v1") == presets("maniskill/StackCube-v1")  # an alias


@pytest.mark.slow
@pytest.mark.parametrize(("task", "seed"), [("StackCube-v1", 9), ("PlugCharger-v1", 6)])
def test_previews_show_all_shifts(maniskill: None, task: str, seed: int) -> None:
    """From these seeds the wrist has all objects in sight."""
    shown = preview(EnvConfig(name=f"maniskill/{task}", size=32, action_repeat=1), seed=seed)
    assert {*OWN, "study", "physical_size"} <= set(shown.shifts)
    for shift, frames in zip(shown.shifts, shown.frames, strict=True):
        assert (frames[0] != frames[-1]).any(), shift


@pytest.mark.slow
@pytest.mark.parametrize("name", list_envs("maniskill/*"))
def test_every_task_draws_and_builds_its_shifts(maniskill: None, name: str) -> None:
    task = name.partition("/")[2]
    try:
        envs = open_task(task, size=32, shifts="physical_size" if task in MANISKILL_SIZED else "none")
    except Unavailable as error:
        pytest.skip(error.what)
    with envs:
        step = envs.step(DOWN)
        assert np.isfinite(step.reward).all()
        for factor in (f for f in shifted(name) if f not in PHYSICAL):
            look = draw_look(SeedSequence(1), factor, env=name)
            frames = envs.call("frames_of", [Look(), replace(look, severity=0.0), look])[0]
            np.testing.assert_array_equal(frames[0], frames[1])
            assert factor in ("tint", "agent") or (frames[0] != frames[2]).any(), factor  # these may be out of sight
