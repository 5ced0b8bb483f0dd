"""What one run does: each frame encoded once, aligned, repeatable; what it refuses."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import pvr_zoo
from mbrl_pvr import checkpoint, trainer
from mbrl_pvr.config import load_config
from mbrl_pvr.errors import ConfigError, EnvError, IntegrityError
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.replay import Replay
from mbrl_pvr.runfolder import RunFolder, read_status
from mbrl_pvr.session import Session, open_session
from mbrl_pvr.splits import Split, held_out_splits
from pvr_zoo.catalogue import count_flops


def rows(path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def test_every_frame_is_encoded_exactly_once(make_config: Any, tmp_path: Path) -> None:
    """Frames that passed through the encoder = frames that training collected + frames of the evaluation episodes."""
    config, seen = make_config("env.num=2"), []
    with open_session(config, tmp_path / "run") as session, trainer._StopFlag() as stop:
        assert isinstance(session.features.encoder, nn.Module)
        session.features.encoder.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
        trainer._loop(session, stop)
        collected = 2 * session.collector.ticks
        assert session.replay.ticks == session.collector.ticks
    episodes = pd.read_json(tmp_path / "run" / "episodes.jsonl", lines=True)
    evaluated = (episodes[episodes["kind"] == "eval"]["length"] + 1).sum()  # one environment: nobody idles
    assert collected > config.steps and len(episodes[episodes["kind"] == "eval"]) == 3
    assert sum(seen) == collected + evaluated


@pytest.mark.parametrize("catch_up", [True, False])
def test_updates_of_the_random_steps_are_made_or_left_out(make_config: Any, tmp_path: Path, catch_up: bool) -> None:
    """Half an update a step: with `catch_up` over all steps, otherwise over those after the random ones."""
    config = make_config("updates_per_step=0.5", f"catch_up={catch_up}".lower())
    made = {}
    with open_session(config, tmp_path / "run") as session:
        session.collector.start()
        while session.collector.steps < config.random_steps + 9:
            session.collector.send(explore_randomly=session.collector.steps < config.random_steps)
            trainer._learn(session)
            made[session.collector.steps] = session.updates
            session.collector.receive()
    first = config.random_steps // 2 if catch_up else 0
    assert made == {
        step: 0 if step < config.random_steps else first + (step - config.random_steps) // 2 for step in made
    }


def test_replay_holds_what_the_environment_did(make_config: Any, tmp_path: Path) -> None:
    """Its proprioception says frame number and sum of actions: every row is checked against it."""
    config = make_config("env.proprio=true", "env.num=2")
    with open_session(config, tmp_path / "run") as session:
        session.collector.start()
        for _ in range(60):
            session.collector.send(explore_randomly=True)
            session.collector.receive()
        data = session.replay._data
        total = np.zeros(2)
        for t in range(session.replay.ticks):
            count, first = data["proprio"][t, :, 0], data["is_first"][t]
            total = np.where(first, 0.0, total + data["action"][t].sum(-1))
            np.testing.assert_allclose(data["proprio"][t, :, 3], total, atol=1e-4)
            np.testing.assert_array_equal(count == 0, first)
            last = [sum(range(int(c) - 1, int(c) + 1)) if c else 0 for c in count]  # action repeat 2: two counts a step
            partial = [int(c) for c in count]  # an episode of odd length ends on the first of the two
            assert all(r in (a, b) for r, a, b in zip(data["reward"][t], last, partial, strict=True))
        assert data["is_last"].sum() > 4


def test_acting_sees_the_newest_stored_stack(make_config: Any, tmp_path: Path) -> None:
    config = make_config()
    with open_session(config, tmp_path / "run") as session:
        session.collector.start()
        for _ in range(30):
            session.collector.send(explore_randomly=True)
            session.collector.receive()
            obs, data, t = session.replay.latest(3), session.replay._data, session.replay.ticks - 1
            age = int(data["age"][t, 0])
            expected = [data["feature"][t - min(back, age), 0] for back in (2, 1, 0)]
            np.testing.assert_array_equal(obs.feature[0].numpy(), np.stack(expected))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(make_config: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer.train(make_config(f"seed={seed}", "steps=120"), tmp_path / name)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == b
    assert a["episodes.jsonl"] != c["episodes.jsonl"]


def test_the_folder_of_a_finished_run(make_config: Any, tmp_path: Path) -> None:
    config = make_config()
    result = trainer.train(config, tmp_path / "run")
    path = tmp_path / "run"
    assert result.steps == config.steps and read_status(path)["state"] == "finished"
    manifest = json.loads((path / "manifest.json").read_text())
    cost = manifest["cost"]
    replay = sum(part.stat().st_size for part in (path / "replay").rglob("*") if part.is_file())
    steps = json.loads((path / "status.json").read_text())["checkpoint"]
    assert 0.5 * replay < cost["replay_bytes_per_step"] * steps < 1.1 * replay  # segments have names and checksums
    assert cost["encoder_flops_per_frame"] == count_flops(pvr_zoo.create(config.encoder.name).spec) > 1e4
    assert manifest["encoder"]["weights_sha256"] and manifest["threads"] == 1 and manifest["versions"]["torch"]
    metrics = rows(path, "metrics.jsonl")
    assert [r["step"] for r in metrics] == sorted(r["step"] for r in metrics)
    assert all(r["frame"] == r["step"] * config.env.action_repeat for r in metrics)
    assert {r["kind"] for r in rows(path, "episodes.jsonl")} == {"train", "eval"}
    before = fingerprint(path)
    assert trainer.train(config, path).steps == config.steps  # finished: nothing more to do
    assert fingerprint(path) == before


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, count = make_config(), 0

    def poisoned(session: Session) -> None:
        nonlocal count
        count += 1
        real(session)
        if count == 90:
            with torch.no_grad():
                next(iter(session.agent.model.parameters())).fill_(torch.nan)  # type: ignore[attr-defined]

    real = trainer._learn
    monkeypatch.setattr(trainer, "_learn", poisoned)
    with pytest.raises((IntegrityError, EnvError), match=r"NaN|nan"):
        trainer.train(config, tmp_path / "run")
    assert read_status(tmp_path / "run")["state"] == "failed"
    monkeypatch.setattr(trainer, "_learn", real)
    assert trainer.resume(tmp_path / "run").steps == config.steps


def test_one_metric_that_is_not_finite_is_named(make_config: Any, tmp_path: Path) -> None:
    with open_session(make_config(), tmp_path / "run") as session:
        good = {"loss": torch.tensor(1.0), "value": torch.tensor(-2.0)}
        trainer._refuse_nan(good, session)
        with pytest.raises(IntegrityError, match=r"^value became NaN or infinite"):
            trainer._refuse_nan(good | {"value": torch.tensor(float("inf"))}, session)


def test_a_first_signal_is_answered_and_a_second_one_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with trainer._StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested and capfd.readouterr().err.startswith("stopping: the run is saved after this step")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_first_evaluation_is_left_at_once_and_the_run_then_goes_as_ever(
    make_config: Any, content: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.evaluate_agent

    def interrupted(*args: Any, **options: Any) -> Any:
        yield next(real(*args, **options))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "evaluate_agent", interrupted)
    with pytest.raises(trainer.Interrupted, match=r"before the first step.*mbrl-pvr resume"):
        trainer.train(make_config("eval.episodes=2"), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "status.json").read_text())["state"] == "interrupted"
    monkeypatch.setattr(trainer, "evaluate_agent", real)
    trainer.resume(tmp_path / "a")
    trainer.train(make_config("eval.episodes=2"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_the_burst_of_first_updates_is_left_at_once_and_done_again(
    make_config: Any, content: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real, sampled = make_config(), Replay.sample, []

    def interrupted(*args: Any) -> Any:
        sampled.append(None)
        if len(sampled) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(trainer, "BURST", 5)
    monkeypatch.setattr(Replay, "sample", interrupted)
    with pytest.raises(trainer.Interrupted, match=r"updates after the random steps.*mbrl-pvr resume"):
        trainer.train(config, tmp_path / "a")
    assert len(sampled) == 3
    monkeypatch.setattr(Replay, "sample", real)
    trainer.resume(tmp_path / "a")
    trainer.train(config, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_dead_simulator_ends_the_run_and_resume_completes_it(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real = make_config(), trainer._learn

    def murder(session: Session) -> None:
        if session.collector.steps == 120:
            os.kill(session.collector.env.pids[0], signal.SIGKILL)
        real(session)

    monkeypatch.setattr(trainer, "_learn", murder)
    with pytest.raises(EnvError, match="died"):
        trainer.train(config, tmp_path / "run")
    monkeypatch.setattr(trainer, "_learn", real)
    trainer.resume(tmp_path / "run")
    trainer.train(config, tmp_path / "undisturbed")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "undisturbed")


def test_an_evaluation_after_a_checkpoint_is_made_up_for_exactly_once(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run dies before, in or after the two episodes of step 100, which is a checkpoint too; the next one is 150."""
    config, real, learn, played = make_config(), trainer.evaluate_agent, trainer._learn, 0
    config = replace(config, steps=160, eval=replace(config.eval, episodes=2))

    def dying(session: Session, *args: Any, **options: Any) -> Any:
        for number, entry in enumerate(real(session, *args, **options)):
            if session.step == 100 and number == played:
                raise EnvError("killed")
            yield entry

    def after(session: Session) -> None:
        if session.collector.steps == 120 and played == 2:
            raise EnvError("killed")
        learn(session)

    trainer.train(config, tmp_path / "undisturbed")
    for played in range(3):
        path = tmp_path / str(played)
        with monkeypatch.context() as patch, pytest.raises(EnvError, match="killed"):
            patch.setattr(trainer, "evaluate_agent", dying)
            patch.setattr(trainer, "_learn", after)
            trainer.train(config, path)
        saved = checkpoint.latest(path)
        assert saved is not None and saved.step == 100
        trainer.resume(path)
        assert fingerprint(path) == fingerprint(tmp_path / "undisturbed")
        evaluated = [(r["step"], r["episode"]) for r in rows(path, "episodes.jsonl") if r["kind"] == "eval"]
        assert evaluated == [(step, number) for step in (0, 100, 160) for number in range(2)]
        assert [r["step"] for r in rows(path, "metrics.jsonl") if "eval/return" in r] == [0, 100, 160]


def test_a_run_that_goes_on_says_where_and_what_it_keeps(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, learn = make_config(), trainer._learn

    def interrupted(session: Session) -> None:
        if session.collector.steps == 120:
            os.kill(os.getpid(), signal.SIGINT)
        learn(session)

    monkeypatch.setattr(trainer, "_learn", interrupted)
    with pytest.raises(trainer.Interrupted):
        trainer.train(config, tmp_path / "run")
    monkeypatch.undo()
    assert "this run" not in capsys.readouterr().err
    ended = trainer.train(replace(config, threads=2), tmp_path / "run")
    told = capsys.readouterr().err
    assert "this run continues at step 121 of 200" in told and "kept from the start of this run: threads=1\n" in told
    monkeypatch.setattr(trainer, "open_session", None)  # nothing is opened again
    assert trainer.resume(tmp_path / "run") == ended
    assert capsys.readouterr().err == "this run has finished: 200 of 200 steps\n"


def test_the_last_evaluation_is_made_up_for_where_its_row_is_lost(make_config: Any, tmp_path: Path) -> None:
    config = make_config()
    ended, path = trainer.train(config, tmp_path / "run"), tmp_path / "run"
    before = fingerprint(path)
    saved = checkpoint.latest(path)
    assert saved is not None
    with RunFolder.attach(path) as run:
        run.journal("metrics.jsonl").cut(**saved.manifest["journals"]["metrics.jsonl"])
    assert trainer.train(config, path) == ended
    assert fingerprint(path) == before


def test_time_goes_on_where_the_run_goes_on(make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, learn = make_config(), trainer._learn

    def dying(session: Session) -> None:
        if session.collector.steps == 120:
            raise EnvError("killed")
        learn(session)

    monkeypatch.setattr(trainer, "_learn", dying)
    with pytest.raises(EnvError, match="killed"):
        trainer.train(config, tmp_path / "run")
    monkeypatch.undo()
    trainer.resume(tmp_path / "run")
    for name in ("metrics.jsonl", "episodes.jsonl"):
        elapsed = [row["time/elapsed"] for row in rows(tmp_path / "run", name)]
        assert elapsed == sorted(elapsed)


def test_an_episode_that_terminates_needs_an_episodic_agent(make_config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"episodes of counting/default terminate.*\n.*agent\.episodic=true"):
        trainer.train(make_config("agent.episodic=false"), tmp_path / "run")
    assert read_status(tmp_path / "run")["checkpoint"] is None


def test_a_run_that_cannot_start_leaves_none(make_config: Any, tmp_path: Path, encoder_file: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    config = make_config(encoder=str(encoder_file))
    damaged.write_bytes(encoder_file.read_bytes())
    config = make_config(encoder=str(damaged))
    damaged.write_bytes(encoder_file.read_bytes()[:-1000])
    with pytest.raises(Exception, match="damaged"):
        trainer.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()
    damaged.write_bytes(encoder_file.read_bytes())
    assert trainer.train(config, tmp_path / "run").steps == config.steps


def test_held_out_looks_are_as_strong_as_those_of_training() -> None:
    config = load_config(["env=dmc/walker-walk", "env.shifts=color_easy", "env.severity=0.3"])
    assert held_out_splits(config) == (Split("held_out", "color_easy", 0.3),)
    assert held_out_splits(config, ["color_hard"]) == (Split("held_out", "color_hard", 1.0),)
    several = held_out_splits(config, ["color_easy", "noise"], [0.5, 1.0])
    assert [(s.shift, s.severity) for s in several] == [
        *(("color_easy", 0.5), ("color_easy", 1.0)),
        *(("noise", 0.5), ("noise", 1.0)),
    ]
    with pytest.raises(ConfigError, match="no shift to test on"):
        held_out_splits(load_config(["env=dmc/walker-walk"]))


def test_each_factor_is_held_out_alone_too() -> None:
    some = ["env=dmc/walker-walk", "env.shifts=color_easy", "env.factors=[agent,floor]"]
    names = [split.name for split in held_out_splits(load_config(some), each_factor=True)]
    assert names == ["held_out", "held_out:agent", "held_out:floor"]  # background is not shifted in this run
    one = held_out_splits(load_config(some), ["noise"], each_factor=True)
    assert [split.name for split in one] == ["held_out"], "of a single factor it would be the same again"
    assert len({split.label for split in held_out_splits(load_config(some), each_factor=True)}) == 3
