"""NaN and infinity: a batch that holds some is refused, named and kept; a loss that is some ends the run unsaved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mbrl_pvr import checkpoint, trainer
from mbrl_pvr.cli.main import main
from mbrl_pvr.config import RunConfig, load_config, shrink
from mbrl_pvr.errors import IntegrityError, StorageError
from mbrl_pvr.finite import not_finite
from mbrl_pvr.runfolder import read_status
from mbrl_pvr.session import Session
from mbrl_pvr.tensorfile import load


def test_every_number_that_is_not_finite_is_counted_and_no_other() -> None:
    held = {
        "half": torch.tensor([[65504.0, -65504.0, 0.0]] * 2).half(),  # their difference is no half
        "single": torch.tensor([3.4e38, -3.4e38, 3.4e38]),  # nor is this sum a single
        "bytes": torch.zeros(3, dtype=torch.uint8),
    }
    assert not_finite(held) == {}
    for name in ("half", "single"):
        for value in (torch.nan, torch.inf, -torch.inf):
            bad = {k: v.clone() for k, v in held.items()}
            bad[name].view(-1)[1] = value
            assert not_finite(bad) == {name: 1}
    bad = {"half": torch.full((2, 2), torch.nan).half(), "single": torch.tensor([torch.inf, 1.0, -torch.inf])}
    assert not_finite(bad) == {"half": 4, "single": 2}


def make(agent: str, encoder: Path, *overrides: str) -> RunConfig:
    """A run in which every sequence that is learnt from comes from rows that a test can damage."""
    common = [f"agent={agent}", f"encoder={encoder}", "env=counting/default", "threads=1", "sinks=[]"]
    episodic = ["agent.episodic=true"] if agent.startswith("tdmpc2") else []
    return shrink(load_config([*common, *episodic, "eval.video=false", "random_steps=60", *overrides]))


def damage(session: Session, name: str, value: float) -> None:
    """Put a number into every row of one column of replay."""
    if name == "carried":
        assert session.replay._carried is not None
        session.replay._carried[:, 3] = value
    else:
        session.replay._data[name].reshape(len(session.replay._data[name]), -1)[:, 0] = value


def damaged_at(step: int, name: str, value: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Damage replay at an agent step; returns what the weights were before the update that follows."""
    real, seen = trainer._learn, {}

    def learn(session: Session) -> None:
        if session.collector.steps == step:
            damage(session, name, value)
            seen.update(agent=session.agent, state=session.agent.state_dict())
        real(session)

    monkeypatch.setattr(trainer, "_learn", learn)
    return seen


@pytest.mark.parametrize(
    ("agent", "column", "tensor", "value"),
    [
        ("tdmpc2_tiny", "reward", "reward", np.nan),
        ("tdmpc2_tiny", "feature", "obs.feature", np.inf),
        ("dreamerv3_tiny", "reward", "reward", -np.inf),
        ("dreamerv3_tiny", "carried", "carried", np.nan),
    ],
)
def test_a_batch_that_is_not_finite_is_refused_named_and_kept(
    agent: str,
    column: str,
    tensor: str,
    value: float,
    encoder_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "run"
    before = damaged_at(120, column, value, monkeypatch)
    with pytest.raises(IntegrityError, match=rf"agent step 120\): \d+ of [\d,]+ numbers in {tensor} ") as caught:
        trainer.train(make(agent, encoder_file), path)
    (kept,) = path.glob("refused_batch_*")
    assert f"The batch is in {kept.name}" in caught.value.hint and len(str(caught.value).splitlines()) == 2
    stored = load(kept)
    assert not_finite(stored).keys() == {tensor} and {"obs.feature", "obs.is_first", "action"} <= stored.keys()
    with safe_open(kept, "pt") as file:
        assert file.metadata()["not_finite"] == tensor and file.metadata()["step"] == "120"
    after = before["agent"].state_dict()
    assert all(torch.equal(after[k], v) for k, v in before["state"].items()), "nothing was learnt from it"
    assert read_status(path)["state"] == "failed"
    monkeypatch.undo()
    assert trainer.resume(path).steps == 200


def test_a_full_disk_does_not_hide_what_was_found(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("No space left on device")

    damaged_at(120, "reward", np.nan, monkeypatch)
    monkeypatch.setattr("mbrl_pvr.finite.write_atomic", full)
    with pytest.raises(IntegrityError, match=r"numbers in reward.*\n.*could not be saved: No space left on device"):
        trainer.train(make("tdmpc2_tiny", encoder_file), tmp_path / "run")


def test_the_command_ends_with_the_status_of_damaged_data(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged_at(80, "reward", np.nan, monkeypatch)
    monkeypatch.setattr("mbrl_pvr.api.configure", lambda *_, **__: make("tdmpc2_tiny", encoder_file))
    assert main(["train", "--dir", str(tmp_path / "run")]) == 3
    said = capsys.readouterr().err
    assert "NaN or infinity in the batch of update" in said and "Traceback" not in said


@pytest.mark.parametrize("agent", ["tdmpc2_tiny", "dreamerv3_tiny"])
def test_a_loss_that_is_not_finite_is_named_and_its_weights_are_not_saved(
    agent: str, encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are damaged between the checkpoint at 100 and the one at 150, just before an update."""
    real = trainer._learn

    def learn(session: Session) -> None:
        if session.collector.steps >= 110 and trainer._due(session):
            with torch.no_grad():
                next(iter(session.agent.model.parameters())).fill_(torch.nan)  # type: ignore[attr-defined]
        real(session)

    monkeypatch.setattr(trainer, "_learn", learn)
    with pytest.raises(IntegrityError, match=r"loss.* became NaN or infinite at update \d+ \(agent step 11\d\)"):
        trainer.train(make(agent, encoder_file), tmp_path / "run")
    saved = checkpoint.latest(tmp_path / "run")
    assert saved is not None and saved.step == 100 and not_finite(saved.tensors("agent")) == {}
    assert not list((tmp_path / "run").glob("refused_batch_*"))  # what was learnt from was sound
