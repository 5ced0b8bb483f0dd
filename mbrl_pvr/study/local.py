"""The engine of this machine: a process for each job, as many at once as cores, memory and GPUs hold."""

import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from mbrl_pvr.errors import TooSmall
from mbrl_pvr.memory import total_memory
from mbrl_pvr.storage import call, write_all
from mbrl_pvr.study.engine import HEAD, STOPPING, Exit, Job
from mbrl_pvr.study.file import Resources

# libraries that start threads of their own; LP is Mesa's software rasteriser
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "LP_NUM_THREADS")
GIB = 1 << 30
_EPSILON = 1e-9  # of shares of a GPU, whose sums are not exact


class Local:
    """Jobs as processes, each in a session of its own, so that Ctrl-C reaches them through us alone.

    `workers` says how many at once in place of cores and memory; GPUs are shared by `resources.gpu` either way.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._cores, self._memory = len(os.sched_getaffinity(0)), total_memory()
        self._free = dict.fromkeys(visible_gpus(), 1.0)  # share of each that is left
        self._running: dict[int, tuple[Job, subprocess.Popen[bytes], list[str]]] = {}

    def capacity(self, resources: Resources) -> int:
        """How many such jobs run at once; TooSmall where not one fits."""
        fit = {"cores": self._cores // resources.cores, "memory": int(self._memory / GIB // resources.memory)}
        has = {"cores": f"{self._cores}", "memory": f"{self._memory / GIB:.1f} GiB", "gpu": f"{len(self._free)}"}
        if self._workers is not None:
            fit = {"workers": self._workers}
        if resources.gpu:
            fit["gpu"] = jobs_on_gpus(len(self._free), resources.gpu)
        for name, count in fit.items():
            if count < 1:
                what = f"a run takes resources.{name}={getattr(resources, name)}, this machine has {has[name]}"
                raise TooSmall(what, "resources", "Ask for less, or run it on a larger machine")
        return min(fit.values())

    def prepare(self, path: Path) -> None:
        """Nothing: jobs run where this process does."""

    def has_room(self, job: Job) -> bool:
        """Whether cores, memory and GPUs that no running job has are enough."""
        taken = [running.resources for running, _, _ in self._running.values()]
        if self._workers is not None:
            fits = len(taken) < self._workers
        else:
            cores, memory = sum(r.cores for r in taken), sum(r.memory for r in taken)
            fits = cores + job.resources.cores <= self._cores
            fits = fits and (memory + job.resources.memory) * GIB <= self._memory
        return fits and self._gpus_for(job.resources) is not None

    def start(self, job: Job) -> None:
        """Start its process; what it prints goes to its log."""
        gpus = self._gpus_for(job.resources)
        assert gpus is not None, job.run.name
        for gpu in gpus:
            self._free[gpu] -= min(job.resources.gpu, 1.0)
        arguments = [*job.arguments, "--parent", str(os.getpid())]
        process = launch(arguments, job.log, job.resources, gpus)
        self._running[process.pid] = (job, process, gpus)

    def ended(self) -> list[Exit]:
        """Jobs whose process is gone."""
        done = []
        for pid, (job, process, gpus) in list(self._running.items()):
            status = process.poll()
            if status is not None:
                del self._running[pid]
                kill_group(pid)  # what a killed process may have left
                for gpu in gpus:
                    self._free[gpu] += min(job.resources.gpu, 1.0)
                done.append(Exit(job, status))
        return done

    def stop(self, *, at_once: bool) -> str:
        """SIGTERM to every job, on which it saves and ends, or SIGKILL to all its processes."""
        for pid, (_, process, _) in self._running.items():
            if at_once:
                kill_group(pid)
            else:
                process.terminate()
        return STOPPING[at_once]

    def _gpus_for(self, resources: Resources) -> list[str] | None:
        """GPUs with so much left, the fullest first, so that whole ones stay whole; None where there are too few."""
        if not resources.gpu:
            return []
        share, count = min(resources.gpu, 1.0), max(int(resources.gpu), 1)
        fitting = sorted((left, gpu) for gpu, left in self._free.items() if left >= share - _EPSILON)
        return [gpu for _, gpu in fitting[:count]] if len(fitting) >= count else None


def jobs_on_gpus(gpus: int, share: float) -> int:
    """How many jobs of such a share, or of so many whole ones, fit onto GPUs."""
    return gpus * int(1 / share + _EPSILON) if share <= 1 else gpus // int(share)


def launch(
    arguments: list[str], log: Path, resources: Resources, gpus: list[str], cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own, with its threads pinned and only `gpus` to see; it prints to `log`.

    It works in the folder `cwd`, or in that of this process. StorageError where the log cannot be written.
    """
    pinned = dict.fromkeys(THREADS, str(resources.cores))
    own = {**os.environ, **pinned, "CUDA_VISIBLE_DEVICES": ",".join(gpus), "PYTHONUNBUFFERED": "1"}
    to = call("open", log, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        head = f"{HEAD}{time.strftime('%Y-%m-%d %H:%M:%S %z')}  {shlex.join(arguments)}\n".encode()
        write_all(to, memoryview(head), log, len(head))
        return subprocess.Popen(
            arguments, cwd=cwd, stdin=subprocess.DEVNULL, stdout=to, stderr=to, env=own, start_new_session=True
        )
    finally:
        call("close", log, to)


def kill_group(pid: int) -> None:
    """End at once a process that `launch` started, and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not imported for it."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return list(takewhile(lambda gpu: gpu and gpu[0] != "-", map(str.strip, named.split(","))))  # as CUDA reads it
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
