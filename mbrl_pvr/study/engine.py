"""Starting the runs of a study and repeating those that fail; an engine is where they run, and does only that.

An engine is given jobs: a list of arguments and what they take of a machine. All that a job does is in files of the
study's folder, so that an engine returns nothing but exit statuses.
"""

import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

from mbrl_pvr.errors import ConfigError, Error, IntegrityError, StorageError, UnsafeFile
from mbrl_pvr.runfolder import read_manifest
from mbrl_pvr.study.cells import Run, Study
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.folder import log_file, read_progress, run_folder, stages_left, write_progress

POLL = 0.1  # seconds between two looks at the jobs
TAIL = 5  # lines of a log that are reported of a failure
HEAD = "== "  # how the first line of each try in a log begins
MEANING = {error.exit_code: (error.__doc__ or "").split(":")[0].rstrip(".") for error in Error.__subclasses__()}
LASTING = {error.exit_code for error in (ConfigError, IntegrityError, UnsafeFile)}  # another try would end the same way
STOPPING = ("stopping: running jobs save and end; Ctrl-C again ends them at once", "ending them at once")


@dataclass(frozen=True)
class Job:
    """A command that goes on with one run."""

    run: Run
    arguments: list[str]
    log: Path  # what it prints is appended there
    resources: Resources


class Exit(NamedTuple):
    """How a job ended."""

    job: Job
    status: int  # of its process; negative: the signal
    why: str = ""  # where the engine knows more than the job's log


class Engine(Protocol):
    """Where jobs run."""

    def capacity(self, resources: Resources) -> int:
        """How many jobs of this kind run at once; TooSmall where not one fits."""
        ...

    def prepare(self, path: Path) -> None:
        """Make sure that jobs find the study's folder wherever they run; StorageError names a machine without."""
        ...

    def has_room(self, job: Job) -> bool:
        """Whether a job could start now."""
        ...

    def start(self, job: Job) -> None:
        """Start a job; StorageError where its log cannot be written."""
        ...

    def ended(self) -> list[Exit]:
        """Jobs that have ended since the last call."""
        ...

    def stop(self, *, at_once: bool) -> str:
        """Ask all jobs to save and end, or end them at once; `ended` tells when they have. What to say of it."""
        ...


@dataclass(frozen=True)
class Failure:
    """A run that failed at its last try."""

    run: Run
    status: int
    tries: int
    tail: list[str]  # last lines of its log

    @property
    def text(self) -> str:
        """One line on what happened, then the log's last ones."""
        how = f"signal {signal.Signals(-self.status).name}" if self.status < 0 else f"exit status {self.status}"
        how += f": {MEANING[self.status]}" if self.status in MEANING else ""
        times = "once" if self.tries == 1 else f"{self.tries} times"
        return "\n".join([f"{self.run.name} failed {times}, last with {how}", *(f"  {line}" for line in self.tail)])


class Stopped(KeyboardInterrupt):
    """The user or the scheduler asked to stop; running jobs have saved and ended."""


def jobs_of(path: Path, study: Study) -> list[Job]:
    """A job for every run that has a stage left, or whose folder this code cannot read: its job says why."""
    path = path.absolute()
    program = [sys.executable, "-m", "mbrl_pvr.cli.main", "study", "work", str(path)]
    left = [run for run in study.runs if stages_left(path, study, run) or not _is_read(run_folder(path, run))]
    kinds = study.kinds
    return [Job(r, [*program, r.id], log_file(path, r), kinds[r.kind].resources) for r in left]


def _is_read(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except Error:
        return False
    return True


def drive(
    path: Path, jobs: Sequence[Job], engine: Engine, *, retries: int, say: Callable[[str], None] = lambda line: None
) -> list[Failure]:
    """Have all jobs done, each tried `retries` times more where that may help; returns what failed in the end.

    A first Ctrl-C or SIGTERM stops the engine, a second one does so at once; raises Stopped after either.
    """
    waiting, running, tries = deque(jobs), 0, Counter[str]()
    failures: list[Failure] = []
    with _signals() as asked:
        stopping = 0
        while running or (waiting and not stopping):
            over: list[Exit] = []
            while waiting and not over and not stopping and not asked and engine.has_room(waiting[0]):
                tries[waiting[0].run.id] += 1
                running += 1
                over = _start(engine, waiting.popleft())
            if len(asked) > stopping:
                stopping = len(asked)
                say(engine.stop(at_once=stopping > 1))
            for end in [*over, *engine.ended()]:
                running -= 1
                name, tried = end.job.run.name, tries[end.job.run.id]
                if stopping:
                    _leave(path, end)
                elif end.status == 0:
                    say(f"finished: {name}")
                elif tried <= retries and end.status not in LASTING:
                    why = f" ({end.why})" if end.why else ""
                    say(f"{name} ended with status {end.status}{why} and is tried again")
                    waiting.append(end.job)
                else:
                    failures.append(_fail(path, end, tried))
                    say(failures[-1].text)
            time.sleep(POLL)
    if stopping:
        raise Stopped("stopped; the same command goes on")
    return failures


def _start(engine: Engine, job: Job) -> list[Exit]:
    """Start a job; one whose log cannot be written has ended (a full disk may have room again for the next)."""
    try:
        engine.start(job)
    except StorageError as error:
        return [Exit(job, error.exit_code, str(error))]
    return []


def _leave(path: Path, end: Exit) -> None:
    """What is told of a job that was stopped; one that could still say so has done it."""
    if end.status and read_progress(path, end.job.run)["state"] == "running":
        with suppress(StorageError):  # a full disk, perhaps; the next start looks for itself
            write_progress(path, end.job.run, state="interrupted")


def _fail(path: Path, end: Exit, tries: int) -> Failure:
    run = end.job.run
    failure = Failure(run, end.status, tries, [*last_lines(end.job.log), *([end.why] if end.why else [])])
    error = end.why or read_progress(path, run).get("error") or failure.text.partition("\n")[0]
    with suppress(StorageError):  # the same full disk, perhaps; the failure is told
        write_progress(path, run, state="failed", error=error, status=end.status, tries=tries)
    return failure


def last_lines(log: Path, count: int = TAIL) -> list[str]:
    """The last lines of a log, of its last try alone, that say something; none where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    _, _, tried = f"\n{text}".rpartition(f"\n{HEAD}")
    return [line.rstrip()[:300] for line in tried.splitlines()[1:] if line.strip()][-count:]


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals to stop that have come so far."""
    asked: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)

    old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
