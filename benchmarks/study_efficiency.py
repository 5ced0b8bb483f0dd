"""What a study's engines cost: python benchmarks/study_efficiency.py [--runs 6] [--steps 2000] [--workers 2]

Runs of one core each, first one after the other with nothing beside them, then the same as a study through `local` and
through a Ray of our own. Efficiency is the sum of the lone times over workers × the time of the study; for Ray without
and with its own start. The machine should do nothing else: its load is printed.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from mbrl_pvr.study.cells import Study, load_study
from mbrl_pvr.study.engine import Engine, Job, drive, jobs_of
from mbrl_pvr.study.folder import open_study
from mbrl_pvr.study.local import launch
from mbrl_pvr.study.start import open_engine

FILE = """
name: efficiency
set:
  {{env: counting/default, agent: tdmpc2_tiny, agent.episodic: true, encoder: embedded, sinks: [], eval.video: false,
   random_steps: 100, steps: {steps}}}
parts: {{main: {{grid: {{seed: {seeds}}}}}}}
resources: {{cores: 1, memory: 1}}
"""


def made(path: Path, study: Study) -> list[Job]:
    """The jobs of a study in a new folder."""
    with open_study(path, study):
        return jobs_of(path, study)


def alone(path: Path, study: Study) -> float:
    """Seconds of all runs, one after the other."""
    began = time.perf_counter()
    for job in made(path, study):
        assert launch([*job.arguments, "--parent", str(os.getpid())], job.log, job.resources, []).wait() == 0, job.log
    return time.perf_counter() - began


def together(path: Path, study: Study, opened: Callable[[], AbstractContextManager[Engine]]) -> tuple[float, float]:
    """Seconds of the study, and of it with the engine's start."""
    jobs, first = made(path, study), time.perf_counter()
    with opened() as engine:
        engine.prepare(path)
        began = time.perf_counter()
        assert drive(path, jobs, engine, retries=0) == []
        ended = time.perf_counter()
    return ended - began, ended - first


def load() -> str:
    """What the machine does."""
    return f"load {os.getloadavg()[0]:.1f} of {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("runs", 6), ("steps", 2000), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(FILE.format(steps=asked.steps, seeds=list(range(1, asked.runs + 1))))
        study = load_study(file)
        print(f"{asked.runs} runs of {asked.steps} steps, {asked.workers} at once; {load()}")
        lone = alone(Path(folder) / "alone", study)
        print(f"alone: {lone:.1f} s, {lone / asked.runs:.1f} s a run; {load()}")
        for name in ("local", "ray"):
            path = Path(folder) / name
            seconds, whole = together(path, study, lambda name=name: open_engine(name, asked.workers))
            ideal = lone / asked.workers
            parts = (
                f"{seconds:.1f} s, efficiency {ideal / seconds:.0%}; with its start {whole:.1f} s, {ideal / whole:.0%}"
            )
            print(f"{name}: {parts}; {load()}", flush=True)


if __name__ == "__main__":
    main()
