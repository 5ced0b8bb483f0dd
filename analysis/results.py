"""Many runs as five tables: `runs`, `metrics`, `episodes`, `ood`, `errors`. Queries, exports and claims read these.

They are read from run folders, from a folder that holds some, from a study, and from files of `analysis.export`. What
is half-written, damaged or no run stops nothing: it is left out and listed.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis import export
from analysis.errors import AnalysisError, damaged
from analysis.files import read_json
from analysis.folders import JSON_COLUMNS, OWN, STUDY_FILE, TABLES, Tables, is_study, read_folder
from analysis.records import find_records
from analysis.runs import ELAPSED, NEW, Run, check_config, load_runs, look_up


@dataclass(frozen=True)
class Results:
    """The runs of a study, or of several folders and exports. `runs` has a row for each, with every setting of its
    configuration in a column of its own ("agent.lr"), null where it has none; the rows of the other tables say by `run`
    which of their ids they belong to.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    episodes: pd.DataFrame
    ood: pd.DataFrame
    errors: pd.DataFrame  # `window_errors.ERROR_COLUMNS`
    skipped: dict[str, str] = field(default_factory=dict)  # file or folder to why it was left out


def load_results(paths: Iterable[str | Path]) -> Results:
    """All five tables as DataFrames; raises AnalysisError where there is no run at all."""
    tables, skipped = read_tables(paths)
    return Results(**{name: table.to_pandas() for name, table in tables.items()}, skipped=skipped)


def read_tables(
    paths: Iterable[str | Path], wanted: Collection[str] = TABLES, metrics: Sequence[str] | None = None
) -> tuple[Tables, dict[str, str]]:
    """The wanted tables, and `runs` in any case; and what was left out, with the reason. Of folders all `metrics` are
    read, or these alone, which is faster.

    A path is a run folder, a folder of run folders, a study, or an export. Runs of one id in two places count once
    where they hold the same. Raises AnalysisError where they do not, and where there is no run at all.
    """
    skipped: dict[str, str] = {}
    places = [Path(path).expanduser() for path in paths]
    folders = [path for path in places if not export.is_export(path)]
    parts: list[tuple[str, Tables]] = [
        (str(path), export.read_export(path, wanted)) for path in places if path not in folders
    ]
    parts += [(str(folder), read_folder(folder, wanted, skipped, metrics)) for folder in folders]
    merged = export.merge(parts) if len(parts) > 1 else dict(parts[0][1]) if parts else {}
    if not merged or merged["runs"].num_rows == 0:
        reasons = [f"{path}: {reason}" for path, reason in list(skipped.items())[:5]]
        where = ", ".join(map(str, places))
        hint = "\n".join(reasons) or "Give a study, a folder of runs, or a file of `mbrl-pvr study export`"
        raise AnalysisError("there are no runs here", where, hint)
    return merged, skipped


def load_sources(paths: Sequence[str | Path | Run]) -> tuple[list[Run], dict[str, str]]:
    """Runs of studies and exports one by one, beside the run folders and runs among `paths`, which stay as they are;
    and what of the former was left out, with the reason.
    """
    runs: list[Run | str | Path] = []
    skipped: dict[str, str] = {}
    exports = [Path(path) for path in paths if not isinstance(path, Run) and export.is_export(Path(path))]
    for path in paths:
        if isinstance(path, Run) or Path(path) in exports:
            runs += [path] if isinstance(path, Run) else []
        elif is_study(Path(path)):
            tables, missed = read_tables([path], [name for name in TABLES if name != "errors"], [ELAPSED])
            skipped |= missed
            runs += [_with_records(run, skipped) for run in to_runs(tables) if run.state != NEW]
        else:
            runs.append(path)
    if exports:
        tables, missed = read_tables(exports)
        skipped |= missed
        runs += [replace(run, exported=True) for run in to_runs(tables) if run.state != NEW]
    return load_runs(runs), skipped


def hold_a_study(paths: Sequence[str | Path]) -> bool:
    """Whether there is a study or an export among them, so that claims can be asked about."""
    return any(is_study(Path(path)) or export.is_export(Path(path)) for path in paths)


def study_names(paths: Sequence[str | Path]) -> list[str]:
    """Names of the studies among them, and of those whose runs an export among them holds."""
    found = dict[str, None]()
    for path in map(Path, paths):
        if export.is_export(path):
            found |= dict.fromkeys(export.studies_in(path))
        elif is_study(path) and isinstance(name := look_up(read_json(path / STUDY_FILE), "study.name"), str):
            found[name] = None
    return list(found)


def _with_records(run: Run, skipped: dict[str, str]) -> Run:
    try:
        return replace(run, errors=None, records=find_records(run.path))
    except AnalysisError as error:
        skipped[error.where or str(run.path)] = error.what
        return replace(run, errors=None)


def to_runs(tables: Tables) -> list[Run]:
    """The runs of the tables, one by one, as far as the tables are there; raises AnalysisError for what is damaged."""
    logs = {name: _by_run(tables[name]) for name in TABLES[1:] if name in tables}
    found = []
    for row in tables["runs"].select([*OWN, *JSON_COLUMNS]).to_pylist():
        where = Path(row["path"] or row["name"])
        try:
            config, manifest = json.loads(row["config"]), json.loads(row["manifest"])
        except (ValueError, TypeError) as error:
            raise damaged("the configuration of a run is not valid JSON", where) from error
        rows: dict[str, Any] = {name: log.get(row["id"]) for name, log in logs.items()}
        found.append(
            Run(
                path=where,
                id=row["id"],
                state=row["state"],
                step=row["step"],
                config=check_config(config, where),
                manifest=manifest,
                **rows,
            )
        )
    return found


def _by_run(table: pa.Table) -> dict[str, pd.DataFrame]:
    """The rows of each run that has some; they stand together."""
    owner = table["run"].to_numpy(zero_copy_only=False)
    frame = table.drop_columns("run").to_pandas(strings_to_categorical=True)
    texts = frame.select_dtypes("category").columns
    frame = frame.astype(dict.fromkeys(texts, object))  # of these thousands of slices are fast
    begins = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else np.array([], int)
    ends = [*begins[1:].tolist(), len(owner)]
    return {str(owner[a]): frame.iloc[a:b] for a, b in zip(begins.tolist(), ends, strict=False)}
