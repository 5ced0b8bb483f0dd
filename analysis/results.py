"""Many runs as five tables: `runs`, `metrics`, `episodes`, `ood`, `errors`. Queries, exports and claims read these.

They are read from run folders, from a folder that holds some, from a study, and from files of `analysis.export`. What
is half-written, damaged or no run stops nothing: it is left out and listed.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.json

from analysis import files
from analysis.errors import AnalysisError, damaged
from analysis.files import INTEGER, NUMBER, OPTIONAL, TEXT
from analysis.records import find_records
from analysis.runs import EPISODE_COLUMNS, ID_LETTERS, METRIC_COLUMNS, NEW, OOD_COLUMNS, Run, check_config, read_head
from analysis.window_errors import ERROR_COLUMNS, errors_of_run

TABLES = ("runs", "metrics", "episodes", "ood", "errors")
OWN = ("id", "name", "part", "state", "step", "agent", "encoder", "task", "seed", "command", "path")
JSON_COLUMNS = ("config", "manifest")
STUDY_FILE, STUDY_RUNS = "study.json", "runs"
TOGETHER = 500  # tables of runs that are joined at once
_TYPES = {TEXT: pa.string(), INTEGER: pa.int64(), NUMBER: pa.float64(), OPTIONAL: pa.float64()}
_BAD = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)


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


Tables = dict[str, pa.Table]


def load_results(paths: Iterable[str | Path]) -> Results:
    """All five tables as DataFrames; raises AnalysisError where there is no run at all."""
    tables, skipped = read_tables(paths)
    return Results(**{name: table.to_pandas() for name, table in tables.items()}, skipped=skipped)


def read_tables(paths: Iterable[str | Path], wanted: Collection[str] = TABLES) -> tuple[Tables, dict[str, str]]:
    """The wanted tables, and `runs` in any case; and what was left out, with the reason.

    A path is a run folder, a folder of run folders, a study, or an export. Runs of one id in two places count once
    where they hold the same. Raises AnalysisError where they do not, and where there is no run at all.
    """
    from analysis import export

    skipped: dict[str, str] = {}
    places = [Path(path).expanduser() for path in paths]
    folders = [path for path in places if not export.is_export(path)]
    parts: list[tuple[str, Tables]] = [
        (str(path), export.read_export(path, wanted)) for path in places if path not in folders
    ]
    parts += [(str(folder), _read_folder(folder, wanted, skipped)) for folder in folders]
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
    from analysis import export

    runs: list[Run | str | Path] = []
    skipped: dict[str, str] = {}
    exports = [Path(path) for path in paths if not isinstance(path, Run) and export.is_export(Path(path))]
    for path in paths:
        if isinstance(path, Run) or Path(path) in exports:
            runs += [path] if isinstance(path, Run) else []
        elif is_study(Path(path)):
            tables, missed = read_tables([path], [name for name in TABLES if name != "errors"])
            skipped |= missed
            runs += [_with_records(run, skipped) for run in to_runs(tables) if run.state != NEW]
        else:
            runs.append(path)
    if exports:
        tables, missed = read_tables(exports)
        skipped |= missed
        runs += [replace(run, exported=True) for run in to_runs(tables) if run.state != NEW]
    from analysis.runs import load_runs

    return load_runs(runs), skipped


def is_study(path: Path) -> bool:
    """Whether a study lies there."""
    return (path / STUDY_FILE).is_file()


def hold_a_study(paths: Sequence[str | Path]) -> bool:
    """Whether there is a study or an export among them, so that claims can be asked about."""
    from analysis import export

    return any(is_study(Path(path)) or export.is_export(Path(path)) for path in paths)


def _with_records(run: Run, skipped: dict[str, str]) -> Run:
    try:
        return replace(run, errors=None, records=find_records(run.path))
    except AnalysisError as error:
        skipped[error.where or str(run.path)] = error.what
        return replace(run, errors=None)


# ---- folders --------------------------------------------------------------------------------------------------------


def _read_folder(path: Path, wanted: Collection[str], skipped: dict[str, str]) -> Tables:
    """The tables of one run folder, of a study, or of the run folders in a folder."""
    folders, planned = _find_runs(path, skipped)
    heads: dict[str, Run] = {}
    for folder in folders:
        try:
            head = read_head(folder)
            if head.id in heads:
                raise AnalysisError(f"the same run lies in {heads[head.id].path} too")
            heads[head.id] = head
        except AnalysisError as error:
            skipped[str(folder)] = error.what
    tables = {"runs": _runs_table(heads.values(), planned)}
    readers: dict[str, Callable[[Run], pa.Table | None]] = {
        "metrics": lambda run: _read_jsonl(run.path / "metrics.jsonl", METRIC_COLUMNS, skipped),
        "episodes": lambda run: _read_jsonl(run.path / "episodes.jsonl", EPISODE_COLUMNS, skipped),
        "ood": lambda run: _read_ood(run.path / "ood.parquet"),
        "errors": _read_errors,
    }
    columns = {"metrics": METRIC_COLUMNS, "episodes": EPISODE_COLUMNS, "ood": OOD_COLUMNS, "errors": ERROR_COLUMNS}
    for name in TABLES[1:]:
        if name in wanted:
            tables[name] = _stack(_each(heads.values(), readers[name], skipped), columns[name])
    return tables


def _find_runs(path: Path, skipped: dict[str, str]) -> tuple[list[Path], dict[str, dict[str, Any]]]:
    """Run folders, and what the study says of runs by the names of their folders."""
    if (path / "config.yaml").is_file() or (path / "manifest.json").is_file():
        return [path], {}
    planned = _planned(path / STUDY_FILE) if is_study(path) else {}
    inside = path / STUDY_RUNS if is_study(path) else path
    if not path.is_dir():
        skipped[str(path)] = "is a file, and no export" if path.exists() else "does not exist"
        return [], {}
    found = sorted(inside.iterdir()) if inside.is_dir() else []
    return [folder for folder in found if folder.is_dir() and not folder.name.startswith(".")], planned


def _planned(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a run folder to what study.json says of its run: part, command, configuration."""
    try:
        study = files.read_json(path)["study"]
        kinds, found = study["kinds"], {}
        for run in study["runs"]:
            kind = kinds[run["kind"]]
            config = check_config({**kind["config"], "seed": run["seed"]}, path)
            found[run["name"]] = {
                "id": _folder_id(run["id"]),
                "part": kind["part"],
                "command": run["command"],
                "config": config,
            }
        return found
    except (KeyError, TypeError, IndexError) as error:
        raise damaged(f"{path.name} does not describe a study: {error!r} is missing or wrong", path) from error


def _folder_id(run: str) -> str:
    """What the manifest of a run will say, from its id in the study."""
    text = json.dumps({"sha256": run}, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LETTERS]


def _runs_table(heads: Collection[Run], planned: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """One row for each run; those that a study plans and that have no folder yet are `new`."""
    rows = [_row(run, planned.get(run.path.name, {})) for run in heads]
    there = {run.path.name for run in heads}
    for name, facts in planned.items():
        if name not in there:
            absent = Run(path=Path(name), id=facts["id"], state=NEW, step=None, config=facts["config"], manifest={})
            rows.append({**_row(absent, facts), "path": None})
    keys = dict.fromkeys([*OWN, *sorted({key for row in rows for key in row if key not in OWN})])
    return pa.table({key: _column([row.get(key) for row in rows], key) for key in keys})


def _row(run: Run, facts: Mapping[str, Any]) -> dict[str, Any]:
    command = run.manifest.get("command")
    own = {
        "id": run.id,
        "name": run.path.name,
        "part": facts.get("part"),
        "state": run.state,
        "step": run.step,
        "agent": run.agent,
        "encoder": run.encoder,
        "task": run.task,
        "seed": run.seed,
        "command": facts.get("command") or (" ".join(command) if isinstance(command, list) else command),
        "path": str(run.path),
    }
    texts = {"config": json.dumps(run.config, default=str), "manifest": json.dumps(run.manifest, default=str)}
    return {**flat(run.config), **texts, **own}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _column(values: list[Any], name: str) -> pa.Array:
    """Values of one setting: numbers, truth values or text where all are, otherwise text, as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if name == "step":
        return pa.array(values, pa.int64())
    if not kinds or kinds == {str}:
        return pa.array(values, pa.string())
    for kind, types in ((pa.bool_(), {bool}), (pa.int64(), {int}), (pa.float64(), {int, float})):
        if kinds <= types:
            return pa.array(values, kind)
    text = (v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in values)
    return pa.array(list(text), pa.string())


def _each(heads: Iterable[Run], read: Callable[[Run], pa.Table | None], skipped: dict[str, str]) -> Iterator[pa.Table]:
    """What each run has, with its id; what is damaged is listed."""
    for run in heads:
        try:
            table = read(run)
        except AnalysisError as error:
            skipped[error.where or str(run.path)] = error.what
            continue
        if table is not None and table.num_rows:
            yield table.add_column(0, "run", pa.repeat(pa.scalar(run.id), table.num_rows))


def _stack(tables: Iterable[pa.Table], columns: Mapping[str, str]) -> pa.Table:
    """One table of all rows; a column that a run lacks is null in its rows."""
    schema = pa.schema([("run", pa.string()), *((name, _TYPES[kind]) for name, kind in columns.items())])
    stacked, waiting = [schema.empty_table()], list[pa.Table]()
    for table in tables:
        waiting.append(table)
        if len(waiting) == TOGETHER:
            stacked.append(pa.concat_tables(waiting, promote_options="default").combine_chunks())
            waiting = []
    return pa.concat_tables([*stacked, *waiting], promote_options="default")


def _read_jsonl(path: Path, columns: Mapping[str, str], skipped: dict[str, str]) -> pa.Table | None:
    """Rows of a log; a last line that is not whole is listed and left out."""
    if not path.exists():
        return None
    data = files.read_bytes(path)
    whole = data.rfind(b"\n") + 1
    if tail := data[whole:].strip():
        try:
            json.loads(tail)
            data += b"\n"
        except ValueError:
            skipped[str(path)] = "its last line is half-written and left out"
            data = data[:whole]
    if not data.strip():
        return None
    schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
    try:
        table = pa.json.read_json(
            pa.BufferReader(data),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa.json.ParseOptions(explicit_schema=schema),
        )
    except _BAD as error:
        raise damaged(f"{path.name} cannot be read: {' '.join(str(error).split())}", path) from error
    return _typed(table, columns, path)


def _read_ood(path: Path) -> pa.Table | None:
    return _typed(files.read_arrow(path), OOD_COLUMNS, path) if path.exists() else None


def _read_errors(run: Run) -> pa.Table | None:
    table = errors_of_run(run)
    return None if table is None else _typed(table, ERROR_COLUMNS, run.path / "errors.parquet")


def _typed(table: pa.Table, columns: Mapping[str, str], path: Path) -> pa.Table:
    """The table with known columns in their types and all others as numbers or text, so that tables of runs fit
    together; AnalysisError for what is missing.
    """
    if missing := [name for name in columns if name not in table.column_names]:
        raise damaged(f"{path.name} has no column {missing[0]!r}", path)
    found = {}
    for name in table.column_names:
        column = table.column(name)
        wanted = _TYPES[columns[name]] if name in columns else _free_type(column.type)
        try:
            found[name] = column.cast(wanted)
        except pa.ArrowException as error:
            raise damaged(f"column {name!r} of {path.name} is {column.type}, not {wanted}", path) from error
        if columns.get(name, OPTIONAL) != OPTIONAL and found[name].null_count:
            raise damaged(f"column {name!r} of {path.name} has rows without a value", path)
    return pa.table(found)


def _free_type(kind: pa.DataType) -> pa.DataType:
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return pa.float64() if number or pa.types.is_null(kind) else pa.string()


# ---- runs -----------------------------------------------------------------------------------------------------------


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
    """The rows of each run that has some."""
    frame = table.to_pandas()
    return {str(run): rows.drop(columns="run").reset_index(drop=True) for run, rows in frame.groupby("run", sort=False)}
