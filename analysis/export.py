"""One file with the tables of a study (`analysis.results`): a DuckDB database, which can be read without this package.

Exports of one study made on several machines are put together by `merge`.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis.errors import NOT_WRITTEN, AnalysisError, damaged
from analysis.folders import JSON_COLUMNS, OWN, TABLES, Tables, join
from analysis.runs import FINISHED, NEW

FORMAT = 1  # newest layout of an export that this code knows
ABOUT = "export"  # the table that says what the file is
STUDIES = "studies"  # its column with the names of the studies that were exported, between blanks
MAGIC, MAGIC_AT = b"DUCK", 8
CLOSED: dict[str, Any] = {  # nothing but the opened file can be reached, and nothing can open that up again
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",  # which is open to queries, and else lies where the command runs
    "lock_configuration": True,
}
DONE = (2, 0)  # how far a finished run is
NOT_CONTENT = ("path", "name", "part", "command")  # of `runs`: where and by whom it was made


def is_export(path: Path) -> bool:
    """Whether a file is a DuckDB database."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC)).endswith(MAGIC)


def write_export(temporary: Path, tables: Tables, about: dict[str, str]) -> None:
    """Write all five tables, and what `about` says of them, into a new file; where the runs lay is left out. Raises
    AnalysisError where the disk refuses.
    """
    import duckdb

    try:
        with duckdb.connect(str(temporary)) as connection:
            place = tables["runs"].schema.get_field_index("path")
            runs = tables["runs"].set_column(place, "path", pa.nulls(tables["runs"].num_rows, pa.string()))
            facts = pa.table({key: [value] for key, value in {"format": FORMAT, **about}.items()})
            for name, table in {ABOUT: facts, **{name: tables[name] for name in TABLES}, "runs": runs}.items():
                connection.register("given", table)
                connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM given')
                connection.unregister("given")
    except duckdb.Error as error:
        raise AnalysisError(f"cannot write: {_one_line(error)}", str(temporary), exit_code=NOT_WRITTEN) from error


def read_export(path: Path, wanted: Collection[str] = TABLES) -> Tables:
    """`runs` and the wanted tables of an export; raises AnalysisError for other, damaged and newer files."""
    needed = {"runs": (*OWN, *JSON_COLUMNS)}
    with _open(path) as connection:
        _check_format(connection, path)
        tables = {}
        for name in TABLES:
            if name == "runs" or name in wanted:
                tables[name] = connection.sql(f'SELECT * FROM "{name}"').to_arrow_table()
                if missing := [c for c in needed.get(name, ("run",)) if c not in tables[name].column_names]:
                    raise damaged(f"table {name} of {path.name} has no column {missing[0]!r}", path)
    return tables


def studies_in(path: Path) -> list[str]:
    """Names of the studies that an export holds runs of; none where it was made before they were kept. Raises
    AnalysisError for other, damaged and newer files.
    """
    with _open(path) as connection:
        _check_format(connection, path)
        about = connection.sql(f"SELECT * FROM {ABOUT}").to_arrow_table().to_pylist()[0]
    return str(about.get(STUDIES, "")).split()


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True, config=CLOSED) as connection:
            yield connection
    except duckdb.Error as error:
        raise damaged(f"{path.name} cannot be read: {_one_line(error)}", path) from error


def _check_format(connection: Any, path: Path) -> None:
    there = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not {ABOUT, *TABLES} <= there:
        raise AnalysisError(
            "this database is no export of a study", str(path), "Make one: mbrl-pvr study export DIR --out FILE"
        )
    numbers = [row[0] for row in connection.execute(f"SELECT format FROM {ABOUT}").fetchall()]
    if len(numbers) != 1 or not isinstance(numbers[0], int) or numbers[0] > FORMAT:
        raise damaged(f"{path.name} has format {numbers}; this version reads up to {FORMAT}", path)


def merge(parts: Sequence[tuple[str, Tables]]) -> Tables:
    """The tables of all parts, which are named; a run that several hold alike counts once, as in the first. Raises
    AnalysisError where they hold different things of it.

    What may differ between equal runs is not compared: fields that begin with "time/", and where they lie. A finished
    run stands before an unfinished one, of two unfinished ones that which trained further, and of two finished ones
    that which also was played or recorded later.
    """
    merged, names = dict(parts[0][1]), [parts[0][0]]
    for name, tables in parts[1:]:
        old, new = _progress(merged["runs"]), _progress(tables["runs"])
        done = sorted(run for run in new if run in old and old[run] == new[run] == DONE)
        differing, fuller = _held_against(merged, tables, done)
        if differing:
            what = f"run {differing[0]!r} is in two places, with different content"
            raise AnalysisError(what, f"{' or '.join(names)}, and {name}", "Give the one that is right")
        fresh = {run for run in new if run not in old or new[run] > old[run]} | fuller
        merged = {
            table: join(
                [
                    _of_runs(merged[table], table, [run for run in old if run not in fresh]),
                    _of_runs(tables[table], table, [run for run in new if run in fresh]),
                ]
            )
            for table in merged
        }
        names.append(name)
    return merged


def _progress(runs: pa.Table) -> dict[str, tuple[int, int]]:
    """Run id to how far it is; more is further."""
    rows = zip(*(runs[name].to_pylist() for name in ("id", "state", "step")), strict=True)
    return {
        run: DONE if state == FINISHED else (int(state != NEW), -1 if step is None else step)
        for run, state, step in rows
    }


def _of_runs(table: pa.Table, name: str, runs: Sequence[str]) -> pa.Table:
    """The rows of some runs."""
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["id" if name == "runs" else "run"], pa.array(runs, pa.string())))


def _held_against(left: Tables, right: Tables, runs: Sequence[str]) -> tuple[list[str], set[str]]:
    """Of runs that both sides have: those that hold different rows in a table, or of which each side lacks one; and
    those of which the left side alone lacks one.
    """
    differing, lacks = set[str](), (set[str](), set[str]())
    for name in left:
        mine, theirs = (_contents(_of_runs(tables[name], name, runs), name) for tables in (left, right))
        differing |= {run for run in mine.keys() & theirs.keys() if not _alike(mine[run], theirs[run])}
        lacks[0].update(theirs.keys() - mine.keys())
        lacks[1].update(mine.keys() - theirs.keys())
    return sorted(differing | (lacks[0] & lacks[1])), lacks[0] - lacks[1]


def _contents(table: pa.Table, name: str) -> dict[str, pd.DataFrame]:
    """The rows of each run, without what may differ between equal ones."""
    ignored = {*NOT_CONTENT, *JSON_COLUMNS} if name == "runs" else set()
    kept = [column for column in table.column_names if not column.startswith("time/") and column not in ignored]
    grouped = table.select(kept).to_pandas().groupby("id" if name == "runs" else "run", sort=False)
    return {str(run): rows for run, rows in grouped}


def _alike(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    """Whether the rows say the same; a column without a value says nothing."""
    sides = [side.dropna(axis="columns", how="all").astype(object) for side in (left, right)]
    sides = [side.where(side.notna(), None) for side in sides]
    columns = sorted(sides[0])
    return (
        columns == sorted(sides[1]) and sides[0][columns].to_numpy().tolist() == sides[1][columns].to_numpy().tolist()
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
