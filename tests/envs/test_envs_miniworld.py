"""Miniworld: its tasks as the table has them, episodes that follow from their seed, ends and success told apart."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mbrl_pvr.envs import EnvConfig, VectorEnv, list_envs, make
from mbrl_pvr.envs.names import MINIWORLD_TASKS, TERMINATING
from mbrl_pvr.errors import ConfigError, EnvError

LEFT, RIGHT, FORWARD, BACK, PICK = np.eye(5, dtype=np.float32)


def open_task(task: str, **config) -> VectorEnv:
    settings = EnvConfig(name=f"miniworld/{task}", **{"size": 32, "action_repeat": 1, **config})
    return make(settings, num=1, seed=5, stream="t", start_timeout=400)  # compiles shaders, on a busy machine too


@pytest.fixture(scope="module")
def pickup(miniworld: None) -> Iterator[VectorEnv]:
    """One worker for all tests that draw: every environment that is made takes seconds and tens of megabytes."""
    with open_task("PickupObjects", size=64) as envs:
        yield envs


@pytest.fixture(scope="module")
def hallway(miniworld: None) -> Iterator[VectorEnv]:
    """Nothing is drawn in it."""
    with open_task("Hallway", pixels=False) as envs:
        yield envs


def _sources() -> Path:
    """The simulator's tasks as files: importing it would open a display in this process."""
    spec = importlib.util.find_spec("miniworld")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "envs"


def test_table_is_the_simulators() -> None:
    registered = re.findall(r'id="MiniWorld-(\w+)-v0"', (_sources() / "__init__.py").read_text())
    assert sorted(registered) == sorted(MINIWORLD_TASKS)
    assert [name.partition("/")[2] for name in list_envs("miniworld/*")] == sorted(registered)


def test_tasks_that_terminate_are_the_simulators() -> None:
    nodes = [node for file in _sources().glob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}

    def ends(name: str) -> bool:
        body = ast.unparse(classes[name])
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name) and base.id in classes]
        return "termination = True" in body or any(map(ends, bases))

    assert {f"miniworld/{task}" for task in MINIWORLD_TASKS if ends(task)} == {
        name for name in TERMINATING if name.startswith("miniworld/")
    }


def test_pickup_objects_is_what_the_study_used(pickup: VectorEnv) -> None:
    assert (pickup.action_spec.dim, pickup.action_spec.discrete) == (5, True)
    assert (pickup.max_episode_steps, pickup.proprio_dim, pickup.fps) == (400, 0, 30)
    step = pickup.reset(episode=0)
    assert step.frame.shape == (1, 64, 64, 3) and step.frame.std() > 10 and step.proprio is None
    assert step.success.tolist() == [0.0]


def test_nothing_that_the_simulator_prints_is_kept(pickup: VectorEnv) -> None:
    assert "num_samples" not in pickup._workers[0].last_words()


def test_a_picture_of_another_size_is_drawn_and_not_enlarged(pickup: VectorEnv) -> None:
    small = pickup.reset(episode=0).frame[0].astype(float)
    large = pickup.render(256)[0].astype(float)
    shrunk = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 12 and large.reshape(64, 4, 64, 4, 3).std((1, 3)).mean() > 1
    np.testing.assert_array_equal(pickup.render(64)[0], small)


def test_an_episode_is_a_function_of_its_number(pickup: VectorEnv, same) -> None:
    rng = np.random.default_rng(0)
    actions = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (10, 1))]

    def play(episode: int) -> list:
        return [pickup.reset(episode=episode), *(pickup.step(action) for action in actions)]

    once, other, again = play(3), play(4), play(3)
    for a, b in zip(once, again, strict=True):
        same(a, b)
    assert (once[0].frame != other[0].frame).any()


def test_a_restored_episode_goes_on_as_if_never_left(pickup: VectorEnv, same) -> None:
    pickup.reset(episode=1)
    for action in (LEFT, FORWARD, FORWARD, PICK):
        pickup.step(action[None])
    state = pickup.get_state()
    after = [pickup.step(action[None]) for action in (RIGHT, BACK)]
    pickup.reset(episode=2)
    assert pickup.set_state(state) == [True]
    for one, action in zip(after, (RIGHT, BACK), strict=True):
        same(one, pickup.step(action[None]))
    state[0]["actions"][0] = RIGHT.tolist()  # it then looks elsewhere
    assert pickup.set_state(state) == [False]


def test_every_object_that_is_picked_up_counts_one(miniworld: None) -> None:
    """Walked at random, pictures left out; five objects a room, and none is there twice."""
    rng = np.random.default_rng(0)
    with open_task("PickupObjects", pixels=False) as envs:
        totals = []
        for episode in range(3):
            step, rewards = envs.reset(episode=episode), []
            while not step.is_last[0]:
                step = envs.step(np.eye(5, dtype=np.float32)[rng.choice(5, p=[0.15, 0.1, 0.45, 0, 0.3])][None])
                rewards.append(float(step.reward[0]))
            assert set(rewards) <= {0.0, 1.0}
            assert step.is_terminal[0] == (sum(rewards) == 5) == (step.success[0] == 1)
            assert step.is_terminal[0] or len(rewards) == 400
            totals.append(sum(rewards))
    assert sum(totals) >= 1 and max(totals) <= 5


def test_reaching_the_box_succeeds_and_the_time_limit_does_not(hallway: VectorEnv) -> None:
    """From one of these headings the box at the end of the hallway is in reach."""
    ends = []
    for turns in range(-3, 4):
        turn = (LEFT if turns < 0 else RIGHT)[None, :3]
        step = hallway.reset(episode=0)
        for _ in range(abs(turns)):
            step = hallway.step(turn)
        while not step.is_last[0]:
            step = hallway.step(FORWARD[None, :3])
        ends.append((bool(step.is_terminal[0]), float(step.success[0]), float(step.reward[0])))
    reached = [end for end in ends if end[0]]
    assert reached and all(success == 1 and 0.8 < reward < 1 for _, success, reward in reached)
    assert (False, 0.0, 0.0) in ends


def test_repeated_actions_and_shorter_episodes(miniworld: None) -> None:
    with open_task("RoomObjects", pixels=False, action_repeat=3) as envs:
        assert envs.max_episode_steps == 334  # it has no limit, so it gets 1000 simulator steps
        step = envs.reset()
        assert np.isnan(step.success[0])  # and no goal
        while not step.is_last[0]:
            step = envs.step(np.eye(8)[[0]])
        assert not step.is_terminal[0] and len(envs.get_state()[0]["actions"]) == 334


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"proprio": True}, r"env\.proprio=True means nothing in miniworld/Hallway: .*no state vector"),
        ({"shifts": "agent"}, r"env\.shifts=agent means nothing in miniworld/Hallway"),
        ({"camera": 1}, r"env\.camera=1 .*what the agent sees"),
        ({"time_limit": 2.0}, r"env\.time_limit=2\.0 [\s\S]*env\.max_steps"),
        ({"render": "fast"}, r"env\.render=fast [\s\S]*env\.render=standard"),
        ({"backend": "osmesa"}, r"env\.backend=osmesa .*EGL alone"),
    ],
)
def test_what_means_nothing_is_refused_before_a_worker_starts(
    config: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbrl_pvr.envs.vector.VectorEnv", None)
    with pytest.raises(ConfigError, match=words):
        open_task("Hallway", **config)


def test_a_missing_library_is_named_with_its_package(hide) -> None:
    hide("libGLU")
    with pytest.raises(EnvError) as caught:
        open_task("Hallway")
    assert caught.value.what == "Miniworld cannot draw: libGLU.so.1 not found"
    assert caught.value.hint == "On Debian: apt-get install -y --no-install-recommends libglu1-mesa."


@pytest.mark.slow
@pytest.mark.parametrize("name", list_envs("miniworld/*"))
def test_every_listed_environment_steps_and_draws(miniworld: None, name: str) -> None:
    with open_task(name.partition("/")[2]) as envs:
        first = envs.reset()
        step = envs.step(np.eye(envs.action_spec.dim)[[0]])
        assert first.frame.std() > 1 and (step.frame != first.frame).any()
