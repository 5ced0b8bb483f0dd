"""`encoder.precision` and `encoder.compile`: chosen once, written down, kept when a run goes on."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl_pvr import build, trainer
from mbrl_pvr.config import identity, load_config
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.session import load_trained, open_session
from pvr_zoo import fast

VIT = ("encoder.truncate=1", "encoder.input_size=32", "env.size=48")


def test_what_auto_chose_is_kept_by_a_run_that_goes_on(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(*VIT, "encoder.precision=auto", encoder="random_vits16")
    monkeypatch.setattr(fast, "_speedup", lambda exact, half, batch: 2.0)
    with open_session(config, tmp_path) as session, trainer._StopFlag() as stop:
        stop.requested = True
        with pytest.raises(trainer.Interrupted):
            trainer._loop(session, stop)
        facts = session.run.manifest["encoder_precision"]
        assert session.features.encoder is not None
        assert session.features.encoder.identity["precision"] == "bfloat16"
    assert facts["name"] == "bfloat16" and facts["speedup"] == 2.0 and 1e-5 < facts["error"] < 0.05
    assert "bfloat16 (bfloat16 is 2 times as fast here)" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(fast, "_speedup", lambda exact, half, batch: 0.01)  # another machine, another day
    with open_session(config, tmp_path) as session:
        assert session.run.manifest["encoder_precision"] == facts
        parameters = session.features.encoder.parameters()
        assert {p.dtype for p in parameters} == {torch.bfloat16}
    with load_trained(tmp_path) as trained:
        assert trained.features.precision is not None and trained.features.precision.name == "bfloat16"


def test_float32_is_the_default_and_probes_nothing(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "_speedup", None)
    with open_session(make_config(*VIT, encoder="random_vits16"), tmp_path) as session:
        assert session.features.precision == fast.Precision("float32")
        assert "precision" not in session.run.manifest["encoder"]
        assert session.run.manifest["encoder_compiled"] is False


def test_precision_is_part_of_a_run_and_compilation_is_not() -> None:
    base = load_config()
    assert identity(load_config(["encoder.compile=on"])) == identity(base)
    assert identity(load_config(["encoder.precision=bfloat16"])) != identity(base)


@pytest.mark.parametrize("beside", ["encoder=state", "encoder=scratch", "encoder.trainable=all"])
@pytest.mark.parametrize("key", ["encoder.precision=auto", "encoder.compile=on"])
def test_keys_that_would_change_nothing_are_refused(key: str, beside: str) -> None:
    with pytest.raises(ConfigError, match="means nothing with"):
        load_config([key, beside])


@pytest.mark.parametrize(
    ("setting", "device", "wanted"),
    [("auto", "cpu", False), ("auto", "cuda", True), ("on", "cpu", True), ("off", "cuda", False)],
)
def test_only_a_gpu_compiles_by_itself(
    monkeypatch: pytest.MonkeyPatch, setting: str, device: str, wanted: bool
) -> None:
    monkeypatch.setattr(build, "compiler_lacks", list)
    config = load_config([f"encoder.compile={setting}"])
    assert build.pick_encoder_compile(config, torch.device(device)) is wanted
    state = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, name="state"))
    assert build.pick_encoder_compile(state, torch.device(device)) is False
