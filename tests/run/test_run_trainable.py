"""Runs in which a part of the encoder learns, and runs on patch features."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl_pvr import trainer
from mbrl_pvr.config import load_config
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.session import load_trained, open_session

VIT = ("encoder.truncate=2", "encoder.input_size=32", "env.size=48")


@pytest.mark.parametrize("trainable", ["1", "lora"])
def test_the_tail_learns_and_the_run_resumes_bitwise(make_config: Any, tmp_path: Path, trainable: str) -> None:
    config = make_config(*VIT, f"encoder.trainable={trainable}", "agent.feature_norm=running", encoder="random_vits16")
    seen: list[int] = []
    with open_session(config, tmp_path / "whole") as session, trainer._StopFlag() as stop:
        tail = session.features.tail
        assert tail is not None and session.features.encoder is not None
        held = torch.zeros(1, *session.features.encoder.feature_shape)
        before = tail(held).detach()
        session.features.encoder.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
        trainer._loop(session, stop)
        change = (tail(held) - before).abs().max()
        columns = {name: rows.shape[2:] for name, rows in session.replay._data.items()}
        collected = session.collector.ticks
    assert change > 1e-4
    assert columns["pixels" if trainable == "lora" else "feature"] == tuple(held.shape[1:])
    assert collected <= sum(seen) < collected + 200  # once a frame, those of evaluation included
    with load_trained(tmp_path / "whole") as loaded:
        assert loaded.features.tail is not None
        trained = loaded.features.tail(held)
    torch.testing.assert_close((trained - before).abs().max(), change)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    newest = sorted((tmp_path / "cut" / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    trainer.train(config, tmp_path / "cut")
    whole, cut = fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "cut")
    own = {"manifest.json", "status.json"}  # the first was run by hand
    assert [part for part in whole.keys() - own if whole[part] != cut.get(part)] == []


@pytest.mark.parametrize("patches", ["each", "attention"])
def test_patches_reach_the_agent(make_config: Any, tmp_path: Path, patches: str) -> None:
    config = make_config(*VIT, "encoder.feature=patches", f"agent.patches={patches}", encoder="random_vits16")
    trainer.train(config, tmp_path / "run")
    with load_trained(tmp_path / "run") as loaded:
        assert loaded.features.shapes.feature == (4, 384)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["encoder=random_vits16", "encoder.trainable=13"], "trainable=13.*12 blocks"),
        (["encoder=random_vits16", "encoder.trainable=most"], "encoder.trainable wants"),
        (["encoder=scratch", "encoder.trainable=1"], "encoder.trainable means nothing"),
        (["encoder=random_vits16", "encoder.truncate=[2,12]", "encoder.trainable=3"], "leaves layer 2 frozen"),
    ],
)
def test_what_cannot_learn_is_refused_before_anything_starts(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(overrides)
