"""`study status`: how far a study is, by one or two small files of each run, without a lock and without torch."""

import os
import socket
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbrl_pvr.runfolder import read_status
from mbrl_pvr.study.cells import Run, Study
from mbrl_pvr.study.engine import last_lines
from mbrl_pvr.study.folder import log_file, read_progress, read_study, run_folder, stages_left, stages_of

STATES = ("finished", "running", "silent", "failed", "interrupted", "new")
SILENT = 300.0  # seconds without a sign: workers give one a minute (work.BEAT), and clocks of nodes may differ by some


@dataclass(frozen=True)
class RunStatus:
    """How far one run is."""

    id: str
    name: str
    part: str
    settings: dict[str, Any]
    state: str  # of STATES; all but finished and running ones go on with the next `study run`
    stage: str  # under way, or the one that failed
    step: int
    steps: int
    stages: dict[str, bool]  # which have finished
    steps_per_second: float | None = None  # while it trains
    seconds_left: float | None = None  # None: no run of this study has trained yet
    seconds_silent: float | None = None  # since the last sign of its worker, of running and silent ones
    error: str = ""
    log: list[str] = field(default_factory=list)  # last lines, of a failed run


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is."""

    name: str
    path: Path
    counts: dict[str, int]  # runs by state
    steps: int  # agent steps done, over all runs
    of_steps: int
    steps_per_second: float  # over all runs that train now
    seconds_left: float | None  # with as many workers as now, one where none runs
    runs: list[RunStatus]


def status(path: Path | str) -> StudyStatus:
    """The state of a study while it runs or after, and of each run what `study run` would find; IntegrityError,
    StorageError.
    """
    path = Path(path)
    study = read_study(path)
    noted = [(run, read_progress(path, run)) for run in study.runs]
    pace = _Pace(study, noted)
    runs = [_run_status(path, study, run, progress, pace) for run, progress in noted]
    counts = Counter(run.state for run in runs)
    lasting = [run.seconds_left for run in runs if run.state != "finished"]
    known = [seconds for seconds in lasting if seconds is not None]
    return StudyStatus(
        name=study.name,
        path=path,
        counts={state: counts[state] for state in STATES},
        steps=sum(run.step for run in runs),
        of_steps=sum(run.steps for run in runs),
        steps_per_second=sum(run.steps_per_second or 0.0 for run in runs),
        seconds_left=sum(known) / max(counts["running"], 1) if len(known) == len(lasting) else None,
        runs=runs,
    )


class _Pace:
    """Seconds of a step and of the stages after training, as runs of the same kind have taken, or else of any."""

    def __init__(self, study: Study, noted: Sequence[tuple[Run, dict[str, Any]]]) -> None:
        self._study = study
        self._step: dict[int, list[float]] = {}
        self._after: dict[int, list[float]] = {}
        for run, progress in noted:
            taken = {stage: entry["time/seconds"] for stage, entry in progress["finished"].items()}
            if "train" in taken:
                self._step.setdefault(run.kind, []).append(taken["train"] / study.kind(run).config["steps"])
            if progress["state"] == "finished":
                self._after.setdefault(run.kind, []).append(sum(v for k, v in taken.items() if k != "train"))

    def left(self, run: Run, step: int, rate: float | None, *, training: bool) -> float | None:
        """Seconds that a run still takes; None where nothing is known yet."""
        per_step = 1 / rate if rate else _mean(self._step, run.kind)
        if per_step is None:
            return None
        steps = self._study.kind(run).config["steps"] - step if training else 0
        return max(steps, 0) * per_step + (_mean(self._after, run.kind) or 0.0)


def _mean(by_kind: dict[int, list[float]], kind: int) -> float | None:
    known = by_kind.get(kind) or [value for values in by_kind.values() for value in values]
    return statistics.fmean(known) if known else None


def _run_status(path: Path, study: Study, run: Run, progress: dict[str, Any], pace: _Pace) -> RunStatus:
    steps, now = study.kind(run).config["steps"], read_status(run_folder(path, run))
    stages = stages_left(path, study, run, progress)
    silent = max(time.time() - max(progress.get("time/at", 0.0), now.get("time/heartbeat", 0.0)), 0.0)
    state = _state(progress, silent, left=bool(stages), begun=now["state"] != "new")
    step, rate = steps, None
    left: float | None = 0.0
    if state != "finished":
        step = min(now["step"], steps)
        rate = _rate(progress, now) if state == "running" and progress["stage"] == "train" else None
        left = pace.left(run, step, rate, training="train" in stages)
    return RunStatus(
        id=run.id,
        name=run.name,
        part=study.kind(run).part,
        settings=run.settings,
        state=state,
        stage=progress["stage"],
        step=step,
        steps=steps,
        stages={stage: stage not in stages for stage in stages_of(study, run)},
        steps_per_second=rate,
        seconds_left=left,
        seconds_silent=silent if state in ("running", "silent") else None,
        error=progress.get("error", "") if state == "failed" else "",
        log=last_lines(log_file(path, run)) if state == "failed" else [],
    )


def _state(progress: dict[str, Any], silent: float, *, left: bool, begun: bool) -> str:
    """The state, where a progress file is believed neither beyond its process nor against the run folder."""
    state = progress["state"] if progress["state"] in STATES else "new"
    if state == "running" and not _is_gone(progress):
        return "silent" if silent > SILENT else "running"
    if not left:
        return "finished"
    return state if state in ("failed", "new") else ("interrupted" if begun else "new")


def _is_gone(progress: dict[str, Any]) -> bool:
    """Whether the process was one of this machine and is no more; its number may be another's after a restart."""
    if progress.get("time/host") != socket.gethostname() or "time/pid" not in progress:
        return False
    try:
        os.kill(progress["time/pid"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _rate(progress: dict[str, Any], now: dict[str, Any]) -> float | None:
    """Agent steps a second since this process began to train, by the run's heartbeat."""
    steps = now["step"] - progress.get("time/from_step", 0)
    seconds = now.get("time/heartbeat", 0.0) - progress.get("time/stage_began", 0.0)
    return steps / seconds if steps > 0 and seconds > 0 else None
