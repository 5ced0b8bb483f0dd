"""The tables of run folders: of one, of all in a folder, or of a study. What is half-written, damaged or no run stops
nothing: it is left out and listed. Many files are read at once, since a study has thousands of small ones.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from analysis import files
from analysis.errors import AnalysisError, damaged
from analysis.files import INTEGER, NUMBER, OPTIONAL, TEXT
from analysis.runs import EPISODE_COLUMNS, ID_LETTERS, METRIC_COLUMNS, NEW, OOD_COLUMNS, Run, check_config, read_head
from analysis.window_errors import ERROR_COLUMNS, errors_of_run

TABLES = ("runs", "metrics", "episodes", "ood", "errors")
OWN = ("id", "name", "part", "state", "step", "agent", "encoder", "task", "seed", "command", "path")
JSON_COLUMNS = ("config", "manifest")
STUDY_FILE, STUDY_RUNS = "study.json", "runs"
TOGETHER = 20  # runs whose files are read at once: their logs fit into the caches of a processor
_TYPES = {TEXT: pa.string(), INTEGER: pa.int64(), NUMBER: pa.float64(), OPTIONAL: pa.float64()}
_BAD = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
Tables = dict[str, pa.Table]


def is_study(path: Path) -> bool:
    """Whether a study lies there."""
    return (path / STUDY_FILE).is_file()


def read_folder(
    path: Path, wanted: Collection[str], skipped: dict[str, str], metrics: Sequence[str] | None = None
) -> Tables:
    """The tables of one run folder, of a study, or of the run folders in a folder; all `metrics`, or these alone."""
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
    runs = list(heads.values())
    readers: dict[str, Callable[[], Iterator[pa.Table]]] = {
        "metrics": lambda: _read_logs(runs, "metrics.jsonl", METRIC_COLUMNS, skipped, metrics),
        "episodes": lambda: _read_logs(runs, "episodes.jsonl", EPISODE_COLUMNS, skipped),
        "ood": lambda: _each(runs, _read_ood, "ood.parquet", OOD_COLUMNS, skipped),
        "errors": lambda: _each(runs, errors_of_run, "errors.parquet", ERROR_COLUMNS, skipped),
    }
    columns = {"metrics": METRIC_COLUMNS, "episodes": EPISODE_COLUMNS, "ood": OOD_COLUMNS, "errors": ERROR_COLUMNS}
    tables = {"runs": _runs_table(runs, planned)}
    return tables | {name: _stack(readers[name](), columns[name]) for name in TABLES[1:] if name in wanted}


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


def _each(
    runs: Sequence[Run],
    read: Callable[[Run], pa.Table | None],
    file: str,
    columns: Mapping[str, str],
    skipped: dict[str, str],
) -> Iterator[pa.Table]:
    """What runs have in `file`, with their ids, many checked at once; what is damaged is listed."""
    for start in range(0, len(runs), TOGETHER):
        found = []
        for run in runs[start : start + TOGETHER]:
            try:
                table = read(run)
                if table is not None and table.num_rows:
                    found.append((run, table))
            except AnalysisError as error:
                skipped[error.where or str(run.path)] = error.what
        if not found:
            continue
        try:
            ids, counts = [run.id for run, _ in found], [table.num_rows for _, table in found]
            yield _typed(_owned(join([table for _, table in found]), ids, counts), columns, Path(file))
        except AnalysisError:
            for run, table in found:
                try:
                    yield _typed(_owned(table, [run.id], [table.num_rows]), columns, run.path / file)
                except AnalysisError as error:
                    skipped[error.where] = error.what


def _owned(table: pa.Table, ids: Sequence[str], counts: Sequence[int]) -> pa.Table:
    """The table with the column `run`: how many of its rows each id has, one after the other."""
    return table.add_column(0, "run", pa.array(np.repeat(np.array(ids, dtype=object), counts), pa.string()))


def _stack(tables: Iterable[pa.Table], columns: Mapping[str, str]) -> pa.Table:
    """One table of all rows, with all known columns also where there is no row."""
    schema = pa.schema([("run", pa.string()), *((name, _TYPES[kind]) for name, kind in columns.items())])
    stacked, waiting = [schema.empty_table()], list[pa.Table]()
    for table in tables:
        waiting.append(table)
        if len(waiting) == TOGETHER:
            stacked.append(join(waiting).combine_chunks())
            waiting = []
    return join([*stacked, *waiting])


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of all rows. A column that one lacks is null there; one whose types differ becomes numbers, or text."""
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    types: dict[str, list[pa.DataType]] = {}
    for table in tables:
        for name, column in zip(table.column_names, table.columns, strict=True):
            there = column.null_count < len(column)
            types.setdefault(name, [column.type]).extend([column.type] * there)
    wanted = {name: _common(seen[1:] or seen) for name, seen in types.items()}
    return pa.concat_tables([_fitted(table, wanted) for table in tables], promote_options="default")


def _common(types: Sequence[pa.DataType]) -> pa.DataType:
    if len(set(types)) == 1:
        return types[0]
    number = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types)
    return pa.float64() if number else pa.string()


def _fitted(table: pa.Table, wanted: Mapping[str, pa.DataType]) -> pa.Table:
    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if column.type != wanted[name]:
            table = table.set_column(place, name, column.cast(wanted[name]))
    return table


def _read_logs(
    runs: Sequence[Run],
    name: str,
    columns: Mapping[str, str],
    skipped: dict[str, str],
    others: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """The rows of logs with `columns`, and with all others or the given ones, which are numbers; many parsed at once,
    and one by one where that fails, to know which is damaged.
    """
    for start in range(0, len(runs), TOGETHER):
        texts: dict[str, bytes] = {}
        some = runs[start : start + TOGETHER]
        for run in some:
            try:
                texts[run.id] = _whole_lines(run.path / name, skipped)
            except AnalysisError as error:
                skipped[str(run.path / name)] = error.what
        lines = [text.count(b"\n") for text in texts.values()]
        try:
            table = _parse(b"".join(texts.values()), columns, some[0].path / name, others)
            if table.num_rows != sum(lines):
                raise damaged(f"{name} has empty lines", some[0].path)
            yield _owned(table, list(texts), lines)
        except AnalysisError:
            alone = partial(_of_texts, texts=texts, name=name, columns=columns, others=others)
            yield from _each(some, alone, name, columns, skipped)


def _of_texts(
    run: Run, texts: Mapping[str, bytes], name: str, columns: Mapping[str, str], others: Sequence[str] | None
) -> pa.Table:
    return _parse(texts.get(run.id, b""), columns, run.path / name, others)


def _whole_lines(path: Path, skipped: dict[str, str]) -> bytes:
    """A log, without a last line that is not whole, which is listed; nothing where there is none."""
    data = files.read_bytes(path) if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if tail := data[whole:].strip():
        try:
            json.loads(tail)
            return data + b"\n"
        except ValueError:
            skipped[str(path)] = "its last line is half-written and left out"
    return data[:whole]


def _parse(text: bytes, columns: Mapping[str, str], path: Path, others: Sequence[str] | None) -> pa.Table:
    """The rows of JSON lines; AnalysisError for what is damaged."""
    known = {**columns, **dict.fromkeys(others or (), OPTIONAL)}
    schema = pa.schema([(name, _TYPES[kind]) for name, kind in known.items()])
    if not text or text.isspace():
        return schema.empty_table()
    try:
        table = pa.json.read_json(
            pa.BufferReader(text),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pa.json.ParseOptions(
                schema, unexpected_field_behavior="infer" if others is None else "ignore"
            ),
        )
    except _BAD as error:
        raise damaged(f"{path.name} cannot be read: {' '.join(str(error).split())}", path) from error
    return _typed(table, columns, path)


def _read_ood(run: Run) -> pa.Table | None:
    path = run.path / "ood.parquet"
    return files.read_arrow(path) if path.exists() else None


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
            found[name] = column if column.type == wanted else column.cast(wanted)
        except pa.ArrowException as error:
            raise damaged(f"column {name!r} of {path.name} is {column.type}, not {wanted}", path) from error
        if columns.get(name, OPTIONAL) != OPTIONAL and found[name].null_count:
            raise damaged(f"column {name!r} of {path.name} has rows without a value", path)
    return pa.table(found)


def _free_type(kind: pa.DataType) -> pa.DataType:
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return pa.float64() if number or pa.types.is_null(kind) else pa.string()
