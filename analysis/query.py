"""SQL over the tables of many runs, in DuckDB, from which no file and no network can be reached."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.export import CLOSED
from analysis.folders import TABLES
from analysis.results import read_tables

SHOWN = 40  # columns that an error lists


@dataclass(frozen=True)
class Answer:
    """What a query gave, and what of the runs was left out, with the reason."""

    rows: pd.DataFrame
    skipped: dict[str, str] = field(default_factory=dict)


def query(paths: Sequence[str | Path], sql: str) -> Answer:
    """The rows that one SELECT gives over `TABLES`, of which only those are read that it names.

    Raises AnalysisError for what is wrong in it, with the tables and the columns that there are.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config={k: v for k, v in CLOSED.items() if k != "lock_configuration"})
    tables, skipped = read_tables(paths, _named(connection, sql))
    for name, table in tables.items():
        connection.register(name, table)
    connection.execute("SET lock_configuration = true")
    try:
        return Answer(connection.execute(sql).df(), skipped)
    except duckdb.Error as error:
        raise AnalysisError(f"the query failed: {_short(error)}", hint=_columns(tables)) from error
    finally:
        connection.close()


def _named(connection: Any, sql: str) -> list[str]:
    """The tables that a query names; AnalysisError where it is not one SELECT."""
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        kinds = [statement.type.name for statement in statements]
        if kinds != ["SELECT"]:
            what = f"a query is one SELECT, not {' and '.join(kinds) or 'nothing'}"
            raise AnalysisError(what, hint=f"Tables: {', '.join(TABLES)}. DESCRIBE runs lists the columns of one")
        named = {name.lower() for name in connection.get_table_names(sql)}
        return [name for name in TABLES if name in named or not named]  # SHOW TABLES names none
    except duckdb.Error as error:
        raise AnalysisError(f"the query failed: {_short(error)}", hint=f"Tables: {', '.join(TABLES)}") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _columns(tables: dict[str, Any]) -> str:
    lines = [f"Tables: {', '.join(TABLES)}"]
    for name, table in tables.items():
        columns = sorted(table.column_names, key=lambda column: "." in column)
        more = f", … DESCRIBE {name} lists all {len(columns)}" if len(columns) > SHOWN else ""
        lines.append(f"{name}: {', '.join(columns[:SHOWN])}{more}")
    return "\n".join(lines)
