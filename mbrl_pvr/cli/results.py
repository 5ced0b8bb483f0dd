"""What many runs gave: `query`, and `study export|claims`; calls of `mbrl_pvr.api`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbrl_pvr import api
from mbrl_pvr.cli.output import clean, say, say_json, table

if TYPE_CHECKING:
    import pandas as pd

Results = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="A study, a folder of runs, or a file of `study export`.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SHOWN = 20  # of what was left out


def add_to(app: typer.Typer, study: typer.Typer) -> None:
    """Register the commands."""
    app.command("query")(query)
    study.command("export")(export)


def query(
    dir: Annotated[Path, typer.Argument(metavar="DIR", help="A study, a folder of runs, or a file of `study export`.")],
    sql: Annotated[str, typer.Argument(metavar="SQL", help="SELECT … FROM runs | metrics | episodes | ood | errors")],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask all runs of a study in SQL; DESCRIBE runs, say, lists the columns of a table."""
    answer = api.query(dir, sql)
    if as_json:
        say_json(answer.rows)
    elif as_csv:
        say(answer.rows.to_csv(index=False, lineterminator="\n").removesuffix("\n"))
    else:
        say(_text(answer.rows))
    say_skipped(answer.skipped)


def export(
    dir: Results,
    out: Annotated[Path | None, typer.Option("--out", help="The file [default: DIR.duckdb].")] = None,
    as_json: Json = False,
) -> None:
    """Write all numbers of a study into one file, without weights, features and latents; several are put together."""
    made = api.study_export(dir, out)
    if as_json:
        say_json(made)
        return
    counted = ", ".join(f"{count:,} {name}" for name, count in made.rows.items())
    say(f"{made.path}: {made.bytes / 1e6:.1f} MB, {counted}")
    say_skipped(made.skipped)


def say_skipped(skipped: Mapping[str, str]) -> None:
    """On standard error, so that what is printed can be read by machines."""
    lines = [f"left out: {path}: {reason}" for path, reason in list(skipped.items())[:SHOWN]]
    lines += [f"and {len(skipped) - SHOWN} more"] if len(skipped) > SHOWN else []
    for line in lines:
        print(clean(line), file=sys.stderr)


def _text(rows: "pd.DataFrame") -> str:
    """Aligned columns; numbers with six digits, empty where there is no value."""
    if rows.empty:
        return "no rows: " + ", ".join(map(str, rows.columns))
    return table([[_cell(v) for v in row] for row in rows.itertuples(index=False)], [str(c) for c in rows.columns])


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
