"""How a run starts: what is refused before anything is written, and that a start that fails leaves nothing behind."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mbrl_pvr import trainer
from mbrl_pvr.errors import Unavailable


def test_a_run_sends_its_curves_where_the_key_says(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[tuple[int, dict[str, float]]] = []
    online = SimpleNamespace(log=lambda values, step: points.append((step, values)), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: online))
    trainer.train(make_config("sinks=[wandb]"), tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    written = {(row["step"], name) for row in map(json.loads, lines) for name in row if "/" in name}
    assert written <= {(step, name) for step, values in points for name in values}
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_sink_that_is_not_installed_stops_the_run_before_it_begins(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Unavailable, match=r'pip install "mbrl-pvr\[wandb\]"'):
        trainer.train(make_config("sinks=[wandb]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
