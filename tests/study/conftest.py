"""A small study in the counting environment, and one whose runs are stand-ins that take no time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.study.cells import Study, load_study
from mbrl_pvr.study.folder import open_study

TINY = """
name: tiny
set: {env: counting/default, sinks: [], eval.video: false, agent.episodic: true, random_steps: 60, steps: 120}
stages:
  record: {episodes: 1, starts: 2, horizon: 3}
resources: {cores: 1, memory: 0.1}
retries: 1
parts:
  main:
    grid: {agent: [tdmpc2], encoder: [embedded], seed: [1, 2]}
  more:
    runs: [{agent.lr: 1e-3, seed: 3}, {agent.lr: 2e-3, seed: 4}]
    stages: {}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The file of four runs of some seconds, with --debug; two of them are recorded."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study of that file, composed once."""
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(TINY)
    return load_study(path, debug=True)


@pytest.fixture
def folder(tmp_path: Path, study: Study) -> Path:
    """That study's folder, before its first run."""
    with open_study(tmp_path / "dir", study):
        pass
    return tmp_path / "dir"


@pytest.fixture
def pretend() -> Callable[..., None]:
    """Writes what a run looks like at some step."""

    def pretend(folder: Path, step: int, state: str = "running", **more: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "status.json").write_text(json.dumps({"state": state, "step": step, "checkpoint": None, **more}))

    return pretend
