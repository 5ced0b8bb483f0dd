"""What random actions earn, and returns normalised by it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mbrl_pvr
from mbrl_pvr.cli.main import main
from mbrl_pvr.envs import EnvConfig, random_score
from mbrl_pvr.envs.random_score import RandomScore

STUDY = ("ball_in_cup-catch", "cartpole-swingup", "cheetah-run", "finger-spin", "pendulum-swingup", "walker-walk")
COUNTING = EnvConfig("counting/default", action_repeat=2)


def test_the_mean_of_whole_episodes() -> None:
    """The reward of the counting environment is its count of simulator steps, whatever the action."""
    lengths = []
    score = random_score.measure(COUNTING, 5, progress=lambda done, total: lengths.append((done, total)))
    again = random_score.measure(COUNTING, 5)
    assert score == again and lengths == [(k, 5) for k in (1, 2, 3, 4, 5)]
    assert score.mean > 0 and score.command.endswith("counting/default --action-repeat 2 --episodes 5")


def test_random_actions_are_not_the_same_in_two_episodes() -> None:
    short = EnvConfig("dmc/cartpole-swingup", max_steps=20)
    assert random_score.measure(short, 4).std > 0


def test_a_return_is_placed_between_random_and_maximum() -> None:
    score = RandomScore("dmc/cartpole-swingup", 2, 100, 100.0, 50.0, "", {})
    assert [random_score.normalised(g, score, 1000.0) for g in (100.0, 550.0, 1000.0, 10.0)] == [0.0, 0.5, 1.0, -0.1]
    assert score.interval == pytest.approx((100 - 9.8, 100 + 9.8))


@pytest.mark.parametrize(
    ("config", "top"),
    [
        (EnvConfig("dmc/walker-walk"), 1000.0),
        (EnvConfig("dmc_walker_walk"), 1000.0),
        (EnvConfig("miniworld/PickupObjects", action_repeat=1), 5.0),
        (EnvConfig("miniworld/Hallway", action_repeat=1), None),
        (EnvConfig("gym:CartPole-v1", action_repeat=1), None),
        (EnvConfig("dmc/walker-walk", max_steps=100), None),
        (EnvConfig("dmc/lqr-lqr_2_1"), None),
        (EnvConfig("dmc/walker-walk", time_limit=5.0), None),
    ],
)
def test_only_declared_maxima_normalise(config: EnvConfig, top: float | None) -> None:
    assert random_score.maximum(config) == top


def test_what_is_not_stored_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_score, "EPISODES", 2)
    first = random_score.random_score(COUNTING, tmp_path, lambda done, total: None)
    monkeypatch.setattr(random_score, "measure", lambda *_, **__: pytest.fail("measured twice"))
    assert random_score.random_score(COUNTING, tmp_path, lambda done, total: None) == first
    with pytest.raises(pytest.fail.Exception):
        random_score.random_score(replace(COUNTING, action_repeat=1), tmp_path, lambda done, total: None)
    (kept,) = tmp_path.iterdir()
    for damage in ("{", "[]"):  # measured again
        kept.write_text(damage)
        with pytest.raises(pytest.fail.Exception):
            random_score.random_score(COUNTING, tmp_path, lambda done, total: None)
    monkeypatch.setattr(random_score, "simulator_versions", lambda name: {"mujoco": "another"})
    for config in (COUNTING, EnvConfig("dmc/walker-walk")):  # what another simulator gave counts no more
        with pytest.raises(pytest.fail.Exception):
            random_score.random_score(config, tmp_path, lambda done, total: None)


def test_only_sizes_that_physics_has_make_another_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PickCube's `study` shift has a tint, and cubes of other sizes; walker-walk's is of the picture alone."""
    asked = []

    def noted(config: EnvConfig, episodes: int, **_: object) -> RandomScore:
        asked.append(random_score.unseen(config))
        versions = random_score.simulator_versions(config.name)
        return RandomScore(config.name, config.action_repeat, episodes, 0.0, 1.0, "", versions)

    monkeypatch.setattr(random_score, "measure", noted)
    cube = EnvConfig("maniskill/PickCube-v1", action_repeat=1, shifts="study", severity=0.5)
    tinted = replace(cube, factors=("tint",))
    for config in (cube, tinted, cube, replace(cube, severity=1.0), tinted):
        random_score.random_score(config, tmp_path, lambda done, total: None)
    assert [(c.shifts, c.severity) for c in asked] == [("physical_size", 0.5), ("none", 0.5), ("physical_size", 1.0)]
    walker = EnvConfig("dmc/walker-walk", shifts="study")
    assert random_score.random_score(walker, tmp_path, lambda done, total: None) in random_score.stored()


def test_under_other_sizes_the_command_says_so() -> None:
    sized = EnvConfig("dmc/cartpole-swingup", max_steps=50, shifts="physical_size+noise", severity=1.0)
    plain, shifted = (random_score.measure(c, 4) for c in (replace(sized, shifts="none"), sized))
    assert shifted.command.endswith("--episodes 4 --shift physical_size --severity 1 --bands interleaved")
    assert plain.mean != shifted.mean


def test_the_study_s_tasks_are_stored_with_the_command() -> None:
    scores = {score.task: score for score in random_score.stored()}
    assert scores.keys() == {f"dmc/{task}" for task in STUDY}
    for task, score in scores.items():
        assert score.command == f"mbrl-pvr envs random-score {task} --action-repeat 2 --episodes {score.episodes}"
        assert score.episodes >= 2500 and 0 <= score.mean < 200 and {"dm_control", "mujoco"} == score.versions.keys()


def test_a_stored_score_is_what_its_command_gives() -> None:
    """Few episodes of the same stream lie within four standard errors."""
    stored = next(score for score in random_score.stored() if score.task == "dmc/cartpole-swingup")
    few = random_score.measure(EnvConfig(stored.task, action_repeat=2), 6)
    assert abs(few.mean - stored.mean) < 4 * stored.std / np.sqrt(6)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["envs", "random-score", "counting/default", "--action-repeat", "2", "--episodes", "3"]
    assert main([*words, "--json"]) == 0
    printed = RandomScore(**json.loads(capsys.readouterr().out))
    assert printed == mbrl_pvr.random_score("counting/default", action_repeat=2, episodes=3)
    assert main(words) == 0
    assert f"counting/default: {printed.mean:.4g} (95 % of the mean" in capsys.readouterr().out
    assert main(["envs", "random-score", "counting/default", "--episodes", "0"]) == 2


def test_tasks_of_choices_and_of_sparse_rewards_have_scores_too(capsys: pytest.CaptureFixture[str]) -> None:
    score = mbrl_pvr.random_score("gym:CartPole-v1", episodes=2)
    assert score.action_repeat == 1 and score.mean > 5  # a step upright is worth 1
    assert main(["envs", "random-score", "maniskill/StackPyramid-v1", "--episodes", "1"]) == 2
    assert "Give env.reward=sparse" in capsys.readouterr().err
