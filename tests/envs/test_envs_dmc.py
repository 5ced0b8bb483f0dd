"""dm_control tasks: repeatable bit for bit, ends reported rightly, actions in bounds, frames that show the task."""

import contextlib
import json

import numpy as np
import pytest
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig, list_envs, make_gym
from mbrl_pvr.envs.base import FrameEnv
from mbrl_pvr.envs.registry import build_env
from mbrl_pvr.errors import ConfigError, EnvError


def _state_env(name: str, **config) -> FrameEnv:
    """In this process, never rendering."""
    return build_env(EnvConfig(name=name, pixels=False, proprio=True, **config))


def _actions(ticks: int, num: int, dim: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (ticks, num, dim)).astype(np.float32)


@pytest.mark.usefixtures("egl")
def test_two_runs_are_equal_bit_for_bit_and_environments_independent(start, same) -> None:
    a, b = (start("dmc/walker-walk", num=2, max_steps=6, shifts="color_easy") for _ in range(2))
    left, right = a.reset(), b.reset()
    same(left, right)
    assert (left.proprio[0] != left.proprio[1]).any()
    for action in _actions(10, 2, 6):  # over a reset
        left, right = a.step(action), b.step(action)
        same(left, right)
    assert left.episode.tolist() == [1, 1]
    moved = _actions(10, 2, 6)
    moved[:, 1] = 0  # what env 1 does must not show in env 0
    a.reset(episode=5), b.reset(episode=5)
    for action, other in zip(_actions(4, 2, 6), moved, strict=False):
        left, right = a.step(action), b.step(other)
    np.testing.assert_array_equal(left.frame[0], right.frame[0])
    assert (left.frame[1] != right.frame[1]).any()


@pytest.mark.usefixtures("egl")
def test_restored_environments_continue_bitwise_and_draw_nothing(start, same) -> None:
    ticks = (3, 5, 8)  # in the middle; at the last tick; in the second episode
    actions = _actions(ticks[-1] + 5, 1, 1)
    options = {"time_limit": 0.1, "shifts": "color_hard"}  # 10 simulator steps, 5 agent steps
    whole, resumed = start("dmc/cartpole-swingup", **options), start("dmc/cartpole-swingup", **options)
    steps, saved = [whole.reset()], {}
    for tick, action in enumerate(actions):
        if tick in ticks:
            saved[tick] = json.loads(json.dumps(whole.get_state()))
        steps.append(whole.step(action))
    assert [step.is_last[0] for step in steps].index(True) == 5
    for tick in ticks:
        assert resumed.set_state(saved[tick]) == [True]
        if tick == ticks[0]:
            assert resumed.call("_cameras") == [{}]  # no renderer yet
        np.testing.assert_array_equal(resumed.render(), steps[tick].frame)
        for action, step in zip(actions[tick:], steps[tick + 1 :], strict=True):
            same(resumed.step(action), step)


TASKS_WITH_MOVING_MODELS = (
    "finger-turn_hard",
    "point_mass-hard",
    "reacher-easy",
    "manipulator-insert_peg",
    "lqr-lqr_6_2",
)


@pytest.mark.parametrize("task", ["walker-run", "fish-swim", *TASKS_WITH_MOVING_MODELS])
def test_an_episode_is_a_function_of_its_seed_alone(task: str) -> None:
    fresh, used = _state_env(f"dmc/{task}"), _state_env(f"dmc/{task}")
    for other in range(3):
        used.begin(SeedSequence(other))
        used.act(np.ones(used.action_spec.dim, np.float32))
    fresh.begin(SeedSequence((9, 9))), used.begin(SeedSequence((9, 9)))
    np.testing.assert_array_equal(fresh.proprio(), used.proprio())
    for action in _actions(20, 1, fresh.action_spec.dim)[:, 0]:
        assert fresh.act(action) == used.act(action)
        np.testing.assert_array_equal(fresh.proprio(), used.proprio())
    used.begin(SeedSequence((9, 10)))
    fresh.begin(SeedSequence((9, 9)))
    assert (fresh.proprio() != used.proprio()).any()


def test_a_time_limit_is_truncation() -> None:
    env = _state_env("dmc/cartpole-balance", time_limit=0.05, action_repeat=2)
    assert env.max_episode_steps == 3  # 5 simulator steps
    env.begin(SeedSequence(0))
    outcomes = [env.act(np.zeros(1, np.float32)) for _ in range(3)]
    assert [(o.terminated, o.truncated) for o in outcomes] == [(False, False), (False, False), (False, True)]
    assert 1.0 < outcomes[0].reward <= 2.0 and outcomes[2].reward <= 1.0  # the last repeat is cut to one
    with pytest.raises(EnvError, match="episode is over"):
        env.act(np.zeros(1, np.float32))


def test_reaching_the_goal_is_termination() -> None:
    env = _state_env("dmc/lqr-lqr_2_1")
    env.begin(SeedSequence(0))
    with env.physics.reset_context():
        env.physics.data.qpos[:] = 0
    outcome = env.act(np.zeros(1, np.float32))
    assert (outcome.terminated, outcome.truncated) == (True, False)


@pytest.mark.parametrize("repeat", [1, 2, 4])
def test_default_episodes_last_1000_simulator_steps(repeat: int) -> None:
    env = _state_env("dmc/pendulum-swingup", action_repeat=repeat)
    assert env.max_episode_steps == 1000 // repeat
    env.begin(SeedSequence(0))
    steps = 1
    while not env.act(np.zeros(1, np.float32)).truncated:
        steps += 1
    assert steps == 1000 // repeat


def test_our_time_limit_is_the_suites() -> None:
    from dm_control import suite

    for name in ("walker-walk", "acrobot-swingup", "humanoid-stand", "fish-swim"):
        assert suite.load(*name.split("-"))._step_limit == pytest.approx(1000)


@pytest.mark.parametrize("task", ["quadruped-walk", "walker-walk", "lqr-lqr_6_2"])
def test_actions_of_one_reach_the_bounds_of_the_task(task: str) -> None:
    env = _state_env(f"dmc/{task}", action_repeat=1)
    spec = env._env.action_spec()
    for value, bound, unbounded in ((1, spec.maximum, 1.0), (-1, spec.minimum, -1.0)):
        env.begin(SeedSequence(0))
        env.act(np.full(env.action_spec.dim, value, np.float32))
        np.testing.assert_allclose(env.physics.control(), np.where(np.abs(bound) < 1e9, bound, unbounded), atol=1e-7)


def test_rewards_and_observations_are_the_suites() -> None:
    from dm_control import suite

    env = _state_env("dmc/cheetah-run", action_repeat=2)
    env.begin(SeedSequence(4))
    reference = suite.load("cheetah", "run", task_kwargs={"random": 0})
    reference.task.random.seed(SeedSequence(4).generate_state(4))
    reference.reset()
    for action in _actions(5, 1, 6)[:, 0]:
        steps = [reference.step(action), reference.step(action)]
        assert env.act(action).reward == sum(step.reward for step in steps)
        expected = np.concatenate([steps[1].observation["position"], steps[1].observation["velocity"]])
        np.testing.assert_array_equal(env.proprio(), expected.astype(np.float32))


@pytest.mark.usefixtures("egl")
def test_fast_frames_differ_from_standard_ones_and_show_the_same_scene(start) -> None:
    frames = {}
    for render in ("standard", "fast"):
        envs = start("dmc/walker-walk", render=render, size=64)
        assert envs.call("render")[0].shape == (64, 64, 3)
        frames[render] = envs.reset().frame[0].astype(float)
    assert all(frame.std() > 15 for frame in frames.values())
    difference = np.abs(frames["standard"] - frames["fast"]).mean()
    assert 0.2 < difference < 15


@pytest.mark.usefixtures("egl")
def test_frames_are_dm_controls_own(start) -> None:
    envs = start("dmc/finger-spin", render="standard", size=48, camera=1)
    frame = envs.reset().frame[0]
    env = build_env(EnvConfig(name="dmc/finger-spin", size=48, camera=1))
    from mbrl_pvr.envs.lane import episode_seed

    env.begin(episode_seed(0, "t", 0, 0))
    np.testing.assert_array_equal(env.physics.render(48, 48, 1), frame)
    env.close()


@pytest.mark.usefixtures("egl")
def test_pictures_on_demand_without_pixels(start) -> None:
    envs = start("dmc/pendulum-swingup", pixels=False)
    step = envs.reset()
    assert step.frame is None and envs.call("_cameras") == [{}]
    assert envs.render(96).shape == (1, 96, 96, 3) and envs.render(96).std() > 5
    with pytest.raises(EnvError, match=r"2000 pixels does not fit"):
        envs.render(2000)


@pytest.mark.usefixtures("egl")
def test_a_simulator_state_can_be_left_and_taken_up_again() -> None:
    env = build_env(EnvConfig(name="dmc/walker-walk", size=32, render="fast"))
    env.begin(SeedSequence(0))
    actions = _actions(12, 1, 6)[:, 0]
    for action in actions[:6]:
        env.act(action)
    state, frame = env.get_sim_state(), env.frame()
    after = [env.act(action) for action in actions[6:]]
    env.set_sim_state(state)
    np.testing.assert_array_equal(env.frame(), frame)
    assert [env.act(action) for action in actions[6:]] == after
    env.close()


@pytest.mark.usefixtures("egl")
@pytest.mark.parametrize("task", ["walker-walk", "reacher-easy", "finger-turn_hard", "quadruped-escape"])
def test_a_simulator_state_can_be_taken_up_in_another_episode(task: str) -> None:
    """Targets and terrain lie in the model, touch sensors show the step before: all of it comes back."""
    env = build_env(EnvConfig(name=f"dmc/{task}", size=32, render="fast", proprio=True))
    env.begin(SeedSequence(1))
    actions = _actions(12, 1, env.action_spec.dim)[:, 0]
    for action in actions[:6]:
        env.act(action)
    state, seen, digest = env.get_sim_state(), env.observe(), env.digest()
    after = [(env.act(action), env.proprio().tolist()) for action in actions[6:]]
    env.begin(SeedSequence(2))
    env.act(actions[0])
    other = env.observe()
    assert all((other[part] != seen[part]).any() for part in seen) and env.digest() != digest
    env.set_sim_state(state)
    for part, value in env.observe().items():
        np.testing.assert_array_equal(value, seen[part], err_msg=part)
    assert env.digest() == digest
    np.testing.assert_array_equal(env.get_sim_state(), state)
    assert [(env.act(action), env.proprio().tolist()) for action in actions[6:]] == after
    env.close()


def test_a_state_of_another_task_is_refused() -> None:
    state = _state_env("dmc/walker-walk").get_sim_state()
    with pytest.raises(EnvError, match=r"178 numbers, where this task's has \d+ \(dmc/reacher-easy\)"):
        _state_env("dmc/reacher-easy").set_sim_state(state)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_envs("dmc/*"))
def test_a_state_holds_all_that_an_episode_of_the_task_differs_in(name: str) -> None:
    def fields(env: FrameEnv) -> dict[str, np.ndarray]:
        model = env.physics.model.ptr
        found = {k: getattr(model, k) for k in dir(model) if not k.startswith("_")}
        return {k: v.copy() for k, v in found.items() if isinstance(v, np.ndarray)}

    env = _state_env(name)
    env.begin(SeedSequence(1))
    for action in _actions(8, 1, env.action_spec.dim)[:, 0]:
        env.act(action)
    before, state, seen = fields(env), env.get_sim_state(), env.proprio()
    env.begin(SeedSequence(2))
    env.set_sim_state(state)
    np.testing.assert_array_equal(env.proprio(), seen)
    assert [k for k, v in fields(env).items() if not np.array_equal(v, before[k])] == []


@pytest.mark.usefixtures("egl")
def test_gymnasium_interface_takes_gymnasiums_wrappers() -> None:
    from gymnasium.wrappers.vector import RecordEpisodeStatistics

    config = EnvConfig(name="dmc/cartpole-balance", size=16, render="fast", proprio=True, max_steps=3)
    with contextlib.closing(RecordEpisodeStatistics(make_gym(config, num=2, seed=0, stream="t"))) as envs:
        observation, info = envs.reset()
        assert envs.observation_space.contains(observation) and observation["frame"].std() > 1
        total = np.zeros(2)
        for step in range(3):
            assert "episode" not in info
            observation, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
            total += reward
            assert not terminated.any() and truncated.all() == (step == 2)
        np.testing.assert_allclose(info["episode"]["r"], total)
        assert info["episode"]["l"].tolist() == [3, 3]
        assert envs.step(envs.action_space.sample())[4]["episode_index"].tolist() == [1, 1]


def test_camera_that_does_not_exist_names_those_that_do(start) -> None:
    with pytest.raises(ConfigError, match=r"env\.camera=7[\s\S]*0 side, 1 back"):
        start("dmc/walker-walk", camera=7, pixels=False)


@pytest.mark.slow
@pytest.mark.usefixtures("egl")
@pytest.mark.parametrize("name", list_envs("dmc/*"))
def test_every_listed_environment_steps_and_draws(start, name: str) -> None:
    envs = start(name)
    envs.reset()
    step = envs.step(np.zeros((1, envs.action_spec.dim)))
    assert step.proprio.shape == (1, envs.proprio_dim)
    assert step.frame.std() > 1


def test_numbers_of_the_state_have_the_suite_s_names() -> None:
    env = build_env(EnvConfig("dmc/walker-walk", pixels=False, proprio=True))
    names = env.proprio_names()
    env.close()
    assert len(names) == env.proprio_dim == 24 and names[0] == "orientations 0"
    assert names[14:16] == ["height", "velocity 0"] and names[-1] == "velocity 8"
