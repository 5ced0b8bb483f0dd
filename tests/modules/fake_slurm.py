"""Commands of SLURM that run what is submitted on this machine, for tests: `python fake_slurm.py sbatch FILE` etc.

One folder, $FAKE_SLURM, holds a file for each job: its state, and the process group of its step. A step's processes get
signals as those of a real one do: all of them from scancel, USR2 only what srun started.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PLACE = Path(os.environ["FAKE_SLURM"])


def put(name: str, text: str) -> None:
    temporary = PLACE / f".{name}.{os.getpid()}"
    temporary.write_text(text)
    temporary.rename(PLACE / name)


def sbatch(file: str) -> None:
    """Start every job of the script, each with a process that stays with it."""
    text = Path(file).read_text()
    if "partition=none" in text:
        sys.exit("sbatch: error: invalid partition specified: none")
    number = 100 + len(list(PLACE.glob("*.script")))
    (PLACE / f"{number}.script").write_text(text)
    array = re.search(r"--array=0-(\d+)%", text)
    for job in [f"{number}_{k}" for k in range(int(array[1]) + 1)] if array else [str(number)]:
        put(f"{job}.state", "PENDING")
        stay = [sys.executable, "-S", __file__, "stay", job]
        subprocess.Popen(
            stay, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    print(f"Submitted batch job {number}")


def stay(job: str) -> None:
    """Run a job, and again as often as it is requeued."""
    number, _, index = job.partition("_")
    env = {
        **os.environ,
        "SLURM_JOB_ID": number,
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_PROCID": "0",
    }
    if index:
        env |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    while True:
        put(f"{job}.state", "RUNNING")
        step = subprocess.Popen(["bash", str(PLACE / f"{number}.script")], env=env)
        put(f"{job}.pid", str(step.pid))
        status = step.wait()
        with (PLACE / f"{job}.starts").open("a") as file:
            file.write(f"{status}\n")
        if not (PLACE / f"{job}.requeue").exists():
            break
        (PLACE / f"{job}.requeue").unlink()
    cancelled = (PLACE / f"{job}.cancelled").exists()
    put(f"{job}.state", "CANCELLED by 0" if cancelled else "COMPLETED" if status == 0 else "FAILED")


def srun(*arguments: str) -> None:
    """What follows its options, printing where --output says."""
    words, job = list(arguments), os.environ["SLURM_JOB_ID"]
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    while words[0].startswith("-"):
        option = words.pop(0)
        if option in ("--output", "--error"):
            name = words.pop(0).replace("%A_%a", f"{job}_{index}").replace("%j", job).replace("%t", "0")
            to = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(to, 1 if option == "--output" else 2)
    os.execvp(words[0], words)


def scontrol(verb: str, job: str) -> None:
    assert verb == "requeue"
    (PLACE / f"{job}.requeue").touch()


def sacct(*arguments: str) -> None:
    print("JobID|State|NodeList")
    for path in PLACE.glob("*.state"):
        print(f"{path.stem}|{path.read_text()}|node1")


def scancel(job: str, option: str = "", name: str = "TERM") -> None:
    """All processes of a job, or with USR2 what srun started alone; without --signal killed once they had time."""
    for path in PLACE.glob(f"{job}*.pid"):
        step, *started = tree(int(path.read_text()))
        if not option:
            (PLACE / f"{path.stem}.cancelled").touch()
        for pid in started[:1] if name.endswith("USR2") else started:
            os.kill(pid, signal.Signals[f"SIG{name.removeprefix('SIG')}"])
        while not option and tree(step)[2:]:
            time.sleep(0.05)
        if not option:
            os.kill(started[0], signal.SIGKILL)


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for member in found:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


if __name__ == "__main__":
    {"sbatch": sbatch, "stay": stay, "srun": srun, "scontrol": scontrol, "sacct": sacct, "scancel": scancel}[
        sys.argv[1]
    ](*sys.argv[2:])
