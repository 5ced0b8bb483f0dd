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

    from analysis.claims import ClaimVerdict

Results = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="A study, a folder of runs, or a file of `study export`.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Claims = Annotated[
    str | None,
    typer.Option(
        "--claims",
        metavar="NAME|FILE",
        help="A file of configs/claims, or any [default: the one called as the study, else schneider2024].",
    ),
]
SHOWN = 20  # of what was left out
EXACT = 2**53  # whole numbers up to here are printed in full


def add_to(app: typer.Typer, study: typer.Typer) -> None:
    """Register the commands."""
    app.command("query")(query)
    study.command("export")(export)
    study.command("claims")(claims)


def query(
    dir: Annotated[Path, typer.Argument(metavar="DIR", help="A study, a folder of runs, or a file of `study export`.")],
    sql: Annotated[str, typer.Argument(metavar="SQL", help="SELECT … FROM runs | metrics | episodes | ood | errors")],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask all runs of a study in SQL; DESCRIBE runs, say, lists the columns of a table."""
    answer = api.query(dir, sql)
    if as_json:
        say_json(_plain(answer.rows).to_dict(orient="records"))
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
    say(f"{made.path}: {made.file_bytes / 1e6:.1f} MB, {counted}")
    say_skipped(made.skipped)


def claims(
    dir: Results,
    file: Claims = None,
    as_json: Json = False,
) -> None:
    """Say which claims the runs of a study support, which they refute, and what is undecided."""
    found = api.study_claims(dir, file)
    say_json(found) if as_json else say("\n\n".join([f"claims of {found[0].source}", *map(_verdict_text, found)]))


def _verdict_text(verdict: "ClaimVerdict") -> str:
    lines = [f"{verdict.claim}, {verdict.agent}: {verdict.outcome}", f"  {verdict.says}"]
    lines += [f"  {verdict.reason}"] if verdict.reason else []
    if verdict.further_seeds is not None:
        lines.append(f"  about {verdict.further_seeds} further seeds would decide it, were the effects as observed")
    head = ("", "outcome", "effect", f"{100 * verdict.level:.3g} % interval", "n", "tasks", "further seeds")
    rows = [
        (
            *(one.encoder, one.outcome, _number(one.effect)),
            "" if one.low is None else f"[{_number(one.low)}, {_number(one.high)}]",
            *(one.n, one.tasks, "" if one.further_seeds is None else one.further_seeds),
        )
        for one in verdict.comparisons
    ]
    return "\n".join([*lines, *(f"  {line}" for line in table(rows, head).splitlines())] if rows else lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


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
    cells = [[_cell(value) for value in row] for row in _plain(rows).itertuples(index=False)]
    return table(cells, [str(column) for column in rows.columns])


def _plain(rows: "pd.DataFrame") -> "pd.DataFrame":
    """With None in the place of all that pandas has for no value."""
    return rows.astype(object).where(rows.notna(), None)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value.is_integer() and abs(value) < EXACT else f"{value:.6g}"
