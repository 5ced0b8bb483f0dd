"""What one run costs on this machine, measured: a few real steps of it by `mbrl-pvr train`, in a folder that goes away.

Time is taken once the first updates are over, memory of all its processes while it runs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_pvr import envs
from mbrl_pvr.build import env_config, pick_compile, pick_device
from mbrl_pvr.config import to_yaml
from mbrl_pvr.errors import Unavailable
from mbrl_pvr.settings import EvalConfig, RunConfig
from mbrl_pvr.storage import write_atomic
from mbrl_pvr.study.engine import last_lines
from mbrl_pvr.study.file import Resources, Stages
from mbrl_pvr.study.local import kill_group, launch

EPISODE = 50  # agent steps of an episode while it is measured
ROWS = 8  # of metrics while it learns; the first half of them is warming up
RANDOM = 20  # ticks with random actions before that
UPDATES, TICKS = 32, 80  # over these rows, at least
SAMPLE = 0.5  # seconds between two looks at memory


@dataclass(frozen=True)
class Measured:
    """What a run takes; seconds of one alone on the machine, bytes."""

    start: float  # seconds beside the steps: imports, building, compiling, one short evaluation, a checkpoint
    step: float  # seconds of an agent step with its updates
    play: float  # seconds of an agent step of an evaluation
    episode_length: int  # agent steps
    learner: int  # bytes of memory at most, with next to nothing in replay
    worker: int  # bytes of memory of an environment's process
    checkpoint: int  # bytes on the disk, without what an agent keeps of every step in replay
    replay_row: float  # bytes of one step in replay on the disk; in memory, what an agent keeps of it comes on top
    gpu: int | None = None  # bytes of GPU memory; None without one, as the next
    gpu_total: int | None = None  # bytes that its GPUs have together
    record_step: float = 0.0  # bytes on the disk of a step of a recorded episode
    record_ahead: float = 0.0  # bytes of one predicted from a start point
    film_step: float = 0.0  # bytes of a step of a filmed episode
    drawn_step: float = 0.0  # bytes of a step of a recorded episode that the agent draws


def measure(
    config: RunConfig, resources: Resources, gpus: Sequence[str] = (), stages: Stages | None = None
) -> Measured:
    """Train it for some steps, and where `stages` record, record an episode; Unavailable, with its last lines, where
    that fails.
    """
    with envs.make(replace(env_config(config), pixels=False), num=1, seed=0, stream="train") as env:
        length = env.max_episode_steps
    stages = stages or Stages()
    filmed = config.eval.video or (stages.ood is not None and stages.ood.video)
    short = shortened(config, resources, film=filmed)
    what = f"a few steps of {config.agent_preset} on {config.encoder.name} in {config.env.name}"
    with tempfile.TemporaryDirectory(prefix="mbrl-pvr-plan-") as folder:
        path = Path(folder)
        file, log, run = path / "config.yaml", path / "log", path / "run"
        write_atomic(file, to_yaml(short).encode())
        program = [sys.executable, "-m", "mbrl_pvr.cli.main"]
        began = time.monotonic()
        train = [*program, "train", "--config", str(file), "--dir", str(run)]
        learner, worker, gpu = _do(train, log, resources, gpus, f"{what} fail")
        wall = time.monotonic() - began
        start, step, play = _seconds(_rows(run / "metrics.jsonl"), short, wall)
        sizes = {name: _size((run / name).rglob("*")) for name in ("checkpoints", "replay", "videos")}
        played = sum(e["length"] for e in _lines(run / "episodes.jsonl") if e["kind"] == "eval") or 1
        record_step = record_ahead = drawn = 0.0
        if stages.record is not None:
            record = [*program, "record", str(run), "--episodes", "1", "--starts", "2", "--horizon", "2"]
            record += [] if config.agent.policy else ["--bank", str(stages.record.bank)]
            _do(record, log, resources, gpus, f"a record after {what} fails")
            record_step, record_ahead, steps = _record_bytes(next(run.rglob("latents*.npz")))
            drawn = _size(run.rglob("open_loop_*.mp4")) / steps
    return Measured(
        start=start,
        step=step,
        play=play,
        episode_length=length,
        learner=learner,
        worker=worker,
        checkpoint=max(sizes["checkpoints"] - carried_bytes(short, short.steps), 0),
        replay_row=sizes["replay"] / short.steps,
        gpu=gpu,
        gpu_total=_gpu_memory(gpus, "total") if gpus else None,
        record_step=record_step,
        record_ahead=record_ahead,
        film_step=sizes["videos"] / played,
        drawn_step=drawn,
    )


def carried_bytes(config: RunConfig, rows: int) -> int:
    """Bytes that an agent keeps of so many steps in replay, in memory and in every checkpoint."""
    return np.dtype(np.float16).itemsize * config.agent.carried * rows


def _do(
    command: list[str], log: Path, resources: Resources, gpus: Sequence[str], failure: str
) -> tuple[int, int, int | None]:
    """What `_watch` saw of a command; Unavailable where it fails."""
    process = launch(command, log, resources, list(gpus))
    try:
        seen = _watch(process, gpus)
    finally:
        kill_group(process.pid)
    if process.returncode:
        raise Unavailable(failure, "study plan", "\n".join(last_lines(log)))
    return seen


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _record_bytes(path: Path) -> tuple[float, float, int]:
    """Bytes of a recorded step, packed, and of one predicted from a start point, and how many steps the episode has.

    Of a short episode most of what is predicted from start points is empty, so that this is counted unpacked.
    """
    with np.load(path, allow_pickle=False) as arrays:
        ahead = sum(arrays[name][0, 0, 0].nbytes for name in arrays if name.endswith("_from"))
        steps = int(arrays["length"][0])
        packed = {name: arrays.zip.getinfo(f"{name}.npy").compress_size for name in arrays}
        rows = sum(size for name, size in packed.items() if arrays[name].ndim > 1 and not name.endswith("_from"))
    return rows / steps, float(ahead), steps


def shortened(config: RunConfig, resources: Resources, *, film: bool = False) -> RunConfig:
    """The same work on each step, but few of them and short episodes; saved once, at the end."""
    num = config.env.num
    random = max(RANDOM, config.agent.sequence_steps) * num
    learning = ROWS * num * ceil(max(TICKS, UPDATES / config.updates_per_step / num) / ROWS)
    return replace(
        config,
        threads=config.threads or resources.cores,
        steps=random + learning,
        random_steps=random,
        checkpoint_every=10**9,
        log_every=learning // ROWS,
        sinks=(),
        compile="on" if pick_compile(config, pick_device(config)) else "off",
        eval=EvalConfig(every=10**9, episodes=1, video=film),
        env=replace(config.env, max_steps=min(config.env.max_steps or EPISODE, EPISODE)),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row for row in _lines(path) if "time/env" in row]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _seconds(rows: list[dict[str, Any]], short: RunConfig, wall: float) -> tuple[float, float, float]:
    """Of the start, a step with its updates, and a step of an evaluation, in which the simulator is always waited for.

    `rows` are those of training; while it learns, simulators work beside the updates, so that their own time is that
    of the random steps.
    """
    random = [row for row in rows if row["step"] <= short.random_steps][1:]  # the first has the reset
    learning = [row for row in rows if row["step"] > short.random_steps]
    late = learning[len(learning) // 2 :]
    before = learning[-len(late) - 1]
    steps = late[-1]["step"] - before["step"]
    step = (late[-1]["time/elapsed"] - before["time/elapsed"]) / steps
    simulator = random or late
    per = short.log_every
    env = sum(row["time/env"] for row in simulator) / (per * len(simulator))
    play = env + sum(row["time/plan"] + row["time/encode"] for row in late) / steps
    return max(wall - step * short.steps, 0.0), step, play


def _watch(process: "subprocess.Popen[bytes]", gpus: Sequence[str]) -> tuple[int, int, int | None]:
    """Most memory of the process and of any that it started, until it ends; and of its GPU beyond what was used."""
    learner = worker = most = 0
    before = _gpu_memory(gpus, "used") if gpus else 0
    while process.poll() is None:
        for pid in _family(process.pid):
            taken = _memory(pid)
            learner, worker = (max(learner, taken), worker) if pid == process.pid else (learner, max(worker, taken))
        if gpus:
            most = max(most, _gpu_memory(gpus, "used") - before)
        time.sleep(SAMPLE)
    return learner, worker, most if gpus else None


def _family(ancestor: int) -> list[int]:
    """A process and all that it or its children started."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):  # it may have ended
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                parents[int(name)] = int(fields[1])
    found = [ancestor]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _memory(pid: int) -> int:
    """Bytes, what several processes share counted in parts; 0 of one that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _gpu_memory(gpus: Sequence[str], what: str) -> int:
    """Bytes that are "used" of these GPUs, by whomever, or those that they have in "total"."""
    asked = ["nvidia-smi", f"--id={','.join(gpus)}", f"--query-gpu=memory.{what}", "--format=csv,noheader,nounits"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
    return sum(int(line) for line in told.stdout.split()) << 20
