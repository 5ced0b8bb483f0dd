"""Reads run folders: the only part of this package that knows their layout. To read a new file, add a field and its
check to `Run`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import files, latents
from analysis.errors import DAMAGED, AnalysisError, damaged
from analysis.files import INTEGER, NUMBER, OPTIONAL, TEXT
from analysis.played import NONE, Played, strongest
from analysis.records import Latents, Record, find_records, read_latents

FORMAT = 1  # newest layout of a run folder that this code knows
IDENTITY = "identity"  # of manifest.json: digest of the configuration
ID_LETTERS = 12  # of it that make the id of a run
NEW, RUNNING, FINISHED = "new", "running", "finished"  # states of status.json

ELAPSED = "time/elapsed"  # of the metrics: seconds since the run began
METRIC_COLUMNS = {"step": INTEGER, "frame": INTEGER}
ROW_COLUMNS = {
    "agent": TEXT,
    "encoder": TEXT,
    "task": TEXT,
    "shift": TEXT,
    "severity": NUMBER,
    "seed": INTEGER,
    "step": INTEGER,
    "frame": INTEGER,
    "episode": INTEGER,
    "return": NUMBER,
    "length": INTEGER,
    "success": OPTIONAL,
}
EPISODE_COLUMNS = {"kind": TEXT, **ROW_COLUMNS}
OOD_COLUMNS = {"split": TEXT, **ROW_COLUMNS}
CONFIG_KEYS = {"seed": int, "env.name": str, "encoder.name": str, "agent.name": str}


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder. Logs are None where they are missing or empty; `latents` is read when first asked for.

    What was recorded is seen on policy, or `on` one bank; without a shift, or `under` one. Steps of checkpoints are
    None where none is known: `step` of the newest, `ood_step` and `latents_step` of those that the out-of-distribution
    episodes and the latents come from.
    """

    path: Path
    id: str  # derives from the configuration: two folders of one id are one run
    state: str  # "finished", or how far it is
    step: int | None
    config: dict[str, Any]
    manifest: dict[str, Any]
    metrics: pd.DataFrame | None = None
    episodes: pd.DataFrame | None = None
    ood: pd.DataFrame | None = None
    records: tuple[Record, ...] = ()
    errors: pd.DataFrame | None = None  # of an exported run: `window_errors.ERROR_COLUMNS`, in place of its records
    exported: bool = False  # its folder is not here, so that no command can add to it
    bank: str = ""  # whose records are seen; "": those of fresh episodes
    shift: str = ""  # under which they were made; "": none

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def task(self) -> str:
        return self.config["env"]["name"]

    @property
    def encoder(self) -> str:
        return self.config["encoder"]["name"]

    @property
    def agent(self) -> str:
        return self.config["agent"]["name"]

    @property
    def finished(self) -> bool:
        return self.state == FINISHED

    @cached_property
    def ood_step(self) -> int | None:
        """Of the newest rows: a run that went on has rows of several checkpoints."""
        return None if self.ood is None else int(self.ood["step"].to_numpy().max())

    @property
    def banks(self) -> list[str]:
        """Ids of the banks that the run was recorded on."""
        exported = () if self.errors is None else self.errors["bank"].unique()
        return sorted({bank for bank in (*(one.bank for one in self.records), *exported) if bank})

    @cached_property
    def last_returns(self) -> np.ndarray:
        """Returns (n,) of the episodes of the last evaluation; of a log without one, none."""
        if self.episodes is None:
            return np.array([])
        evaluations = self.episodes["kind"].to_numpy() == "eval"
        steps, found = (self.episodes[name].to_numpy()[evaluations] for name in ("step", "return"))
        return found[steps == steps.max()] if len(steps) else found

    @cached_property
    def played(self) -> Played | None:
        """What was played in and out of distribution at `ood_step`; None where nothing was."""
        if self.ood is None:
            return None
        split, shift, severity, step = (self.ood[name].to_numpy() for name in ("split", "shift", "severity", "step"))
        inside, outside = shift == NONE, strongest(split, shift, severity)
        rows = (step == self.ood_step) & (inside | outside)
        share = self.ood["normalised"].to_numpy(float) if "normalised" in self.ood else np.nan
        conditions = frozenset(zip(shift[rows & outside], severity[rows & outside], strict=True))
        returns = self.ood["return"].to_numpy(float)[rows]
        return Played(inside[rows], returns, np.broadcast_to(share, rows.shape)[rows], conditions)

    def on(self, bank: str) -> "Run":
        """The same run, seen on a bank's trajectories, or with "" on policy."""
        return replace(self, bank=bank)

    def under(self, shift: str) -> "Run":
        """The same run, seen under one of `shifts`."""
        return replace(self, shift=shift)

    @property
    def record(self) -> Record | None:
        """What was recorded on policy, or on `bank`, under `shift`; None where nothing was."""
        return next((one for one in self.records if (one.bank, one.shift) == (self.bank, self.shift)), None)

    @property
    def shifts(self) -> list[str]:
        """Under which the run was recorded at the checkpoint that it was recorded at without, on policy or on `bank`:
        there rows of equal index are one state.
        """
        return sorted(shift for shift, step in self._recorded_steps.items() if shift and step == self.latents_step)

    @property
    def older_shifts(self) -> list[str]:
        """Under which it was recorded at another checkpoint."""
        return sorted(set(self._recorded_steps) - {"", *self.shifts})

    @property
    def _recorded_steps(self) -> dict[str, int | None]:
        """Shift to the step of the checkpoint whose record, on policy or on `bank`, is here or was exported."""
        found = {one.shift: one.step for one in self.records if one.bank == self.bank}
        if self.errors is not None:
            mine = self.errors[self.errors["bank"] == self.bank].drop_duplicates("shift")
            found |= {
                shift: None if pd.isna(step) else int(step)
                for shift, step in zip(mine["shift"], mine["record_step"], strict=True)
            }
        return found

    @property
    def window_errors(self) -> pd.DataFrame | None:
        """What an export holds of the errors of `bank` under `shift`; None where that is nothing."""
        if self.errors is None:
            return None
        rows = self.errors[(self.errors["bank"] == self.bank) & (self.errors["shift"] == self.shift)]
        return rows if len(rows) else None

    @property
    def latents_kind(self) -> str | None:
        """One of `records.KINDS`, None where nothing was recorded."""
        return None if self.record is None else self.record.kind

    @property
    def latents_step(self) -> int | None:
        """Of the checkpoint that was recorded without a shift."""
        return self._recorded_steps.get("")

    @cached_property
    def latents(self) -> Latents | None:
        """The recorded rollouts, or None where none were recorded; raises AnalysisError where the file is damaged."""
        return None if self.record is None else read_latents(self.record.path)

    @cached_property
    def latents_constant(self) -> bool:
        """Whether recorded latents are (nearly) constant; they are not kept in memory for it."""
        if self.record is None:
            return False
        recorded = read_latents(self.record.path)
        return latents.is_constant(recorded.posterior[recorded.valid])


def load_runs(paths: Iterable[str | Path | Run]) -> list[Run]:
    """Read run folders, in the order given; runs that have been read already are taken as they are. Unfinished runs are
    among them (`run.finished`).

    Raises AnalysisError for no folder at all, folders that are not runs, damaged files (naming file and column), and
    for one run given twice.
    """
    given = list(paths)
    if not given:
        raise AnalysisError("no run folders were given", hint="Name at least one folder that `mbrl-pvr train` has made")
    runs = [one if isinstance(one, Run) else load_run(one) for one in given]
    seen: dict[str, Run] = {}
    for run in runs:
        if run.id in seen:
            raise AnalysisError(
                f"run {run.id!r} is given twice",
                f"{seen[run.id].path} and {run.path}",
                "A run counts once; leave one of the two out",
            )
        seen[run.id] = run
    return runs


def load_run(folder: str | Path) -> Run:
    """Read one run folder; raises AnalysisError where it is not one, or is damaged."""
    head = read_head(Path(folder))
    torn, ood = head.state == RUNNING, head.path / "ood.parquet"
    return replace(
        head,
        metrics=_log(head.path / "metrics.jsonl", METRIC_COLUMNS, torn),
        episodes=_log(head.path / "episodes.jsonl", EPISODE_COLUMNS, torn),
        ood=_rows_or_none(files.read_parquet(ood), OOD_COLUMNS, ood) if ood.exists() else None,
        records=find_records(head.path),
    )


def read_head(folder: Path) -> Run:
    """What a run is and how far, its logs and records not read; AnalysisError as of `load_run`."""
    _check_is_run(folder)
    config = check_config(files.read_settings(folder / "config.yaml"), folder / "config.yaml")
    manifest = _manifest(folder / "manifest.json")
    state, step = _status(folder / "status.json")
    return Run(
        path=folder,
        id=manifest[IDENTITY][:ID_LETTERS],
        state=state,
        step=step,
        config=config,
        manifest=manifest,
    )


def check_config(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """The configuration; raises AnalysisError where it lacks what every run has."""
    for key, kind in CONFIG_KEYS.items():
        if not isinstance(value := look_up(config, key), kind):
            raise damaged(f"{where.name} should hold {key} as {kind.__name__}, but has {value!r}", where)
    return config


def _manifest(path: Path) -> dict[str, Any]:
    manifest = files.read_json(path)
    if not isinstance(number := manifest.get("format"), int) or number > FORMAT:
        raise damaged(f"{path.name} has format {number!r}; this version reads up to {FORMAT}", path)
    if not isinstance(manifest.get(IDENTITY), str):
        raise damaged(f"{path.name} should hold a text {IDENTITY!r}, but has {manifest.get(IDENTITY)!r}", path)
    return manifest


def _status(path: Path) -> tuple[str, int | None]:
    """How far the run is, and the step of its newest checkpoint."""
    status = files.read_json(path) if path.exists() else {"state": NEW}
    state, step = status.get("state"), status.get("checkpoint")
    if not isinstance(state, str):
        raise damaged(f"{path.name} should hold a text 'state', but has {state!r}", path)
    if not isinstance(step, int | None):
        raise damaged(f"{path.name} should hold a whole number or null 'checkpoint', but has {step!r}", path)
    return state, step


def _check_is_run(folder: Path) -> None:
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise AnalysisError(f"run folder {folder.name!r} {problem}", str(folder))
    needed = ("config.yaml", "manifest.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if not missing:
        return
    if len(missing) < len(needed):
        raise AnalysisError(
            f"run folder is half-written: {', '.join(missing)} is missing", str(folder), exit_code=DAMAGED
        )
    inside = sorted(path.name for path in folder.iterdir())
    if not inside:
        raise AnalysisError("the folder is empty", str(folder), "A run folder holds config.yaml and manifest.json")
    runs = [name for name in inside if (folder / name / "config.yaml").is_file()]
    hint = f"It holds {len(runs)} run folders; name those: {folder}/*" if runs else f"It holds: {', '.join(inside[:5])}"
    raise AnalysisError("not a run folder: no config.yaml and no manifest.json", str(folder), hint)


def _log(path: Path, columns: Mapping[str, str], torn_tail: bool) -> pd.DataFrame | None:
    return _rows_or_none(files.read_jsonl(path, torn_tail), columns, path) if path.exists() else None


def _rows_or_none(rows: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame | None:
    if len(rows) == 0:
        return None
    return files.check_columns(rows, columns, path)


def look_up(config: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
