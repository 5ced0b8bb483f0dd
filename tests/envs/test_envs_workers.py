"""Worker processes that fail, hang, are killed, or lose their parent."""

import math
import operator
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from mbrl_pvr.errors import ConfigError, EnvError

ZERO = np.zeros((2, 2))


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _wait_until_gone(pids: list[int], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not all(map(_gone, pids)):
        time.sleep(0.02)
    return all(map(_gone, pids))


def test_workers_import_no_torch_and_run_one_thread(start) -> None:
    envs = start("counting", num=2)
    envs.reset()
    for modules in envs.loaded_modules():
        assert "mbrl_pvr.envs.counting" in modules
        assert not {"torch", "world_models", "pvr_zoo", "mujoco"} & set(modules)
    for pid in envs.pids:
        status = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"OMP_NUM_THREADS=1" in status and b"MUJOCO_GL=egl" in status
        assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull


def test_a_killed_worker_is_named_with_its_signal(start) -> None:
    envs = start("counting", num=2)
    envs.reset()
    os.kill(envs.pids[1], signal.SIGKILL)
    with pytest.raises(EnvError, match=r"died \(exit code -9, SIGKILL\) \(counting/default, env 1 of 2\)") as caught:
        for _ in range(3):  # the kernel may take a moment
            envs.step(ZERO)
            time.sleep(0.2)
    hint = "It printed nothing (out of memory?). A training run goes on with: mbrl-pvr resume RUN"
    assert caught.value.hint == hint and len(str(caught.value).splitlines()) == 2
    assert _wait_until_gone(envs.pids)
    with pytest.raises(EnvError, match="closed"):
        envs.reset()
    envs.close()


def test_a_worker_that_dies_while_others_work_is_noticed_at_once(start) -> None:
    envs = start("counting", num=2)
    envs.reset()
    os.kill(envs.pids[0], signal.SIGSTOP)  # env 0 would never answer
    envs.send(ZERO)
    os.kill(envs.pids[1], signal.SIGKILL)
    with pytest.raises(EnvError, match=r"env 1 of 2"):
        envs.recv()
    assert _wait_until_gone(envs.pids)


def test_a_worker_that_exits_is_named_with_its_last_words(start) -> None:
    envs = start("counting")
    envs.reset()
    envs.call("__setattr__", "advance", sys.exit)
    with pytest.raises(EnvError, match=r"died \(exit code 1\)[\s\S]*last words: \[0. 0.\]"):
        envs.step(ZERO[:1])


def test_an_exception_of_the_simulator_comes_with_its_traceback(start) -> None:
    envs = start("counting")
    envs.reset()
    envs.call("__setattr__", "advance", operator.itemgetter("no"))
    with pytest.raises(EnvError, match=r"IndexError: .*\(counting/default, env 0 of 1\)") as caught:
        envs.step(ZERO[:1])
    assert "lane.py" in caught.value.__notes__[0]
    assert _wait_until_gone(envs.pids)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("_count", math.nan, r"returned reward nan \(step 1, counting/default, env 0 of 1\)"),
        ("_count", math.inf, r"returned reward inf"),
        ("_sum", math.nan, r"returned nan in observation\[3\]"),
        ("_sum", math.inf, r"returned inf in observation\[3\]"),
    ],
)
def test_nan_and_infinity_from_a_simulator_are_errors(start, field: str, value: float, message: str) -> None:
    envs = start("counting")
    envs.reset()
    envs.call("__setattr__", field, value)
    with pytest.raises(EnvError, match=message):
        envs.step(ZERO[:1])


def test_a_frame_of_the_wrong_type_is_an_error(start) -> None:
    envs = start("counting")
    envs.reset()
    envs.call("__setattr__", "frame", _float_frame)
    with pytest.raises(EnvError, match=r"drew a frame float64 \(2, 2, 3\), not uint8 \(32, 32, 3\)"):
        envs.step(ZERO[:1])


_float_frame = np.zeros((2, 2, 3)).copy  # a picklable function without arguments


def test_a_hanging_driver_is_given_up_with_the_backends_name(start) -> None:
    envs = start("counting", backend="osmesa", start_timeout=5.0)
    os.kill(envs.pids[0], signal.SIGSTOP)
    with pytest.raises(EnvError, match=r"no answer within 5 s while drawing the first frame with backend osmesa"):
        envs.reset()
    assert _wait_until_gone(envs.pids)


def test_request_out_of_turn(start) -> None:
    envs = start("counting", num=2)
    envs.reset()
    with pytest.raises(RuntimeError, match="without a send"):
        envs.recv()
    envs.send(ZERO)
    with pytest.raises(RuntimeError, match="between send"):
        envs.send(ZERO)
    with pytest.raises(RuntimeError, match="between send"):
        envs.get_state()
    envs.recv()


def test_closing_leaves_neither_processes_nor_files(start) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    start("counting").close()
    before = files()
    for _ in range(3):
        envs = start("counting", num=2)
        envs.reset()
        envs.close()
        envs.close()
        assert _wait_until_gone(envs.pids)
    assert files() == before


def test_forgotten_environments_are_ended_by_the_garbage_collector() -> None:
    from mbrl_pvr.envs import EnvConfig, make

    envs = make(EnvConfig(name="counting", size=8), num=1, seed=0, stream="t")
    pids = envs.pids
    with warnings.catch_warnings():
        del envs
    assert _wait_until_gone(pids)


def test_a_failed_start_leaves_no_process(start) -> None:
    with pytest.raises(ConfigError, match="NoSuchThing"):
        start("gym:NoSuchThing-v0", num=2, render="standard")


_PARENT = """
import os, signal, sys, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
from mbrl_pvr.envs import EnvConfig, make
envs = make(EnvConfig(name="counting", size=8), num=2, seed=0, stream="t")  # no __main__ guard: must work
envs.reset()
print(*envs.pids, flush=True)
while True:
    envs.step(np.zeros((2, 2)))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphans_when_the_parent_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path.cwd()
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and not any(map(_gone, pids))
        parent.send_signal(how)
        try:
            parent.wait(20)
        finally:
            parent.kill()  # a no-op where it is gone; else leaving this block would wait for ever
    assert _wait_until_gone(pids)
