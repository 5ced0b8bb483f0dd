"""One run of a study through its stages; the same call goes on where an earlier one ended, however it ended.

A study's engine starts it as a process of its own: `mbrl-pvr study work DIR ID`.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from mbrl_pvr.errors import ConfigError, RunLocked, StorageError
from mbrl_pvr.runfolder import read_status
from mbrl_pvr.study.cells import Run, Study
from mbrl_pvr.study.folder import read_progress, read_study, run_folder, stages_left, write_progress

_PR_SET_PDEATHSIG = 1
WAIT = 1.0  # seconds between two looks at a run folder that another process holds
BEAT = 60.0  # seconds between two signs of life; `status` takes five without one for silence
_WRITING = threading.Lock()
_log = logging.getLogger(__name__)


def work(path: Path, run_id: str, parent: int = 0) -> None:
    """Do what is left of a run; its progress file says how far it is, also where it fails.

    `parent` is the process that this one ends with, saved; 0: none. ConfigError for an id that the study has not.
    """
    study = read_study(path)
    run = find(study, run_id, path)
    _end_on_sigterm(parent)
    _note(path, run, state="running", error="")
    try:
        with _beating(path, run):  # a training that has finished looks at its folder and last checkpoint
            for stage in dict.fromkeys(["train", *stages_left(path, study, run)]):
                _do(path, study, run, stage)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        said = "" if stopped else f"{type(error).__name__}: {error}"[:2000]
        with suppress(StorageError):  # the error that led here is the one to report
            _note(path, run, state="interrupted" if stopped else "failed", error=said)
        raise
    _note(path, run, state="finished", stage="", error="")


@contextmanager
def _beating(path: Path, run: Run) -> Iterator[None]:
    """Says once a BEAT that this process lives and works on the run: a stage alone may be silent for hours."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with suppress(StorageError):  # what matters is told by the stage that meets it, too
                _note(path, run, state="running")

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _note(path: Path, run: Run, **changes: Any) -> None:
    """Change the progress file, of both threads one at a time."""
    with _WRITING:
        write_progress(path, run, **changes)


def find(study: Study, run_id: str, path: Path) -> Run:
    """The run of an id, or of its first letters; ConfigError where there is none or more than one."""
    found = [run for run in study.runs if run_id and run.id.startswith(run_id)]
    if len(found) != 1:
        hint = f"List them: mbrl-pvr study status {path} --json"
        raise ConfigError(f"{len(found) or 'no'} runs of this study have the id {run_id!r}", str(path), hint)
    return found[0]


def _do(path: Path, study: Study, run: Run, stage: str) -> None:
    """One stage, once no other process uses the run folder."""
    act = _stage(path, study, run, stage)
    begun = time.monotonic()
    step = read_status(run_folder(path, run))["step"]
    _note(path, run, stage=stage, **{"time/stage_began": time.time(), "time/from_step": step})
    said = ""
    while True:
        if stage != "train" and stage not in stages_left(path, study, run):  # the process that was waited for did it
            return
        try:
            act()
            break
        except RunLocked as error:  # a worker whose driver was killed saves before it ends
            if said != (said := str(error)):
                _log.warning("waiting for %s", error.what.removeprefix("in use by "))
            time.sleep(WAIT)
    finished = read_progress(path, run)["finished"]
    seconds = finished.get(stage, {}).get("time/seconds", 0.0) + time.monotonic() - begun
    _note(path, run, finished={**finished, stage: {"time/seconds": round(seconds, 3)}})


def _stage(path: Path, study: Study, run: Run, stage: str) -> Callable[[], Any]:
    from mbrl_pvr import api

    folder, stages = run_folder(path, run), study.kind(run).stages
    config = study.config(run)
    if stage == "train":
        pinned = replace(config, threads=config.threads or study.kind(run).resources.cores)
        return lambda: api.train(config=pinned, dir=folder)
    asked = asdict(getattr(stages, stage))
    return lambda: getattr(api, stage)(folder, **asked, debug=config.debug)


def _end_on_sigterm(parent: int) -> None:
    """SIGTERM ends any stage as Ctrl-C does, also when the parent is gone, so that nothing is left unsaved."""
    signal.signal(signal.SIGTERM, _interrupt)
    if parent and sys.platform == "linux":
        signal.signal(signal.SIGUSR1, _Once(signal.SIGTERM))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
        if os.getppid() != parent:  # it died before the call
            raise KeyboardInterrupt("the process that started this run is gone")


class _Once:
    """Raises a signal, once: the kernel tells the end of each thread of a parent, and two SIGTERMs mean at once."""

    def __init__(self, signum: int) -> None:
        self._signum, self._raised = signum, threading.Lock()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self._raised.acquire(blocking=False):  # a handler can be interrupted by itself: a lock is taken in one step
            signal.raise_signal(self._signum)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt("stopped")
