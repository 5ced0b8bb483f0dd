"""`precision`: what a probe decides, that it decides once, and that runs in bfloat16 resume bit for bit."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl_pvr import precision, trainer
from mbrl_pvr.config import RunConfig, identity, load_config
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.session import load_trained, open_session
from pvr_zoo import fast

Content = Callable[[Path], dict[str, Any]]
VIT = ("encoder=random_vits16", "encoder.truncate=2", "encoder.input_size=32", "env.size=48")


@pytest.fixture
def make(make_config: Any) -> Callable[..., RunConfig]:
    """A short run of either agent."""

    def make(agent: str, *overrides: str) -> RunConfig:
        short = [] if agent.startswith("tdmpc2") else ["agent.batch_length=16"]
        config: RunConfig = make_config("steps=90", *short, *overrides, agent=agent)
        return config

    return make


def timed(monkeypatch: pytest.MonkeyPatch, look: float, update: float) -> list[str]:
    """Make up how many times as fast bfloat16 is, and note what was called in it; the calls happen."""
    seen: list[str] = []

    def seconds(call: partial[object]) -> float:
        call()
        agent = getattr(call.func, "__self__", None)
        if (call.args[0] if agent is None else agent.precision) == "float32":
            return 1.0
        seen.append("look" if agent is None else "update")
        return 1 / (look if agent is None else update)

    monkeypatch.setattr(fast, "_seconds", seconds)
    return seen


@pytest.mark.parametrize(
    ("look", "update", "taken", "calls"),
    [
        (3.0, 1.5, "bfloat16", ["look"] * 2 + ["update"] * 3),
        (3.0, 1.1, "float32", ["look"] * 2 + ["update"] * 3),
        (0.01, 2.0, "float32", ["look"] * 2),
    ],
)
@pytest.mark.parametrize("agent", ["tdmpc2_tiny", "dreamerv3_tiny"])
def test_what_auto_chose_is_kept_by_a_run_that_goes_on(
    make: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    agent: str,
    look: float,
    update: float,
    taken: str,
    calls: list[str],
) -> None:
    """Where it is hopeless no update is made; a run that goes on, and an evaluation, measure nothing."""
    config, seen = make(agent, "precision=auto"), timed(monkeypatch, look, update)
    speedup = pytest.approx(update if len(calls) > 2 else look)
    with open_session(config, tmp_path) as session, trainer._StopFlag() as stop:
        stop.requested = True
        with pytest.raises(trainer.Interrupted):
            trainer._loop(session, stop)
        assert session.run.manifest["precision"] == {"name": taken, "speedup": speedup}
        assert session.agent.precision == taken  # type: ignore[attr-defined]
    assert seen == calls
    assert f"updates: {taken} (bfloat16 is" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(precision, "ratio", None)  # another machine, another day
    with open_session(config, tmp_path) as session:
        assert session.agent.precision == taken  # type: ignore[attr-defined]
    with load_trained(tmp_path) as trained:
        assert trained.agent.precision == taken  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("agent", "overrides"),
    [
        ("tdmpc2_tiny", [*VIT, "encoder.trainable=1", "agent.feature_norm=running"]),
        ("dreamerv3_tiny", ["encoder=scratch", "env=counting/discrete"]),
        ("dreamerv3_study", ["encoder=state"]),
    ],
)
def test_a_probe_leaves_no_trace(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Content, agent: str, overrides: list[str]
) -> None:
    """Neither in generators nor in an encoder's end that learns; every kind of observation is made up."""
    trainer.train(make(agent, *overrides), tmp_path / "plain")
    assert timed(monkeypatch, 3.0, 1.0) == []
    trainer.train(make(agent, *overrides, "precision=auto"), tmp_path / "probed")
    plain, probed = content(tmp_path / "plain"), content(tmp_path / "probed")
    assert [part for part in plain if plain[part] != probed[part]] == []


@pytest.mark.parametrize("agent", ["tdmpc2_tiny", "dreamerv3_tiny"])
def test_a_run_in_bfloat16_is_another_and_resumes_bitwise(make: Any, tmp_path: Path, agent: str) -> None:
    config = make(agent, "precision=bfloat16")
    trainer.train(make(agent), tmp_path / "float32")
    trainer.train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(sorted((tmp_path / "cut" / "checkpoints").iterdir())[-1])
    trainer.train(config, tmp_path / "cut")
    plain, whole, cut = (fingerprint(tmp_path / name) for name in ("float32", "whole", "cut"))
    assert [part for part in whole if whole[part] != cut.get(part)] == []
    assert plain["metrics.jsonl"] != whole["metrics.jsonl"]
    with load_trained(tmp_path / "whole") as trained:
        assert trained.run.manifest["precision"] == {"name": "bfloat16", "speedup": None}
        assert {value.dtype for value in trained.agent.state_dict().values()} <= {torch.float32, torch.int64}


def test_float32_is_the_default_and_probes_nothing(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "ratio", None)
    with open_session(make("dreamerv3_tiny"), tmp_path) as session:
        assert session.run.manifest["precision"] == {"name": "float32", "speedup": None}


def test_precision_is_part_of_a_run() -> None:
    assert identity(load_config(["precision=bfloat16"])) != identity(load_config())
