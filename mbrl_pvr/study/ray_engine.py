"""The engine on Ray: a job is a Ray task, which starts the process of the run on its node and waits for it.

What Ray answers for: where a job runs, and that it runs again where its worker, its node or its place is lost. What
`drive` answers for, as with every engine: the exit status of the job's process. `run_job` is all that nodes are given.
"""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mbrl_pvr.errors import ConfigError, Error, TooSmall, Unavailable
from mbrl_pvr.extras import import_extra
from mbrl_pvr.memory import total_memory
from mbrl_pvr.study.engine import POLL, STOPPING, Exit, Job
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.local import GIB, jobs_on_gpus, kill_group, launch, visible_gpus
from mbrl_pvr.study.ray_probe import probe

LOST = 20  # times that a job's worker or node may be lost at one try
ANSWER = 30.0  # seconds that an address has to answer
SHORT = 30  # bytes of the path of a place for Ray's folder: those of its sockets have 77 more, the kernel takes 107
STORE = 80 << 20  # bytes of Ray's object store, which we do not use; its least


@contextmanager
def open_ray(workers: int | None = None, address: str | None = None) -> Iterator["OnRay"]:
    """Ray at HOST:PORT, or one of our own on this machine, which ends with us, its logs and sockets too.

    Unavailable where the package is missing, or nothing answers within ANSWER seconds.
    """
    with _scratch() if address is None else nullcontext("") as scratch:
        ray = _start(scratch) if address is None else _join(address)
        try:
            yield OnRay(ray, workers)
        finally:
            ray.shutdown()


class OnRay:
    """Jobs as tasks of the Ray that is connected, at most `workers` at once; `resources` are what Ray counts."""

    def __init__(self, ray: Any, workers: int | None) -> None:
        self._ray, self._workers = ray, workers
        self._running: dict[Any, Job] = {}

    def capacity(self, resources: Resources) -> int:
        """How many such jobs all nodes hold; TooSmall where no node holds one."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fit = {"cores": [int(node.get("CPU", 0) // resources.cores) for node in nodes]}
        fit["memory"] = [int(node.get("memory", 0) / GIB // resources.memory) for node in nodes]
        if resources.gpu:
            fit["gpu"] = [jobs_on_gpus(int(node.get("GPU", 0)), resources.gpu) for node in nodes]
        together = sum(map(min, zip(*fit.values(), strict=True)))
        if not together:
            alone = [name for name, counts in fit.items() if not any(counts)] or list(fit)
            wanted = " and ".join(f"resources.{name}={getattr(resources, name)}" for name in alone)
            has = "; ".join(
                f"{int(n.get('CPU', 0))} cores, {n.get('memory', 0) / GIB:.1f} GiB, {int(n.get('GPU', 0))} GPUs"
                for n in nodes
            )
            what = f"a run takes {wanted}, which no node of this Ray has ({has})"
            raise TooSmall(what, "resources", "Ask for less, or start a larger node")
        return together if self._workers is None else min(together, self._workers)

    def prepare(self, path: Path) -> None:
        """Have every node read and write the folder; StorageError and ConfigError name the one that cannot."""
        probe(self._ray, path)

    def has_room(self, job: Job) -> bool:
        """Whether fewer than `workers` run; without a limit Ray has the whole queue."""
        return self._workers is None or len(self._running) < self._workers

    def start(self, job: Job) -> None:
        """Give a job to Ray, which starts it when a node has room."""
        needs = job.resources
        task = self._ray.remote(run_job).options(
            name=job.run.name,
            num_cpus=needs.cores,
            num_gpus=needs.gpu,
            memory=int(needs.memory * GIB),
            max_retries=LOST,
            retry_exceptions=False,
        )
        self._running[task.remote(job.arguments, str(job.log), needs, os.getcwd())] = job

    def ended(self) -> list[Exit]:
        """Jobs whose task is over."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._exit(task, self._running.pop(task)) for task in ready]

    def _exit(self, task: Any, job: Job) -> Exit:
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        try:
            return Exit(job, self._ray.get(task))
        except TaskCancelledError:
            return Exit(job, 1, "stopped before it began")
        except RayTaskError as error:
            cause = error.cause
            status = cause.exit_code if isinstance(cause, Error) else 1
            return Exit(job, status, f"{type(cause).__name__}: {cause}")
        except RayError as error:
            first = str(error).strip().partition("\n")[0]
            return Exit(job, 1, f"Ray gave it up, after starting it up to {LOST + 1} times: {first}")

    def stop(self, *, at_once: bool) -> str:
        """Have each task stop its job; those that wait in Ray's queue never start."""
        for task in self._running:
            self._ray.cancel(task)
        return STOPPING[at_once]


def run_job(arguments: list[str], log: str, resources: Resources, cwd: str) -> int:
    """On a node: start a job's process and wait for it; its exit status.

    Ray's cancellation comes as KeyboardInterrupt: at the first one the job saves and ends, at a second one it is
    killed. Where this process or its node is lost, the job gets SIGTERM or is lost with it, and Ray calls this again.
    """
    import ray

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a Ray that was started in the background ignores it
    gpus = [str(gpu) for gpu in ray.get_gpu_ids()] if resources.gpu else []
    command = [sys.executable, *arguments[1:], "--parent", str(os.getpid())]
    process = launch(command, Path(log), resources, gpus, Path(cwd) if os.path.isdir(cwd) else None)
    asked = False
    while True:
        try:
            while process.poll() is None:
                time.sleep(POLL)
            break
        except KeyboardInterrupt:
            kill_group(process.pid) if asked else process.terminate()
            asked = True
    kill_group(process.pid)
    return process.returncode


def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for the logs and sockets of one Ray; in /tmp where the usual place would make paths of sockets too long.

    Raises Unavailable where none can be made.
    """
    place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        return tempfile.TemporaryDirectory(
            prefix="ray-", dir=place if len(os.fsencode(place)) <= SHORT else "/tmp", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise Unavailable(f"Ray needs a folder for its logs: {error}", "--engine ray", "Set TMPDIR to one") from error


def _start(scratch: str) -> Any:
    """A Ray of our own: on loopback alone, with a token that nobody else is told, and without a dashboard. Unavailable
    where it does not start.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # the name is of another time: it says whether nodes talk over the network or over loopback
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    ray = import_extra("ray", "--engine ray")
    try:
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)),
            num_gpus=len(visible_gpus()),
            object_store_memory=STORE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _memory=total_memory(),
            _temp_dir=scratch,
            # jobs of a worker that is gone save, and they are as urgent as other processes (Ray's own default: nice 15)
            _system_config={"kill_child_processes_on_worker_exit": False, "worker_niceness": 0},
        )
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0][:300]
        hint = f"Is there room on the disk of {os.path.dirname(scratch)}? Are variables set that begin with RAY_?"
        raise Unavailable(f"Ray does not start: {first}", "--engine ray", hint) from error
    if (at := ray.nodes()[0]["NodeManagerAddress"]) != "127.0.0.1":
        ray.shutdown()
        raise Unavailable(f"Ray would listen on {at}", "--engine ray", "Start the study in a new process")
    return ray


def _join(address: str) -> Any:
    """The Ray at an address; its own environment variables (RAY_AUTH_MODE and so on) say how to log in."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ConfigError(f"{address!r} is not HOST:PORT", "--address", "As `ray start --head` prints it: HOST:6379")
    ray = import_extra("ray", "--engine ray")
    until = time.monotonic() + ANSWER
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
        check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        left = max(until - time.monotonic(), 1.0)
        subprocess.run(check, check=True, timeout=left, capture_output=True, text=True)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except subprocess.CalledProcessError as error:
        raise _no_answer(address, error.stderr.strip().rpartition("\n")[2][:200]) from error
    except subprocess.TimeoutExpired as error:
        raise _no_answer(address, f"what listens there does not speak as Ray within {ANSWER:.0f} s") from error
    except (OSError, OverflowError, RuntimeError, ConnectionError) as error:
        raise _no_answer(address, str(error)) from error
    return ray


def _no_answer(address: str, why: str) -> Unavailable:
    hint = (
        "Check: `ray status` on that machine; the port of `ray start --head --port`, not that of its dashboard or of "
        "ray://; a firewall in between; RAY_AUTH_MODE and RAY_AUTH_TOKEN as there; the same versions of Ray and Python "
        "as there; and that this machine is one of its nodes (`ray start --address HOST:PORT`)"
    )
    return Unavailable(f"no Ray answers at {address}: {why}", "--address", hint)
