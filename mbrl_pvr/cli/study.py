"""`study plan|run|status`: many runs from one file, calls of `mbrl_pvr.api`; `study work` is what its engines start."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbrl_pvr import api
from mbrl_pvr.cli.output import clean, say, say_json, table

if TYPE_CHECKING:
    from mbrl_pvr.study.plan import Plan
    from mbrl_pvr.study.status import StudyStatus

File = Annotated[str, typer.Argument(metavar="FILE", help="A study's name, such as smoke, or a YAML file.")]
Parts = Annotated[list[str] | None, typer.Option("--part", help="Only this part; may be repeated.")]
Debug = Annotated[bool, typer.Option("--debug", help="Tiny runs, under a minute each.")]
Dir = Annotated[Path | None, typer.Option("--dir", help="The study's folder [default: studies/<name>].")]
Yes = Annotated[bool, typer.Option("--yes", help="More than 10,000 runs are meant.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Runs at once [default: as many as cores and memory hold].")]
REFRESH = 2.0  # seconds
SHOWN = 20  # runs of a table on the screen
FAILED = 7  # exit status where runs failed in the end


def add_to(app: typer.Typer) -> typer.Typer:
    """Register the commands; returns their group."""
    study = typer.Typer(
        help="Studies: many runs from one file, which lose nothing whatever happens.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    study.command("plan")(plan)
    study.command("run")(run)
    study.command("status")(status)
    study.command("work", hidden=True)(work)
    app.add_typer(study, name="study")
    return study


def plan(
    file: File,
    dir: Dir = None,
    part: Parts = None,
    workers: Workers = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Run a few steps of every kind of run here.")
    ] = True,
    debug: Debug = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Say what a study takes before it starts; refuse what cannot fit."""
    planned = api.study_plan(file, dir, parts=part or (), workers=workers, measure=measure, debug=debug, yes=yes)
    say_json(planned) if as_json else say(_plan_text(planned))
    if planned.problems:
        from mbrl_pvr.errors import ConfigError

        raise ConfigError("; ".join(planned.problems), hint="Ask for less, or run it on a larger machine")


def run(
    file: File,
    dir: Dir = None,
    engine: Annotated[str, typer.Option(help="Where its runs run: local, ray or slurm.")] = "local",
    workers: Workers = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of the Ray to use [default: one of its own].")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of sbatch, such as time=240 (minutes); may be repeated."),
    ] = None,
    part: Parts = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="The file was changed: add its new runs, keep all that are there.")
    ] = False,
    debug: Debug = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Do all runs of a study; the same command goes on where it was stopped, killed or failed."""
    where = {"engine": engine, "workers": workers, "address": address, "slurm": slurm or ()}
    how = {"extend": extend, "debug": debug, "yes": yes}
    outcome = api.study_run(file, dir, parts=part or (), **where, **how)  # type: ignore[arg-type]
    if as_json:
        say_json(outcome)
    else:
        say(f"{outcome.path}: {outcome.finished} of {outcome.runs} runs finished")
        for failure in outcome.failures:
            say(failure.text)
    if outcome.failures:
        raise typer.Exit(FAILED)


def status(
    dir: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    once: Annotated[bool, typer.Option("--once", help="Print it once, also in a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Say how far a study is, also while it runs; a terminal is kept up to date."""
    if as_json:
        say_json(api.study_status(dir))
    elif once or not sys.stdout.isatty():
        say(_status_text(api.study_status(dir)))
    else:
        _watch(dir)


def work(
    dir: Annotated[Path, typer.Argument(metavar="DIR")],
    run_id: Annotated[str, typer.Argument(metavar="ID")],
    parent: Annotated[int, typer.Option(help="The process that this one ends with.")] = 0,
) -> None:
    """Take one run of a study through its stages."""
    from mbrl_pvr.study.work import work

    work(dir, run_id, parent)


def _watch(dir: Path) -> None:
    from rich.live import Live
    from rich.text import Text

    now = api.study_status(dir)
    with Live(Text(clean(_status_text(now))), auto_refresh=False) as live:
        while now.counts["finished"] + now.counts["failed"] < len(now.runs):
            time.sleep(REFRESH)
            now = api.study_status(dir)
            live.update(Text(clean(_status_text(now))), refresh=True)


def _status_text(now: "StudyStatus") -> str:
    counted = ", ".join(f"{count} {state}" for state, count in now.counts.items() if count)
    left = "unknown" if now.seconds_left is None else _hours(now.seconds_left)
    lines = [
        f"study {now.name}: {len(now.runs)} runs, {counted}",
        f"{now.steps:,} of {now.of_steps:,} steps, {now.steps_per_second:.1f} a second now, time left: {left}",
    ]
    parts = dict.fromkeys(run.part for run in now.runs)
    if len(parts) > 1:
        rows = [
            (part, len(runs), *(sum(run.state == state for run in runs) for state in now.counts))
            for part, runs in ((part, [run for run in now.runs if run.part == part]) for part in parts)
        ]
        lines += ["", table(rows, ("part", "runs", *now.counts))]
    busy = [run for run in now.runs if run.state in ("running", "silent", "interrupted")]
    if busy:
        shown = [
            (
                *(run.name, run.state, run.stage, f"{run.step:,}/{run.steps:,}"),
                "" if run.steps_per_second is None else f"{run.steps_per_second:.1f}",
                "" if run.seconds_left is None else _hours(run.seconds_left),
                "" if run.seconds_silent is None else f"{_age(run.seconds_silent)} ago",
            )
            for run in busy[:SHOWN]
        ]
        lines += ["", table(shown, ("run", "state", "stage", "step", "steps/s", "left", "last sign"))]
        lines += [f"and {len(busy) - SHOWN} more"] if len(busy) > SHOWN else []
    silent = [run.seconds_silent for run in now.runs if run.seconds_silent is not None and run.state == "silent"]
    if silent:
        lines += ["", f"silent: no sign of a worker for {_age(min(silent))} or more; it, or its machine, may be gone"]
    failed = [run for run in now.runs if run.state == "failed"]
    for run in failed[:SHOWN]:
        lines += ["", f"{run.name} failed in {run.stage}: {run.error}", *(f"  {line}" for line in run.log)]
    lines += [f"and {len(failed) - SHOWN} more have failed"] if len(failed) > SHOWN else []
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else _hours(seconds)


def _plan_text(planned: "Plan") -> str:
    def number(value: float | None, spec: str = ".1f") -> str:
        return "" if value is None else format(value, spec)

    head = (
        *("part", "agent", "encoder", "env", "settings", "runs", "steps"),
        *("s/step", "h/run", "replay", "memory", "GPU", "disk", "at once"),
    )
    rows = [
        (
            *(kind.part, kind.agent, kind.encoder, kind.env),
            " ".join(f"{key}={value}" for key, value in kind.differs.items()),
            *(kind.runs, f"{kind.steps:,}"),
            *(number(kind.step_seconds, ".4f"), number(kind.run_hours, ".2f"), number(kind.replay_gib, ".2f")),
            number(kind.memory_gib),
            "" if kind.gpu_gib is None else f"{number(kind.gpu_gib)} of {number(kind.gpu_share_gib)}",
            *(number(kind.disk_gib, ".2f"), kind.at_once),
        )
        for kind in planned.kinds
    ]
    told = [column for column in range(len(head)) if any(row[column] != "" for row in rows)]
    lines = [
        table([[row[column] for column in told] for row in rows], [head[column] for column in told]),
        "",
        f"study {planned.name}: {planned.runs:,} runs; replay, memory and disk in GiB of one run",
    ]
    if planned.hours is not None and planned.worker_hours is not None:
        lines.append(f"{planned.worker_hours:,.1f} hours of one worker, {planned.hours:,.1f} hours on this machine")
        lines.append(f"disk: {planned.disk_gib:,.1f} GiB, {planned.free_disk_gib:,.1f} are free")
    lines += [f"weights that are not here and would be fetched: {address}" for address in planned.to_fetch]
    lines += [f"does not fit this machine: {note}" for note in planned.notes]
    return "\n".join(lines)
