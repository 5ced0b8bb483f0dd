"""Any environment of gymnasium: scaled actions, pictures and numbers of nested observations, ends, refusals."""

import importlib.util
import os
from typing import Any

import gymnasium
import numpy as np
import pytest

from mbrl_pvr.envs import EnvConfig, make
from mbrl_pvr.envs.lane import Lane
from mbrl_pvr.envs.registry import build_env
from mbrl_pvr.errors import ConfigError, EnvError, Unavailable

pytestmark = pytest.mark.usefixtures("gym_tasks")
RIGHT, STAY = np.array([1, 0], np.float32), np.array([-1, 0], np.float32)


@pytest.fixture(autouse=True)
def backend_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built in this process must agree with what mujoco, if a test imported it, was told."""
    monkeypatch.setenv("MUJOCO_GL", os.environ["MUJOCO_GL"])


def build(name: str = "gym:gym_tasks:Drive-v0", **config: Any) -> Any:
    return build_env(EnvConfig(name=name, **{"size": 32, "action_repeat": 1, "pixels": False, **config}))


def lane(name: str = "gym:gym_tasks:Drive-v0", **config: Any) -> Lane:
    return Lane(build(name, **config), seed=3, stream="t", index=0)


def test_numbers_are_the_observation_without_its_picture() -> None:
    env = build(proprio=True)
    assert (env.proprio_dim, env.action_spec.dim, env.action_spec.discrete) == (5, 2, False)
    _, place = env._env.unwrapped.shade, env._env.unwrapped.place
    np.testing.assert_array_equal(env.proprio(), np.array([0, 1, 0, *place], np.float32))  # one-hot gear, place


def test_actions_are_scaled_to_bounds_and_taken_as_they_are_without() -> None:
    env = build()
    env.begin(np.random.SeedSequence(0))
    for action, moved in ([-1, 0.25], [0, 0.25]), ([1, -1], [4, -1]), ([0, 0], [2, 0]):
        before = env._env.unwrapped.place
        assert env.act(np.array(action, np.float32)).reward == pytest.approx(moved[0])
        np.testing.assert_allclose(env._env.unwrapped.place - before, moved)


def test_a_picture_is_averaged_over_areas() -> None:
    env = build(pixels=True)
    front = env._observation["eyes"]["front"]  # 80×96
    frame = env.frame()
    assert frame.shape == (32, 32, 3) and frame.dtype == np.uint8
    whole = env.frame(16)  # 80 and 96 are multiples of 16: each pixel is the mean of 5×6
    means = front.reshape(16, 5, 16, 6, 3).mean((1, 3))
    np.testing.assert_allclose(whole, means, atol=1)


def test_ends_are_told_apart_and_success_is_the_environments() -> None:
    one = lane(proprio=True)
    first = one.reset()
    assert np.isnan(first.success)
    ticks = [one.step(RIGHT) for _ in range(3)]
    assert [(t.is_last, t.is_terminal, t.success) for t in ticks] == [(False, False, 0.0)] * 2 + [(True, True, 1.0)]
    one.reset()
    ticks = [one.step(STAY) for _ in range(12)]
    assert [t.is_last for t in ticks] == [False] * 11 + [True] and not ticks[-1].is_terminal
    assert ticks[-1].success == 0.0


def test_a_repeated_action_stops_at_the_end() -> None:
    one = lane(action_repeat=5)
    assert one.env.max_episode_steps == 3 and one.env.fps == pytest.approx(10 / 5)  # 12 steps
    one.reset()
    tick = one.step(RIGHT)
    assert tick.is_terminal and tick.reward == 12.0  # three of five


def test_episodes_follow_from_their_seed_and_are_restored() -> None:
    one, two = lane(proprio=True, pixels=True), lane(proprio=True, pixels=True)
    a, b = one.reset(), two.reset(episode=0)
    np.testing.assert_array_equal(a.proprio, b.proprio)
    np.testing.assert_array_equal(a.frame, b.frame)
    assert (one.reset().proprio != a.proprio).any()
    one.step(STAY)
    assert two.restore(one.state())
    c, d = one.step(RIGHT), two.step(RIGHT)
    np.testing.assert_array_equal(c.proprio, d.proprio)
    np.testing.assert_array_equal(c.frame, d.frame)
    changed = one.state()
    changed["actions"][0] = [0.5, 0.5]
    assert not two.restore(changed)


def test_pendulum_is_gymnasiums_own() -> None:
    env, own = build("gym:Pendulum-v1", proprio=True), gymnasium.make("Pendulum-v1")
    seed = np.random.SeedSequence(7)
    env.begin(seed)
    observation, _ = own.reset(seed=int(seed.generate_state(1)[0] >> 1))
    np.testing.assert_array_equal(env.proprio(), observation)
    for action in np.linspace(-1, 1, 200, dtype=np.float32):
        reward, terminated, truncated = env.act(action[None])
        observation, wanted, *_ = own.step(2 * np.float32([action]))
        np.testing.assert_allclose(env.proprio(), observation, atol=1e-4)
        assert reward == pytest.approx(wanted, abs=1e-3)
    assert truncated and not terminated and env.max_episode_steps == 200


def test_choices_are_one_hot_from_wherever_they_begin() -> None:
    env = build("gym:gym_tasks:Blind-v0", proprio=True)
    env.begin(np.random.SeedSequence(0))
    assert (env.action_spec.dim, env.action_spec.discrete) == (4, True)
    assert [env.act(choice).reward for choice in np.eye(4, dtype=np.float32)] == [5, 6, 7, 8]


def test_cartpole_in_a_worker(start) -> None:
    settings = {"render": "standard", "action_repeat": 1}
    envs = start("gym:CartPole-v1", pixels=False, **settings)
    assert (envs.proprio_dim, str(envs.action_spec)) == (4, "one-hot vectors over 2 choices")
    envs.reset()
    steps = [envs.step([[0, 1]]) for _ in range(12)]  # always to the right: it falls
    (end,) = (step for step in steps if step.is_terminal[0])
    assert end.is_last[0] and np.abs(end.proprio[0, 2]) > 0.2
    if importlib.util.find_spec("pygame") is None:
        with pytest.raises(Unavailable, match=r"gymnasium\[classic-control\]|pygame"):
            start("gym:CartPole-v1", **settings)
    else:
        assert start("gym:CartPole-v1", **settings).reset().frame.std() > 1


@pytest.mark.parametrize(
    ("name", "config", "error", "words"),
    [
        ("gym:gym_tasks:Levers-v0", {}, ConfigError, r"MultiDiscrete\(\[2 3\]\)[\s\S]*Box.* and Discrete"),
        ("gym:gym_tasks:HalfBounded-v0", {}, ConfigError, "bounded on one side only"),
        ("gym:gym_tasks:Endless-v0", {}, ConfigError, r"no time limit[\s\S]*env\.max_steps=1000"),
        ("gym:gym_tasks:Blank-v0", {"pixels": True}, EnvError, r"one colour only, \[0, 0, 0\][\s\S]*driver"),
        ("gym:gym_tasks:Blind-v0", {"pixels": True}, ConfigError, r"gives no picture[\s\S]*encoder=state"),
        ("gym:gym_tasks:Drive-v0", {"pixels": True, "size": 84}, ConfigError, r"80×96[\s\S]*env\.size=80"),
        ("gym:gym_tasks:Drive-v0", {"render": "fast"}, ConfigError, r"env\.render=fast means nothing"),
        ("gym:gym_tasks:Drive-v0", {"shifts": "color_easy"}, ConfigError, r"env\.shifts=color_easy means nothing"),
        ("gym:gym_tasks:Drive-v0", {"camera": 1}, ConfigError, r"env\.camera=1"),
        ("gym:gym_tasks:Drive-v0", {"time_limit": 1.0}, ConfigError, r"env\.time_limit=1\.0[\s\S]*max_steps"),
        ("gym:NoSuchThing-v0", {}, ConfigError, r"NoSuchThing[\s\S]*gym:MODULE:ID"),
        ("gym:CartPole-v7", {}, ConfigError, r"v7"),
        (
            "gym:no_such_module:X-v0",
            {},
            Unavailable,
            r"'no_such_module' is not installed[\s\S]*pip install no-such-mod",
        ),
        ("gym:", {}, ConfigError, r"gym:ID or gym:MODULE:ID[\s\S]*gym:CartPole-v1"),
        ("gym:a b", {}, ConfigError, r"gym:ID"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, config: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        build(name, **config)


def test_an_endless_task_takes_the_limit_that_is_given() -> None:
    env = build("gym:gym_tasks:Endless-v0", max_steps=7, action_repeat=3)
    assert env.max_episode_steps == 7


@pytest.mark.usefixtures("egl")
def test_adroit_is_drawn_at_its_size_without_shadows(start) -> None:
    if importlib.util.find_spec("gymnasium_robotics") is None:
        with pytest.raises(Unavailable, match=r'pip install "mbrl-pvr\[adroit\]"'):
            start("gym:gymnasium_robotics:AdroitHandDoor-v1")
        pytest.skip('pip install "mbrl-pvr[adroit]"')
    name = "gym:gymnasium_robotics:AdroitHandDoor-v1"
    with make(EnvConfig(name=name, size=64, render="fast", action_repeat=1), num=2, seed=1, stream="t") as envs:
        first = envs.reset()
        assert first.frame.shape == (2, 64, 64, 3) and (first.frame.std((1, 2, 3)) > 5).all()
        assert (first.frame[0] != first.frame[1]).any()  # the door is elsewhere
        step = envs.step(np.ones((2, envs.action_spec.dim)))
        assert envs.action_spec.dim == 28 and (step.frame != first.frame).any() and step.success.tolist() == [0.0, 0.0]
