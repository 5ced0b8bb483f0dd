"""A run that was stopped, by whatever, and resumed equals the run that never stopped: weights, replay, logs."""

import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.config import RunConfig
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.fingerprint import fingerprint

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


def _finish(children: Any, config: RunConfig, path: Path) -> None:
    child = _start(children, config, path)
    child.join(120)
    assert child.exitcode == 0


def _is_saving(path: Path) -> bool:
    return any(p.name.startswith(".") for p in (path / "checkpoints").glob("*")) if path.exists() else False


def _kill(child: ForkServerProcess, path: Path, moment: float, aim_at_save: bool) -> bool:
    """kill -9 after `moment` seconds, or then at the next sign of saving; False where it had ended."""
    end = time.monotonic() + moment
    while time.monotonic() < end and child.is_alive():
        time.sleep(0.002)
    limit = time.monotonic() + 5
    while aim_at_save and child.is_alive() and not _is_saving(path) and time.monotonic() < limit:
        pass
    alive = child.is_alive()
    if alive and child.pid is not None:
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return alive


def _killed_run(children: Any, config: RunConfig, path: Path, kills: int, rng: random.Random) -> int:
    """Run to the end through up to `kills` kills at random moments, half aimed at saving; how many there were."""
    done, longest = 0, 3.0
    for number in range(kills):
        child = _start(children, config, path)
        if not _kill(child, path, rng.uniform(0.0, longest), aim_at_save=number % 2 == 1):
            break
        done += 1
    _finish(children, config, path)
    return done


def _assert_same_end(a: dict[str, Any], b: dict[str, Any]) -> None:
    for part in a.keys() - {"manifest.json"}:  # names the commit of the checkout, which may move while the suite runs
        assert a[part] == b[part], f"{part} differs"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_runs_end_like_the_run_that_never_stopped(
    kills: int, children: Any, make_config: Any, tmp_path: Path
) -> None:
    """`kill -9` of the learner at random moments, over as many runs as it takes; each run ends the same."""
    config = make_config()
    _finish(children, config, tmp_path / "undisturbed")
    expected = fingerprint(tmp_path / "undisturbed")
    rng, done, runs = random.Random(0), 0, 0
    while done < kills:
        path = tmp_path / f"killed{runs}"
        done += _killed_run(children, config, path, min(5, kills - done), rng)
        _assert_same_end(fingerprint(path), expected)
        runs += 1


def test_pixels_proprio_and_several_environments_resume_too(children: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config("env.num=2", "env.proprio=true", encoder="scratch")
    _finish(children, config, tmp_path / "a")
    rng = random.Random(1)
    _killed_run(children, config, tmp_path / "b", 3, rng)
    _assert_same_end(fingerprint(tmp_path / "b"), fingerprint(tmp_path / "a"))


def test_a_real_simulator_resumes_bitwise(children: Any, make_config: Any, tmp_path: Path) -> None:
    config = make_config("env.shifts=color_easy", "env.render=fast", env="dmc/finger-spin")
    _finish(children, config, tmp_path / "a")
    child = _start(children, config, tmp_path / "b")
    _kill(child, tmp_path / "b", 4.0, aim_at_save=True)
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
    from mbrl_pvr.runfolder import read_status

    status = read_status(tmp_path / "b")
    assert child.exitcode != 0 and status["state"] == "interrupted" and status["checkpoint"] == status["step"]
    _finish(children, config, tmp_path / "b")
    _assert_same_end(content(tmp_path / "b"), content(tmp_path / "a"))


def test_another_configuration_is_refused_with_the_difference(make_config: Any, tmp_path: Path) -> None:
    from mbrl_pvr.trainer import train

    train(make_config(), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"agent\.lr: 0\.0003 -> 0\.001"):
        train(make_config("agent.lr=1e-3"), tmp_path / "run")
