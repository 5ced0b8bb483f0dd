"""A small study in the counting environment, and one whose runs are stand-ins that take no time."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr import api
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.storage import sealed_json
from mbrl_pvr.study.cells import Run, Study, load_study
from mbrl_pvr.study.engine import Job
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.folder import log_file, open_study

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
SMALL = Resources(cores=1, memory=0.01)  # of what runs in a moment


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
        (folder / "manifest.json").write_bytes(sealed_json({"format": 1}))

    return pretend


@pytest.fixture
def make_jobs(study: Study, folder: Path, tmp_path: Path) -> Callable[..., list[Job]]:
    """Jobs that run a few lines of Python each in place of a run; `place` is a folder for their files."""

    def make(*codes: str, resources: Resources = SMALL) -> list[Job]:
        head = f"import os, signal, sys, time; from pathlib import Path; place = Path({str(tmp_path)!r}); "
        return [
            Job(run, [sys.executable, "-S", "-c", head + code], log_file(folder, run), resources)
            for run, code in zip(study.runs, codes, strict=False)
        ]

    return make


@pytest.fixture
def handlers() -> Iterator[None]:
    """Handlers of signals as they were."""
    old = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    yield
    for s, handler in old.items():
        signal.signal(s, handler)


Content = Callable[[Path], dict[str, Any]]
Results = Callable[[Study, Callable[[Run], Path]], dict[str, Any]]


@pytest.fixture
def results(content: Content) -> Results:
    """All that runs came to. A worker that is asked to stop saves, so that replay may be cut into other files."""

    def results(study: Study, place: Callable[[Run], Path]) -> dict[str, Any]:
        return {run.name: (content(place(run)), fingerprint(place(run)).get("latents.npz")) for run in study.runs}

    return results


@pytest.fixture
def undisturbed(results: Results) -> Callable[[Study, Path], dict[str, Any]]:
    """The same of runs that are each done alone, in this process."""

    def undisturbed(study: Study, path: Path) -> dict[str, Any]:
        for run in study.runs:
            folder = path / run.name
            api.train(config=study.config(run), dir=folder)
            if (stage := study.kind(run).stages.record) is not None:
                api.record(folder, episodes=stage.episodes, starts=stage.starts, horizon=stage.horizon, debug=True)
        return results(study, lambda run: path / run.name)

    return undisturbed


@pytest.fixture
def queue(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of SLURM on PATH, which run what is submitted here; the folder of their jobs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "queue").mkdir()
    for name in ("sbatch", "srun", "scontrol", "sacct", "scancel"):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -S {root}/tests/modules/fake_slurm.py {name} "$@"\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "queue"))
    return tmp_path / "queue"
