"""The engine on SLURM, through submitit: jobs in arrays, requeued with what they saved when they are preempted.

What is in the queue outlives the process that put it there: leaving cancels nothing, and the next `study run` waits for
the jobs that it finds. Their ids are in DIR/slurm/jobs.json, beside what submitit keeps there.
"""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mbrl_pvr.errors import ConfigError, Unavailable
from mbrl_pvr.extras import import_extra
from mbrl_pvr.storage import make_folders, write_atomic
from mbrl_pvr.study.engine import POLL, Exit, Job
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.local import kill_group, launch

FOLDER, IDS = "slurm", "jobs.json"
ARRAY = 1000  # jobs of one array; SLURM's own limit is 1001 unless it is raised
LOOK = 2.0  # seconds between two looks at the queue
TIMEOUTS = 10_000  # times that a job may reach its time limit and go on in another one
WAITING = {
    *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "RESIZING", "SUSPENDED", "PREEMPTED"),
    "UNKNOWN",  # sacct has no accounting to ask, or does not know the job yet
}
INTERRUPTED = 130  # exit status of a job that was asked to stop, and has saved
GRACE = 600.0  # seconds that SLURM has to end and requeue what it asked to stop
OURS = {  # options that follow from the study file or the command
    "cpus_per_task": "resources.cores",
    "mem": "resources.memory",
    "gpus_per_node": "resources.gpu",
    "array_parallelism": "--workers",
    "nodes": "one for every run",
}


@contextmanager
def open_slurm(workers: int | None = None, options: Sequence[str] = ()) -> Iterator["OnSlurm"]:
    """SLURM by its commands on PATH; `options` are KEY=VALUE of sbatch, among them `time` in minutes.

    Unavailable where submitit or SLURM is missing; ConfigError for an option.
    """
    given = parse_options(options)
    yield OnSlurm(import_extra("submitit", "--engine slurm"), workers, given)


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """{"time": 240, "partition": "gpu"} of time=240 and partition=gpu; ConfigError."""
    found: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        key = key.strip().replace("-", "_")
        if not (key and equals and value):
            raise ConfigError(f"{option!r} is not KEY=VALUE", "--slurm", "Such as --slurm partition=gpu")
        if key in OURS:
            raise ConfigError(f"{key} is not an option here", "--slurm", f"It is said by {OURS[key]}")
        found[key] = int(value) if value.isdigit() else True if value == "true" else value
    if not isinstance(found.get("time"), int):
        hint = "Such as --slurm time=240. A run that takes longer is requeued and goes on from what it saved."
        raise ConfigError("the time limit of a job in minutes is needed", "--slurm time", hint)
    return found


class OnSlurm:
    """Jobs in SLURM's queue, at most `workers` of each kind at once."""

    def __init__(self, submitit: Any, workers: int | None, options: Mapping[str, Any]) -> None:
        self._submitit, self._workers, self._options = submitit, workers, options
        self._folder = Path()
        self._ids: dict[str, str] = {}  # of runs
        self._to_submit: list[Job] = []
        self._running: list[tuple[Job, Any]] = []
        self._looked, self._leaving = float("-inf"), False

    def capacity(self, resources: Resources) -> int:
        """As many as SLURM gives; it refuses what no node holds when the job is submitted."""
        return self._workers or ARRAY

    def prepare(self, path: Path) -> None:
        """The folder of what submitit keeps; whether nodes see it shows when the first job starts. Unavailable."""
        if shutil.which("srun") is None:
            raise Unavailable("srun is not on PATH", "--engine slurm", "Start it where SLURM's commands are")
        self._folder = path / FOLDER
        make_folders(self._folder)
        self._folder.chmod(0o700)  # submitit hands jobs over as pickles
        with suppress(FileNotFoundError, ValueError):
            self._ids = json.loads((self._folder / IDS).read_bytes())

    def has_room(self, job: Job) -> bool:
        """Always: SLURM has the whole queue."""
        return True

    def start(self, job: Job) -> None:
        """Wait for what an earlier process submitted for this run, or submit it with the others that start now."""
        if job.run.id in self._ids:
            there = self._submitit.SlurmJob(self._folder, self._ids.pop(job.run.id))
            state = there.watcher.get_state(there.job_id, mode="force").partition(" ")[0]
            if state in WAITING and not there.paths.result_pickle.exists():
                self._running.append((job, there))
                return
        self._to_submit.append(job)

    def ended(self) -> list[Exit]:
        """Jobs whose result is there, or that SLURM reports as ended."""
        if self._leaving:
            left = [*self._to_submit, *(job for job, _ in self._running)]
            self._to_submit, self._running = [], []
            return [Exit(job, 0) for job in left]
        self._submit()
        if time.monotonic() - self._looked < LOOK:
            return []
        self._looked = time.monotonic()
        looked, self._running, over = self._running, [], []
        for job, there in looked:
            if there.done():
                over.append(self._exit(job, there))
            else:
                self._running.append((job, there))
        return over

    def stop(self, *, at_once: bool) -> str:
        """Leave; the jobs stay where they are."""
        self._leaving = True
        names = " ".join(sorted({there.job_id.partition("_")[0] for _, there in self._running}))
        stay = f"{len(self._running)} jobs stay with SLURM, where `scancel {names}` has them save and end"
        return f"leaving: {stay}" if names else "leaving"

    def _submit(self) -> None:
        """What waits for it, in arrays of jobs that take the same."""
        kinds: dict[Resources, list[Job]] = {}
        for job in self._to_submit:
            kinds.setdefault(job.resources, []).append(job)
        for needs, alike in kinds.items():
            for first in range(0, len(alike), ARRAY):
                jobs = alike[first : first + ARRAY]
                self._running += zip(jobs, self._array(jobs, needs), strict=True)
                self._note()
        self._to_submit = []

    def _array(self, jobs: Sequence[Job], needs: Resources) -> list[Any]:
        """Submit jobs as one array, or one job as such."""
        executor = self._executor(needs)
        try:
            with executor.batch():
                return [executor.submit(Work(job.arguments, str(job.log), needs)) for job in jobs]
        except self._submitit.core.utils.FailedJobError as error:  # sbatch's own words
            text = " ".join(str(error).split())
            raise ConfigError(f"sbatch refuses: {text[-400:]}", "--slurm, resources") from error

    def _executor(self, needs: Resources) -> Any:
        executor = self._submitit.SlurmExecutor(self._folder, max_num_timeout=TIMEOUTS)
        known = executor._valid_parameters()
        plain = {key: value for key, value in self._options.items() if key in known}
        others = {key: value for key, value in self._options.items() if key not in known}
        executor.update_parameters(
            **{"job_name": "mbrl-pvr", "signal_delay_s": 120, **plain},
            additional_parameters=others,
            cpus_per_task=needs.cores,
            mem=f"{math.ceil(needs.memory * 1024)}MB",
            array_parallelism=self._workers or ARRAY,
            **({"gpus_per_node": math.ceil(needs.gpu)} if needs.gpu else {}),
        )
        return executor

    def _exit(self, job: Job, there: Any) -> Exit:
        try:
            return Exit(job, there.result())
        except (self._submitit.core.utils.UncompletedJobError, self._submitit.core.utils.FailedJobError) as error:
            last = str(error).strip().rpartition("\n")[2]
            return Exit(job, 1, f"SLURM job {there.job_id}, state {there.state}: {last} ({there.paths.stderr})")

    def _note(self) -> None:
        """Write down what is in the queue, for a process that comes after this one."""
        ids = {**self._ids, **{job.run.id: there.job_id for job, there in self._running}}
        write_atomic(self._folder / IDS, (json.dumps(ids, indent=1) + "\n").encode())


class Work:
    """What submitit runs on a node: starts a job's process and waits for it. Read back from a pickle by its name."""

    def __init__(self, arguments: list[str], log: str, resources: Resources) -> None:
        self._asked = (arguments, log, resources)
        self._pid = 0

    def __call__(self) -> int:
        """The exit status of the job."""
        arguments, log, resources = self._asked
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if resources.gpu else []
        process = launch([*arguments, "--parent", str(os.getpid())], Path(log), resources, gpus)
        self._pid = process.pid
        while (status := process.poll()) is None:
            time.sleep(POLL)
        self._pid = 0
        if status == INTERRUPTED:  # SLURM's SIGTERM reached the job itself; what ends us comes next
            time.sleep(GRACE)
        kill_group(process.pid)
        return status

    def checkpoint(self) -> Any:
        """For submitit, which is told that SLURM takes the node back: have the job save, and requeue the same."""
        import submitit

        if self._pid:
            with suppress(ProcessLookupError, ChildProcessError):  # it has just ended
                os.kill(self._pid, signal.SIGTERM)
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Work(*self._asked))
