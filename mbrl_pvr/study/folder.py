"""Where a study lies: study.json (sealed), and for each run its folder, its log, and a small file on its progress.

study.json holds the resolved runs and the file's text. What decides a run's results, and what follows its training,
never changes in it; runs are only added.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbrl_pvr import __version__
from mbrl_pvr.errors import IntegrityError, StorageError
from mbrl_pvr.lock import LOCK_NAME, lock
from mbrl_pvr.runfolder import read_status
from mbrl_pvr.schema import has_types
from mbrl_pvr.storage import make_folders, plain, read_sealed, remove_leftovers, sealed_json, write_atomic
from mbrl_pvr.study.cells import Run, Study
from mbrl_pvr.study.merge import merge

FILE, RUNS, LOGS, PROGRESS = "study.json", "runs", "logs", "progress"
FORMAT = 1  # of study.json; raised when older versions of this code could not read it
EVIDENCE = {"ood": "ood.parquet", "record": "latents*.npz"}  # what a finished stage has left in the run folder
_TYPES = {
    **{"state": str, "stage": str, "finished": dict, "error": str, "time/pid": int, "time/host": str},
    **dict.fromkeys(("time/at", "time/stage_began", "time/from_step"), int | float),
}
_STAGE = {"time/seconds": int | float}  # what is noted of a finished stage


def run_folder(path: Path, run: Run) -> Path:
    """Where a run lies."""
    return path / RUNS / run.name


def log_file(path: Path, run: Run) -> Path:
    """What a run printed, all its tries one after the other."""
    return path / LOGS / f"{run.name}.log"


def read_study(path: Path | str) -> Study:
    """The study in a folder; IntegrityError where study.json is damaged or newer than this code, StorageError."""
    path = Path(path)
    if not (path / FILE).exists():
        raise StorageError("there is no study here", str(path), "Start one: mbrl-pvr study run FILE --dir DIR")
    stored = read_sealed(path / FILE)
    if stored.get("format", FORMAT + 1) > FORMAT:
        needed = f"made by a newer version: needs mbrl-pvr >= {stored.get('mbrl_pvr', '?')}, this is {__version__}"
        raise IntegrityError(needed, str(path))
    return Study.from_json(stored["study"])


@contextmanager
def open_study(path: Path, study: Study, *, parts: Sequence[str] = (), extend: bool = False) -> Iterator[Study]:
    """The study's folder, locked for whoever starts its runs: made, continued, or with `extend` added to.

    Gives the study as it is there; `parts`: `study` is only these. RunLocked where another process starts its runs;
    ConfigError with the difference where another study, or another version of this one, lies there; StorageError where
    something else does.
    """
    known = (path / FILE).exists()
    if not known:
        _require_empty(path)
    make_folders(path)
    held = lock(path)
    try:
        for folder in (path, path / PROGRESS):
            remove_leftovers(folder)
        for name in (RUNS, LOGS, PROGRESS):
            make_folders(path / name)
        merged = merge(read_study(path), study, path, parts=parts, extend=extend) if (path / FILE).exists() else study
        if not known or merged != read_study(path):
            content = {"format": FORMAT, "mbrl_pvr": __version__, "study": merged.to_json()}
            write_atomic(path / FILE, sealed_json(content))
        yield merged
    finally:
        held.release()


def _require_empty(path: Path) -> None:
    if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - {LOCK_NAME, RUNS, LOGS, PROGRESS}):
        raise StorageError("this is not empty and holds no study", str(path), "Give another --dir")


# ---- progress of a run ---------------------------------------------------------------------------------------------


def read_progress(path: Path, run: Run) -> dict[str, Any]:
    """What a run's progress file says: state (new, running, finished, failed, interrupted), stage, finished stages with
    their seconds, error and tries. It only reports: a damaged one says nothing, and the stages look for themselves.
    """
    try:
        stored = json.loads((path / PROGRESS / f"{run.name}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        stored = {}
    return {"state": "new", "stage": "", "finished": {}, **(stored if _is_progress(stored) else {})}


def _is_progress(stored: Any) -> bool:
    """Whether all that is in it has its type."""
    if not has_types(stored, _TYPES):
        return False
    stages = stored.get("finished", {}).values()
    return all(has_types(stage, _STAGE) and stage.keys() >= _STAGE.keys() for stage in stages)


def write_progress(path: Path, run: Run, **changes: Any) -> dict[str, Any]:
    """Change a run's progress file; by the process that works on the run, or for it once that has ended."""
    who = {"time/pid": os.getpid(), "time/host": socket.gethostname(), "time/at": time.time()}
    new = {**read_progress(path, run), **changes, **who}
    write_atomic(path / PROGRESS / f"{run.name}.json", (json.dumps(plain(new), indent=1) + "\n").encode())
    return new


def stages_of(study: Study, run: Run) -> list[str]:
    """The stages of a run in their order."""
    after = study.kind(run).stages
    return ["train", *(name for name in ("ood", "record") if getattr(after, name) is not None)]


def stages_left(path: Path, study: Study, run: Run, progress: dict[str, Any] | None = None) -> list[str]:
    """The stages that have something left to do, by what progress file and run folder say."""
    done = (read_progress(path, run) if progress is None else progress)["finished"]
    folder = run_folder(path, run)
    trained = read_status(folder)["state"] == "finished"
    return [stage for stage in stages_of(study, run) if not (trained and _is_done(stage, done, folder))]


def _is_done(stage: str, done: dict[str, Any], folder: Path) -> bool:
    return stage == "train" or (stage in done and any(folder.glob(EVIDENCE[stage])))
