"""A run that was stopped, by whatever, and resumed equals the run that never stopped: weights, replay, logs."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.config import RunConfig
from mbrl_pvr.doctor import compiler_lacks
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.runfolder import read_status

Content = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="session")
def children() -> Any:
    """Starts child processes from a server that has torch loaded, so that a kill does not cost an import."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["mbrl_pvr.trainer"])
    return context


def _train(config: RunConfig, path: Path) -> None:
    from mbrl_pvr.trainer import train

    os.setpgid(0, 0)
    train(config, path)


def _start(children: Any, config: RunConfig, path: Path) -> ForkServerProcess:
    child = children.Process(target=_train, args=(config, path))
    child.start()
    return child


def _finish(children: Any, config: RunConfig, path: Path, seconds: float = 120.0) -> None:
    child = _start(children, config, path)
    child.join(seconds)
    assert child.exitcode == 0


def _is_saving(path: Path) -> bool:
    return any(p.name.startswith(".") for p in (path / "checkpoints").glob("*")) if path.exists() else False


def _until(child: ForkServerProcess, holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition, or the end of the child, or some seconds."""
    end = time.monotonic() + seconds
    while child.is_alive() and not holds() and time.monotonic() < end:
        time.sleep(0.0005)


def _kill(child: ForkServerProcess, path: Path, aim: str, moment: float) -> str | None:
    """kill -9 after `moment` seconds: of any "time", once a "checkpoint" was there, or then at the next "saving".

    Returns how far the run had come, None where it had ended.
    """
    _until(child, lambda: not _is_saving(path))  # what the last kill left is removed
    if aim == "checkpoint":
        _until(child, lambda: _phase(path) == "checkpoint")
    _until(child, lambda: False, moment)
    if aim == "saving":
        _until(child, lambda: _is_saving(path))
    if not child.is_alive() or child.pid is None:
        return None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return _phase(path)


def _phase(path: Path) -> str:
    """How far a run had come: "saving", "checkpoint" (one was committed), "first steps", or "start"."""
    if _is_saving(path):
        return "saving"
    if read_status(path)["checkpoint"] is not None:
        return "checkpoint"
    return "first steps" if (path / "metrics.jsonl").exists() else "start"


def _killed_run(children: Any, config: RunConfig, path: Path, kills: int, rng: random.Random) -> list[str]:
    """Run to the end through up to `kills` kills, aimed at every phase in turn; where each landed."""
    landed: list[str] = []
    for number in range(kills):
        child = _start(children, config, path)
        phase = _kill(child, path, ("saving", "time", "checkpoint")[number % 3], rng.uniform(0.0, 3.0))
        if phase is None:
            break
        landed.append(phase)
    _finish(children, config, path)
    return landed


def _assert_same_end(a: dict[str, Any], b: dict[str, Any]) -> None:
    for part in a.keys() - {"manifest.json"}:  # names the commit of the checkout, which may move while the suite runs
        assert a[part] == b[part], f"{part} differs"


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(20, marks=pytest.mark.timeout(900)),
        pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_killed_runs_end_like_the_run_that_never_stopped(
    kills: int, children: Any, make_config: Any, tmp_path: Path
) -> None:
    """`kill -9` of the learner in every phase, over as many runs as it takes; each run ends the same."""
    config = make_config()
    _finish(children, config, tmp_path / "undisturbed")
    expected = fingerprint(tmp_path / "undisturbed")
    rng, landed, runs = random.Random(0), Counter[str](), 0
    while landed.total() < kills:
        path = tmp_path / f"killed{runs}"
        landed += Counter(_killed_run(children, config, path, min(5, kills - landed.total()), rng))
        _assert_same_end(fingerprint(path), expected)
        runs += 1
    assert min(landed["checkpoint"], landed["saving"]) >= kills // 10, landed


def test_pixels_proprio_and_several_environments_resume_too(children: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config("env.num=2", "env.proprio=true", encoder="scratch")
    _finish(children, config, tmp_path / "a")
    rng = random.Random(1)
    _killed_run(children, config, tmp_path / "b", 3, rng)
    _assert_same_end(fingerprint(tmp_path / "b"), fingerprint(tmp_path / "a"))


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(compiler_lacks()), reason=f"needs a compiler: {' '.join(compiler_lacks())}")
# of DreamerV3 two graphs are compiled twice, which takes minutes
@pytest.mark.parametrize("agent", ["tdmpc2", pytest.param("dreamerv3", marks=pytest.mark.slow)])
def test_a_compiled_run_resumes_bitwise(children: Any, make_config: Any, tmp_path: Path, agent: str) -> None:
    short = ["agent.batch_length=16", "steps=110"] if agent == "dreamerv3" else []
    config = replace(make_config(*short, agent=agent), compile="on")  # which a shrunk run is not by itself
    _finish(children, config, tmp_path / "a", 300)
    child = _start(children, config, tmp_path / "b")
    _until(child, lambda: _phase(tmp_path / "b") == "checkpoint", 300)
    assert _kill(child, tmp_path / "b", "saving", 0.0) is not None
    _finish(children, config, tmp_path / "b", 300)
    _assert_same_end(fingerprint(tmp_path / "b"), fingerprint(tmp_path / "a"))


def test_a_real_simulator_resumes_bitwise(children: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config("env.shifts=color_easy", "env.render=fast", env="dmc/finger-spin")
    _finish(children, config, tmp_path / "a")
    child = _start(children, config, tmp_path / "b")
    _kill(child, tmp_path / "b", "saving", 4.0)
    _finish(children, config, tmp_path / "b")
    _assert_same_end(fingerprint(tmp_path / "b"), fingerprint(tmp_path / "a"))


def test_ctrl_c_saves_and_the_run_continues(children: Any, make_config: Any, content: Content, tmp_path: Path) -> None:
    """The first SIGINT ends the run at the next tick with everything saved; replay lies in other files then."""
    config = make_config()
    _finish(children, config, tmp_path / "a")
    child = _start(children, config, tmp_path / "b")
    while not (tmp_path / "b" / "checkpoints").exists():
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGINT)
    child.join(60)
    status = read_status(tmp_path / "b")
    assert child.exitcode != 0 and status["state"] == "interrupted" and status["checkpoint"] == status["step"]
    _finish(children, config, tmp_path / "b")
    _assert_same_end(content(tmp_path / "b"), content(tmp_path / "a"))


def test_another_configuration_is_refused_with_the_difference(make_config: Any, tmp_path: Path) -> None:
    from mbrl_pvr.trainer import train

    train(make_config(), tmp_path / "run")
    with pytest.raises(ConfigError) as caught:
        train(make_config("agent.lr=1e-3"), tmp_path / "run")
    assert str(caught.value).splitlines() == [
        f"this run was made with another configuration ({tmp_path / 'run'})",
        "  agent.lr: 0.0003 -> 0.001",
        "Give another --dir.",
    ]


def test_a_run_of_another_version_is_told_from_one_of_other_settings(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that is new, or one that means something else, may show in the identity alone."""
    from mbrl_pvr import session
    from mbrl_pvr.trainer import train

    train(make_config(), tmp_path / "run")
    identity = session.config.identity
    monkeypatch.setattr(session.config, "identity", lambda wanted: identity(wanted)[::-1])
    with pytest.raises(ConfigError, match="all settings are the same, but this version of the toolkit"):
        train(make_config(), tmp_path / "run")
