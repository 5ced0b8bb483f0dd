"""Alignment, seeds and restoring, on the environment that counts: in this process and in workers."""

import json

import numpy as np
import pytest

from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.gym_vector import GymVectorEnv
from mbrl_pvr.envs.lane import Lane, episode_seed
from mbrl_pvr.envs.registry import build_env
from mbrl_pvr.errors import ConfigError, EnvError

NOTHING = np.zeros(2, np.float32)


def _lane(**config) -> Lane:
    env = build_env(EnvConfig(name="counting", **{"size": 8, "proprio": True, **config}))
    return Lane(env, seed=3, stream="t", index=0)


def _episode(lane: Lane) -> list:
    ticks = [lane.reset()]
    while not ticks[-1].is_last:
        ticks.append(lane.step(NOTHING))
    return ticks


@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_rewards_add_up_over_the_repeat_and_stop_at_the_end(repeat: int) -> None:
    lane = _lane(action_repeat=repeat)
    for _ in range(10):
        ticks = _episode(lane)
        length = int(ticks[0].proprio[2])
        shown = [int(tick.proprio[0]) for tick in ticks]
        assert shown == [*range(0, length, repeat), length]
        # reward[t] arrives with obs[t]: the frames counted since obs[t-1]
        for before, tick, count in zip(shown, ticks[1:], shown[1:], strict=False):
            assert tick.reward == sum(range(before + 1, count + 1))
        assert ticks[0].reward == 0
        assert [tick.is_first for tick in ticks] == [True] + [False] * (len(ticks) - 1)
        assert all(
            (tick.frame == (count, tick.proprio[1], length)).all() for tick, count in zip(ticks, shown, strict=True)
        )


def test_both_kinds_of_end_occur_and_differ() -> None:
    lane = _lane()
    last = [_episode(lane)[-1] for _ in range(30)]
    terminal = [tick.is_terminal for tick in last]
    assert 5 < sum(terminal) < 25
    assert [tick.success for tick in last] == [float(t) for t in terminal]


def test_the_tick_after_the_last_is_the_next_episodes_first() -> None:
    lane = _lane()
    tag = _episode(lane)[-1].proprio[1]
    tick = lane.step(NOTHING + 1)
    assert (tick.is_first, tick.is_last, tick.reward, tick.episode) == (True, False, 0.0, 1)
    assert tick.proprio[0] == 0 and tick.proprio[3] == 0  # the action was ignored
    assert tick.proprio[1] != tag


def test_max_steps_truncates() -> None:
    lane = _lane(action_repeat=1, max_steps=2)
    assert lane.env.max_episode_steps == 2
    ticks = _episode(lane)
    assert len(ticks) == 3 and ticks[-1].is_last and not ticks[-1].is_terminal


def test_episode_seeds_differ_in_every_part() -> None:
    base = (0, "train", 0, 0)
    others = [(1, "train", 0, 0), (0, "eval", 0, 0), (0, "train", 1, 0), (0, "train", 0, 1)]
    states = [tuple(episode_seed(*key).generate_state(4)) for key in [base, base, *others]]
    assert states[0] == states[1]
    assert len(set(states)) == 5


def test_workers_equal_lanes_in_this_process(start) -> None:
    envs = start("counting", num=2, seed=3, size=8)
    envs.reset()
    lane = _lane()
    lane.reset()
    for _ in range(40):
        step, tick = envs.step(np.zeros((2, 2))), lane.step(NOTHING)
        assert (step.reward[0], step.is_first[0], step.is_last[0], step.episode[0]) == (
            tick[0],
            tick[1],
            tick[2],
            tick[5],
        )
        np.testing.assert_array_equal(step.frame[0], tick.frame)
        np.testing.assert_array_equal(step.proprio[0], tick.proprio)


def test_step_has_the_contracts_shapes_and_types(start) -> None:
    step = start("counting", num=3, size=8).reset()
    assert {name: (value.dtype.name, value.shape) for name, value in vars(step).items()} == {
        "frame": ("uint8", (3, 8, 8, 3)),
        "proprio": ("float32", (3, 4)),
        "reward": ("float32", (3,)),
        "is_first": ("bool", (3,)),
        "is_last": ("bool", (3,)),
        "is_terminal": ("bool", (3,)),
        "success": ("float32", (3,)),
        "episode": ("int64", (3,)),
    }


def test_environments_do_not_depend_on_how_many_there_are(start) -> None:
    few, many = start("counting", num=2, size=8), start("counting", num=3, size=8)
    a, b = few.reset(), many.reset()
    for _ in range(20):
        np.testing.assert_array_equal(a.proprio, b.proprio[:2])
        a, b = few.step(np.zeros((2, 2))), many.step(np.zeros((3, 2)))
    assert a.proprio[0, 1] != a.proprio[1, 1]


@pytest.mark.parametrize("ticks", [0, 1, 7, 30])
def test_restored_environments_continue_as_if_never_stopped(start, same, ticks: int) -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (ticks + 40, 2, 2)).astype(np.float32)
    whole = start("counting", num=2, size=8)
    whole.reset()
    for action in actions[:ticks]:
        whole.step(action)
    saved = json.loads(json.dumps(whole.get_state()))
    resumed = start("counting", num=2, size=8)
    assert resumed.set_state(saved) == [True, True]
    for action in actions[ticks:]:
        same(whole.step(action), resumed.step(action))


def test_restored_at_the_last_tick_of_an_episode(start, same) -> None:
    whole, resumed = start("counting", size=8), start("counting", size=8)
    step = whole.reset()
    while not step.is_last[0]:
        step = whole.step(np.ones((1, 2)))
    resumed.set_state(whole.get_state())
    after = resumed.step(np.ones((1, 2)))
    assert after.is_first[0] and after.episode[0] == 1
    same(whole.step(np.ones((1, 2))), after)


def test_a_state_of_another_episode_length_is_reported(start) -> None:
    envs = start("counting", size=8)
    envs.reset()
    state = envs.get_state()
    state[0]["actions"] = [[0.0, 0.0]] * 100
    with pytest.raises(EnvError, match=r"ends after \d+ of 100 steps"):
        envs.set_state(state)


def test_a_state_that_does_not_come_back_exactly_is_said(start) -> None:
    envs = start("counting", size=8)
    envs.reset()
    state = envs.get_state()
    state[0]["digest"] += 1
    assert envs.set_state(state) == [False]


def test_reset_names_the_episode(start, same) -> None:
    envs = start("counting", num=2, size=8)
    first = envs.reset()
    assert envs.reset().episode.tolist() == [1, 1]
    same(envs.reset(episode=0), first)
    assert envs.reset(episode=7).episode.tolist() == [7, 7]


def test_discrete_actions_are_one_hot(start) -> None:
    envs = start("counting/discrete", size=8)
    assert (envs.action_spec.dim, envs.action_spec.discrete) == (3, True)
    envs.reset()
    assert envs.step([[0, 0, 1]]).proprio[0, 3] == 2
    with pytest.raises(EnvError, match=r"one-hot vectors over 3 choices"):
        envs.step([[0.5, 0.5, 0.0]])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([[0.0, np.nan], [0, 0]]), r"action 0 is not in \[-1, 1\]\^2: \[ *0. nan\] at \[1\]"),
        (np.array([[0.0, 0], [-1.5, 0]]), r"action 1 is not in \[-1, 1\]\^2: \[-1.5"),
        (np.zeros((2, 3)), r"shape \(2, 3\), where \(N, 2\)"),
        (np.zeros(2), r"shape \(2,\)"),
        (np.zeros((1, 2)), r"1 actions for 2 environments"),
        (np.array([["a", "b"]] * 2), r"actions of type <U1"),
    ],
)
def test_bad_actions_are_refused_and_harm_nothing(start, actions, message: str) -> None:
    envs = start("counting", num=2, size=8)
    envs.reset()
    with pytest.raises(EnvError, match=message):
        envs.send(actions)
    assert envs.step(np.zeros((2, 2))).proprio[0, 0] == 2


def test_gymnasium_vector_interface(start) -> None:
    envs = GymVectorEnv(start("counting", num=2, size=8))
    observation, info = envs.reset(seed=5)
    assert envs.observation_space.contains(observation)
    assert info["episode_index"].tolist() == [0, 0]
    ended = np.zeros(2, bool)
    for _ in range(30):
        observation, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
        assert (observation["proprio"][ended, 0] == 0).all() and (reward[ended] == 0).all()
        assert not (terminated & truncated).any()
        ended = terminated | truncated
    assert np.array_equal(envs.reset(seed=5)[0]["proprio"], envs.reset(seed=5)[0]["proprio"])
    envs.close()


@pytest.mark.filterwarnings("ignore:.*observation space m.*imum value is:UserWarning")  # counters have no bounds
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes:UserWarning")  # made without a spec
def test_single_environment_is_a_gymnasium_env() -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(build_env(EnvConfig(name="counting", size=16, proprio=True)), skip_render_check=True)


def test_counting_has_no_looks() -> None:
    with pytest.raises(ConfigError, match=r"env\.shifts=color_easy"):
        build_env(EnvConfig(name="counting", shifts="color_easy"))
