"""Trajectory banks: what is stored is what happened, a bank is read as it was written, agents learn from it alone."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl_pvr import api, bank_making, checkpoint, envs, trainer
from mbrl_pvr.bank import Bank
from mbrl_pvr.cli.main import main
from mbrl_pvr.config import load_config, shrink
from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.errors import ConfigError, IntegrityError
from mbrl_pvr.recording import Points, record

STEPS = 12  # agent steps of an episode
TASK = EnvConfig("dmc/pendulum-swingup", render="fast", max_steps=STEPS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight trajectories of a pendulum, each also under other colours."""
    path = tmp_path_factory.mktemp("banks") / "pendulum"
    bank_making.make_bank(TASK, path, episodes=8, shifts=["color_hard"])
    return path


@pytest.fixture
def make_run(encoder_file: Path) -> Callable[..., Any]:
    """The debug version of a run that learns from a bank."""

    def make(bank: Path, *overrides: str, agent: str = "tdmpc2") -> Any:
        films = [] if "agent.policy=false" in overrides else ["eval.video=false"]
        common = ["threads=1", "sinks=[]", *films, f"encoder={encoder_file}"]
        return shrink(load_config([f"data={bank}", f"agent={agent}", *common, *overrides]))

    return make


def test_a_stored_state_gives_the_stored_picture_observation_and_next_reward(made: Path) -> None:
    bank = Bank.open(made)
    with envs.make(bank.env, num=1, seed=5, stream="elsewhere") as env:
        for number in (0, 1):  # random and held actions
            trajectory = bank.episode(number)
            assert trajectory.sim_state is not None and trajectory.proprio is not None
            for t in (0, 5):
                env.reset()
                env.call("set_sim_state", trajectory.sim_state[t])
                np.testing.assert_array_equal(env.render()[0], trajectory.frames[t])
                np.testing.assert_array_equal(env.call("proprio")[0], trajectory.proprio[t])
                step = env.step(trajectory.action[t + 1 : t + 2])
                np.testing.assert_array_equal(step.frame[0], trajectory.frames[t + 1])
                assert step.reward[0] == trajectory.reward[t + 1]


def test_what_a_bank_holds(made: Path) -> None:
    bank = Bank.open(made)
    assert len(bank) == 8 and bank.frames == 8 * (STEPS + 1) and bank.shifts == ("color_hard",)
    assert bank.kinds == {"random": 4, "held": 4}
    assert list(bank.episode(2, ("color_hard",)).looks) == ["color_hard"]
    for trajectory in bank:
        plain, hard = trajectory.looks["none"], trajectory.looks["color_hard"]
        assert plain.shape == hard.shape == (STEPS + 1, 64, 64, 3) and (plain != hard).mean() > 0.3
        assert not trajectory.action[0].any() and trajectory.reward[0] == 0
    held = bank.episode(1).action[1:, 0]
    assert 1 < len(np.unique(held)) <= STEPS / 2 + 1, "each action is held for two steps at least"
    assert len(np.unique(bank.episode(0).action[1:, 0])) == STEPS
    starts = {trajectory.proprio[0].tobytes() for trajectory in bank}
    assert len(starts) == 8


def test_a_bank_that_was_interrupted_goes_on_and_ends_the_same(made: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        bank_making.make_bank(TASK, tmp_path / "b", episodes=8, shifts=["color_hard"], progress=stop)
    with pytest.raises(ConfigError, match=r"this bank has 3 of its 8 episodes[\s\S]*Finish it with"):
        Bank.open(tmp_path / "b")
    again = bank_making.make_bank(TASK, tmp_path / "b", episodes=8, shifts=["color_hard"])
    assert again.id == Bank.open(made).id


def test_a_folder_holds_one_bank(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another bank is here: episodes: 8 -> 9"):
        bank_making.make_bank(TASK, made, episodes=9, shifts=["color_hard"])
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"the folder is not empty \(it holds thesis\.tex\)"):
        bank_making.make_bank(TASK, tmp_path, episodes=1)
    with pytest.raises(ConfigError, match="there is no trajectory bank here"):
        Bank.open(tmp_path)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    bank_making.make_bank(replace(TASK, max_steps=3), tmp_path / "b", episodes=1)
    path = tmp_path / "b" / "episode_00000.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="sha256"):
        Bank.open(tmp_path / "b").episode(0)


@pytest.mark.parametrize("agent", ["tdmpc2", "dreamerv3_tiny"])
def test_an_agent_learns_from_a_bank_and_resumes_exactly(
    agent: str, made: Path, make_run: Any, content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(made, agent=agent)
    trainer.train(config, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    bank = Bank.open(made)
    assert whole["meta"]["collector"]["steps"] == config.steps
    frames = np.frombuffer(whole["replay"]["reward"], np.float32)
    np.testing.assert_array_equal(frames, np.concatenate([t.reward for t in bank]))
    learn, seen = trainer._learn, []

    def stop_once(session: Any) -> None:
        learn(session)
        seen.append(session.collector.steps)
        if len(seen) == config.steps // 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_learn", stop_once)
        with pytest.raises(trainer.Interrupted):
            trainer.train(config, tmp_path / "stopped")
    trainer.resume(tmp_path / "stopped")
    stopped = content(tmp_path / "stopped")
    assert {k: whole[k] for k in whole if k != "meta"} == {k: stopped[k] for k in whole if k != "meta"}


@pytest.mark.parametrize("agent", ["tdmpc2", "dreamerv3_tiny"])
def test_a_world_model_learns_from_a_bank_without_a_policy(
    agent: str, made: Path, make_run: Any, tmp_path: Path
) -> None:
    config = make_run(made, "agent.policy=false", agent=agent)
    before, after = trained(replace(config, steps=1), tmp_path / "begun"), trained(config, tmp_path / "run")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    parts = {".".join(name.split(".")[:2]) for name in moved}
    if agent == "tdmpc2":
        assert {"model.encoder", "model.dynamics", "model.reward_head"} <= parts
        assert not parts & {"model.policy", "model.q", "model.target_q"}
    else:
        assert "model.rssm" in parts and not any(name.startswith(("actor", "critic")) for name in moved)
    assert np.isnan(trainer.resume(tmp_path / "run").eval_return), "a run that has finished says so"
    assert not (tmp_path / "run" / "episodes.jsonl").read_text()
    (plain, _) = record(tmp_path / "run", bank=made, episodes=2)
    with np.load(plain) as arrays:
        assert np.isnan(arrays["value"]).all() and np.isfinite(arrays["reward_pred"][:, 1:]).all()
    for ask in (lambda: api.evaluate(tmp_path / "run"), lambda: api.ood(tmp_path / "run", shifts="color_hard")):
        with pytest.raises(ConfigError, match=r"learned no policy[\s\S]*record .* --bank"):
            ask()
    with pytest.raises(ConfigError, match=r"agent\.policy=false[\s\S]*data=PATH"):
        load_config(["agent.policy=false"])
    with pytest.raises(ConfigError, match=r"eval\.every means nothing with agent\.policy=false"):
        load_config([f"data={made}", "agent.policy=false", "eval.every=7", "encoder=embedded"])


def trained(config: Any, path: Path) -> dict[str, torch.Tensor]:
    """The agent's state at the end of a run."""
    trainer.train(config, path)
    saved = checkpoint.latest(path)
    assert saved is not None
    return saved.tensors("agent")


def test_without_a_policy_dreamerv3_learns_the_same_world_model(made: Path, make_run: Any, tmp_path: Path) -> None:
    apart = ("agent.optimizer=adam", "agent.replay_value=0")  # one for each network, and no value moves the model
    both = trained(make_run(made, *apart, agent="dreamerv3_tiny"), tmp_path / "both")
    alone = trained(make_run(made, apart[0], "agent.policy=false", agent="dreamerv3_tiny"), tmp_path / "alone")
    for name in (name for name in both if name.startswith("model.")):
        torch.testing.assert_close(alone[name], both[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_environment_of_a_run_is_the_banks(made: Path, make_run: Any) -> None:
    config = load_config([f"data={made}", "encoder=embedded"])
    assert config.env.name == "dmc/pendulum-swingup" and config.env.render == "fast" and config.env.max_steps == STEPS
    with pytest.raises(ConfigError, match=r"env\.name=dmc/walker-walk, but this bank was made with dmc/pendulum"):
        load_config([f"data={made}", "env=dmc/walker-walk"])
    with pytest.raises(ConfigError, match=r"env\.action_repeat=4, but this bank was made with 2"):
        load_config([f"data={made}", "env.action_repeat=4"])
    with pytest.raises(ConfigError, match="frames of this bank have 64 pixels, the encoder sees 256"):
        load_config([f"data={made}", "encoder=random_resnet18"])
    assert load_config([f"data={made}", "encoder=random_resnet18", "encoder.input_size=56"]).env.size == 64
    with pytest.raises(ConfigError, match=r"random_steps means nothing with data="):
        load_config([f"data={made}", "random_steps=70"])
    assert load_config([f"data={made}", "steps=100"]).steps == 100, "random_steps is not read, and so not compared"
    with pytest.raises(ConfigError, match="there is no trajectory bank here"):
        load_config(["data=/nowhere"])


def test_another_content_and_too_small_a_replay_are_refused(made: Path, make_run: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the bank has 104 frames, replay\.capacity=100"):
        trainer.train(replace(make_run(made), replay=replace(make_run(made).replay, capacity=100)), tmp_path / "small")
    copy = tmp_path / "copy"
    bank_making.make_bank(TASK, copy, episodes=8)
    config = replace(make_run(copy), steps=80)
    trainer.train(config, tmp_path / "run")
    for path in copy.iterdir():
        path.unlink()
    bank_making.make_bank(TASK, copy, episodes=8, seed=3)
    (tmp_path / "run" / "status.json").unlink()  # as of a run that has not finished
    with pytest.raises(IntegrityError, match="the bank's content is"):
        trainer.train(config, tmp_path / "run")


def test_a_record_of_a_bank_has_a_file_for_each_look(made: Path, make_run: Any, tmp_path: Path) -> None:
    config = make_run(made)
    trainer.train(config, tmp_path / "run")
    bank = Bank.open(made)
    paths = record(tmp_path / "run", episodes=3, points=Points(2), bank=made)
    with pytest.raises(ConfigError, match="a bank has shifts of its own"):
        record(tmp_path / "run", bank=made, shift="color_easy")
    names = [f"latents_on_{bank.id}.npz", f"latents_on_{bank.id}_color_hard.npz"]
    assert [path.name for path in paths] == names
    plain, hard = (dict(np.load(path)) for path in paths)
    for i in range(3):
        trajectory = bank.episode(i)
        for shift, stored in (("none", plain), ("color_hard", hard)):
            np.testing.assert_array_equal(stored["frame"][i], trajectory.looks[shift])
            np.testing.assert_array_equal(stored["reward_true"][i], trajectory.reward)
            np.testing.assert_array_equal(stored["action"][i], trajectory.action)
            np.testing.assert_array_equal(stored["state"][i], trajectory.proprio)
    assert plain["state_names"].tolist() == ["orientation 0", "orientation 1", "velocity"]
    assert plain["starts"].tolist() == [2, 3, 4, 5, 7, 8, 9, 10]
    assert plain["open_loop_from"].shape == (3, 8, 33, plain["posterior"].shape[-1])
    for p, start in enumerate(plain["starts"]):
        ends = STEPS + 1 - start
        assert np.isfinite(plain["open_loop_from"][:, p, :ends]).all()
        assert np.isnan(plain["reward_open_loop_from"][:, p, ends:]).all()
    np.testing.assert_allclose(plain["open_loop_from"][:, 0, : STEPS - 1], plain["open_loop"][:, 2:], atol=1e-5)
    assert plain["posterior"].shape == hard["posterior"].shape and (plain["feature"] != hard["feature"]).mean() > 0.5
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".") and p.name != ".lock"]
    with pytest.raises(ConfigError, match=r"the bank is of another environment: env\.action_repeat=4 there, 2 here"):
        other = tmp_path / "other"
        bank_making.make_bank(replace(TASK, action_repeat=4, max_steps=3), other, episodes=1)
        record(tmp_path / "run", bank=other)


def test_an_expert_makes_half_of_a_bank(made: Path, make_run: Any, tmp_path: Path) -> None:
    """Frames may be larger than those that an encoder of 64 pixels learned from: others want larger ones."""
    trainer.train(replace(make_run(made), steps=80), tmp_path / "run")
    config = replace(TASK, max_steps=8, size=96)
    bank = bank_making.make_bank(config, tmp_path / "b", episodes=4, expert=tmp_path / "run")
    assert bank.kinds == {"random": 1, "held": 1, "noisy": 1, "expert": 1} and bank.episode(3).frames.shape[1] == 96
    (path,) = record(tmp_path / "run", episodes=1, points=Points(2), bank=tmp_path / "b")
    assert np.load(path)["feature"].shape == (1, 9, 32)
    with pytest.raises(ConfigError, match=r"the expert was trained with env\.size=64"):
        bank_making.make_bank(replace(config, size=32), tmp_path / "c", episodes=1, expert=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"the expert was trained with env\.action_repeat=2"):
        bank_making.make_bank(replace(config, action_repeat=1), tmp_path / "c", episodes=1, expert=tmp_path / "run")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    env = ["env=dmc/cartpole-balance", "env.max_steps=3", "env.render=fast"]
    assert main(["bank", "list"]) == 0 and "no banks here" in capsys.readouterr().out
    assert main(["bank", "make", *env, "--episodes", "2", "--shift", "color_easy"]) == 0
    out = capsys.readouterr().out
    assert "banks/dmc-cartpole-balance: 2 trajectories, 8 frames, id " in out
    assert main(["bank", "list"]) == 0
    assert "1 random, 1 held" in capsys.readouterr().out
    assert main(["bank", "make", *env, "steps=5"]) == 2 and "'steps' means nothing here" in capsys.readouterr().err
    assert main(["bank", "make", "env=dmc/cartpole-balance", "--shift", "objects"]) == 2
    assert "cannot draw objects" in capsys.readouterr().err
    assert len(api.list_banks()) == 1
