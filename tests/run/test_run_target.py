"""Runs of DreamerV3 that reconstruct frames of which they see features alone: replay, resuming, film, memory."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl_pvr import film, pretraining, recording, session, trainer
from mbrl_pvr.build import EnvFacts, build_features, planned_shapes
from mbrl_pvr.config import RunConfig, load_config, shrink
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.replay import row_bytes
from mbrl_pvr.session import load_trained, open_session
from world_models.frames import averaged
from world_models.types import ObsShapes

COMMON = ["threads=1", "sinks=[]", "eval.video=false", "random_steps=60", "agent.batch_length=16", "steps=110"]
VIT = ["encoder=random_vits16", "encoder.truncate=2", "encoder.input_size=32", "env.size=48"]


def make(*overrides: str, agent: str = "dreamerv3_tiny") -> RunConfig:
    return shrink(load_config([f"agent={agent}", *COMMON, *overrides]))


def shown(monkeypatch: pytest.MonkeyPatch, run: Path) -> list[film.Film]:
    """What `record` films of a run."""
    seen: list[film.Film] = []
    real = film.frames
    monkeypatch.setattr(film, "frames", lambda films, context: seen.extend(films) or real(films, context))
    recording.record(run, episodes=2, points=recording.Points(3))
    assert [path.name for path in (run / "videos").iterdir()] == ["open_loop_step_000000110.mp4"]
    return seen


def assert_resumes_bitwise(config: RunConfig, whole: Path) -> None:
    """The run once more from its last checkpoint but one; `whole` was run by hand, so its status is not compared."""
    cut = whole.with_name("cut")
    shutil.copytree(whole, cut)
    shutil.rmtree(sorted((cut / "checkpoints").iterdir())[-1])
    trainer.train(config, cut)
    one, two = fingerprint(whole), fingerprint(cut)
    assert [part for part in one.keys() - {"manifest.json", "status.json"} if one[part] != two.get(part)] == []


@pytest.mark.timeout(300)
def test_a_run_on_a_frozen_encoder_reconstructs_frames(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each frame of 96 pixels is encoded once, whole, and kept once, averaged to 64 pixels."""
    task = ["env=dmc/finger-spin", "env.render=fast", "env.size=96", "env.num=2"]
    config, run = make(*task, f"encoder={encoder_file}", "agent.target=pixels"), tmp_path / "whole"
    frames: list[np.ndarray] = []
    encoded: list[int] = []
    with open_session(config, run) as opened, trainer._StopFlag() as stop:
        features, collector, replay = opened.features, opened.collector, opened.replay
        assert features.encoder is not None and features.shapes.drawn_only
        store = collector._store
        monkeypatch.setattr(collector, "_store", lambda step, action: frames.append(step.frame) or store(step, action))
        features.encoder.register_forward_hook(lambda _, args, __: encoded.append(len(args[0])))
        trainer._loop(opened, stop)
        kept = {name: replay._data[name][: replay.ticks] for name in ("feature", "pixels")}
        assert len(frames) == replay.ticks and 2 * len(frames) <= sum(encoded) < 2 * len(frames) + 100  # evaluation
        for t in (0, 7, len(frames) - 1):
            assert (kept["pixels"][t] == averaged(torch.from_numpy(frames[t]), 64, 64).numpy()).all()
            with torch.inference_mode():
                wanted = features.encoder(torch.from_numpy(frames[t])).half().numpy()
            assert (kept["feature"][t] == wanted).all()
        assert kept["pixels"].shape[1:] == (2, 64, 64, 3) and kept["pixels"].std() > 10
        actions = collector.env.action_spec.dim
    numbers = 2 * (32 + config.agent.carried)  # of the feature and the state, float16
    size = numbers + 64 * 64 * 3 + 4 * actions + 4 + 4 + 3  # and action, reward, age, flags
    assert f"steps of {size:,} bytes" in capsys.readouterr().err
    assert_resumes_bitwise(config, run)

    films = shown(monkeypatch, run)
    for one in films:
        assert one.truth.shape == one.model.shape == (21, 64, 64, 3) and one.truth.std() > 10 and one.model.std() > 0
    data = pretraining.run_frames(run)  # what such a run kept can train an autoencoder
    assert len(data.frames) == 2 * len(frames)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trainable", ["1", "lora"])
def test_a_tail_learns_by_reconstructing_frames(
    trainable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block on kept tokens beside kept frames of 32 pixels; or LoRA on frames of 32 pixels, drawn at 16."""
    side = 16 if trainable == "lora" else 32
    asked = [f"encoder.trainable={trainable}", "agent.target=pixels", f"agent.target_size={side}"]
    config, run = make("env=counting/default", *VIT, *asked), tmp_path / "whole"
    with open_session(config, run) as opened, trainer._StopFlag() as stop:
        tail = opened.features.tail
        assert tail is not None and opened.features.encoder is not None
        held = torch.zeros(1, *opened.features.encoder.feature_shape)
        before = tail(held).detach()
        trainer._loop(opened, stop)
        assert (tail(held) - before).abs().max() > 1e-5
        columns = {name: rows.shape[2:] for name, rows in opened.replay._data.items()}
    assert columns["pixels"] == (32, 32, 3) and ("feature" in columns) == (trainable == "1")
    assert_resumes_bitwise(config, run)
    with load_trained(run) as loaded:
        assert loaded.features.shapes == planned_shapes(config)
    films = shown(monkeypatch, run)
    assert all(one.truth.shape == one.model.shape == (len(one.truth), side, side, 3) for one in films)


def test_dreamerv3_trains_from_small_frames(tmp_path: Path) -> None:
    config = make("env=counting/default", "encoder=scratch", "env.size=32")
    assert trainer.train(config, tmp_path / "run").steps == config.steps


@pytest.mark.parametrize(
    ("overrides", "shapes"),
    [
        (["agent=dreamerv3"], ObsShapes(feature=(384,))),
        (["agent=dreamerv3", "agent.target=none"], ObsShapes(feature=(384,))),
        (
            ["agent=dreamerv3", "agent.target=pixels", "agent.target_size=48"],
            ObsShapes(feature=(384,), pixels=(48, 48, 3), drawn_only=True),
        ),
        (
            ["agent=dreamerv3", "agent.target=pixels", "agent.target_size=16", "encoder.trainable=1"],
            ObsShapes(feature=(5, 384), pixels=(16, 16, 3), drawn_only=True),
        ),
        (
            ["agent=dreamerv3", "agent.target=pixels", "agent.target_size=16", "encoder.trainable=all"],
            ObsShapes(pixels=(32, 32, 3)),
        ),
        (["agent=tdmpc2"], ObsShapes(feature=(384,))),
        (["agent=tdmpc2", "encoder.trainable=1"], ObsShapes(feature=(5, 384))),
        (["agent=tdmpc2", "encoder.trainable=all", "env.proprio=true"], ObsShapes(pixels=(32, 32, 3), proprio=1)),
    ],
)
def test_what_is_planned_is_what_is_kept(overrides: list[str], shapes: ObsShapes) -> None:
    """So memory is asked for, before anything is built, for the frames that will be kept, and for no others."""
    config = load_config([*VIT, *overrides])
    assert planned_shapes(config) == shapes
    facts = EnvFacts(action_dim=2, discrete=False, proprio_dim=1, episode_length=500)
    assert build_features(config, facts, torch.device("cpu")).shapes == shapes


def test_a_start_asks_for_the_memory_of_reconstructed_frames(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(session, "require_memory", lambda rows, size: asked.append(size))
    for target in ("auto", "pixels"):
        session.check_start(make(f"encoder={encoder_file}", f"agent.target={target}"), tmp_path / "run")
    assert asked[1] - asked[0] == 64 * 64 * 3


@pytest.mark.parametrize(
    ("shapes", "carried", "size"),
    [
        (ObsShapes(feature=(768,)), False, 1571),
        (ObsShapes(feature=(768,)), True, 1571 + 4160),
        (ObsShapes(pixels=(64, 64, 3)), False, 12_323),
        (ObsShapes(feature=(768,), pixels=(64, 64, 3), drawn_only=True), True, 1571 + 12_288 + 4160),
    ],
)
def test_bytes_of_a_step_of_dreamerv3(shapes: ObsShapes, carried: bool, size: int) -> None:
    """The figures of benchmarks/README.md: 6 actions, the 12M model's 2048 + 32 numbers of state in float16."""
    config: Any = load_config(["agent=dreamerv3", f"agent.context={'replayed' if carried else 'zero'}"])
    assert row_bytes(shapes, 6, config.agent.carried) == size
