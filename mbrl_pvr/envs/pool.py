"""The parent's side of worker processes: start them, talk to them with a time limit, say what became of them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import IO, Any

from mbrl_pvr import errors
from mbrl_pvr.errors import EnvError, WorkerDied

_CODE = "import sys; sys.path[:] = {path}; from mbrl_pvr.envs.worker import serve; serve({pipe}, {frames}, {parent})"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "LP_NUM_THREADS")
_GRACE = 5.0  # seconds for a worker to leave by itself


class Worker:
    """One child process. It runs one thread, has no standard input, and dies with the thread that started it."""

    def __init__(self, label: str, backend: str, frames_fd: int) -> None:
        self.label = label
        self.pipe, child = Pipe()
        # what it prints is kept for error messages, not mixed into ours; the file has no name, so nothing stays behind
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `kill`)
        code = _CODE.format(path=json.dumps(sys.path), pipe=child.fileno(), frames=frames_fd, parent=os.getpid())
        # A fresh interpreter, not multiprocessing's spawn: that would import the user's main module (and torch) again,
        # and fail in scripts without a `__main__` guard.
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=_environment(backend),
            pass_fds=[fd for fd in (child.fileno(), frames_fd) if fd >= 0],
            process_group=0,  # Ctrl-C is for the parent, which then closes its workers
        )
        child.close()

    def send(self, request: str, *args: Any) -> None:
        """Ask; WorkerDied where the worker is dead."""
        try:
            self.pipe.send((request, *args))
        except (BrokenPipeError, ConnectionResetError, OSError) as error:
            raise self.obituary() from error

    def receive(self) -> Any:
        """The answer, once the pipe is readable; errors of the worker are raised here."""
        try:
            kind, *rest = self.pipe.recv()
        except (EOFError, ConnectionResetError, OSError) as error:
            raise self.obituary() from error
        if kind == "ok":
            return rest[0]
        name, what, where, hint, trace = rest
        where = where.removeprefix(self.label.partition(",")[0]).removeprefix(", ")  # the label begins with the task
        failure = getattr(errors, name)(what, f"{where}, {self.label}" if where else self.label, hint)
        failure.add_note(f"In the worker:\n{trace}")
        raise failure

    def obituary(self) -> EnvError:
        """What is known about a worker that no longer answers."""
        try:
            code = self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return EnvError("the worker process closed its pipe but still runs", self.label)
        how = f"exit code {code}"
        if code < 0:
            how += f", {signal.Signals(-code).name}"
        words = self.last_words() or "It printed nothing (out of memory?)."
        hint = f"{words} A training run goes on with: mbrl-pvr resume RUN"
        return WorkerDied(f"the worker process died ({how})", self.label, hint)

    def last_words(self) -> str:
        """The end of what the worker printed, for a hint."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"Its last words: {lines[-1].strip()}" if lines else ""

    def kill(self) -> None:
        """End the process at once and release everything; may be called twice."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.pipe.close()
        self._log.close()


def gather(workers: Sequence[Worker], timeout: float, task: str) -> list[Any]:
    """One answer of each worker, in their order; EnvError of whichever fails first, or where one takes too long."""
    answers: dict[int, Any] = {}
    index = {worker.pipe: i for i, worker in enumerate(workers)}
    end = time.monotonic() + timeout
    while len(answers) < len(workers):
        ready = wait(list(index), max(0.0, end - time.monotonic()))
        if not ready:
            late = next(worker for i, worker in enumerate(workers) if i not in answers)
            raise EnvError(f"no answer within {timeout:.0f} s while {task}", late.label, late.last_words())
        for pipe in ready:
            i = index[pipe]  # type: ignore[index]
            if i in answers:  # nothing more was asked of it: the pipe is readable because it has closed
                raise workers[i].obituary()
            answers[i] = workers[i].receive()
    return [answers[i] for i in range(len(workers))]


def shut_down(workers: Sequence[Worker], *, politely: bool) -> None:
    """End all workers; politely: let each free its renderer first, for a few seconds at most."""
    if politely:
        asked = [worker for worker in workers if _ask_to_close(worker)]
        end = time.monotonic() + _GRACE
        for worker in asked:
            try:
                worker.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
    for worker in workers:
        worker.kill()


def _ask_to_close(worker: Worker) -> bool:
    try:
        worker.pipe.send(("close",))
    except OSError:
        return False
    return True


def _environment(backend: str) -> dict[str, str]:
    """The child's environment: one thread, and how to draw, before anything can import mujoco or pyglet."""
    env = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"}
    env.update(dict.fromkeys(_ONE_THREAD, "1"), MUJOCO_GL=backend, DISABLE_RENDER_THREAD_OFFLOADING="1")
    env["PYGLET_HEADLESS"] = "1"  # Miniworld without a window, through EGL
    return env
