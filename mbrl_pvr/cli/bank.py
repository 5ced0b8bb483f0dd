"""The commands of trajectory banks: make one, list them."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl_pvr.cli.output import say, say_json, table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    bank = typer.Typer(
        help="Trajectory banks: episodes stored once, to learn from (train data=BANK) and to measure on.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    bank.command("make")(make)
    bank.command("list")(show)
    app.add_typer(bank, name="bank")


def make(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="env=NAME env.size=64 seed=1 …")
    ] = None,
    dir: Annotated[Path | None, typer.Option("--dir", help="The bank's folder [default: banks/<env>].")] = None,
    episodes: Annotated[int, typer.Option(help="How many.")] = 200,
    expert: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A run whose agent makes half of them, with and without noise.")
    ] = None,
    shift: Annotated[
        list[str] | None, typer.Option(help="Draw every state under this shift too; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Store whole episodes of a task; the same command goes on where it was interrupted."""
    from mbrl_pvr import api
    from mbrl_pvr.display import Display

    with Display(what="trajectories:") as display:
        bank = api.make_bank(
            overrides or [], dir, episodes=episodes, expert=expert, shifts=shift or (), progress=display.progress
        )
    if as_json:
        say_json({"path": bank.path, "id": bank.id, "episodes": len(bank), "frames": bank.frames})
    else:
        say(f"{bank.path}: {len(bank)} trajectories, {bank.frames:,} frames, id {bank.id}")
        say(f"Use it: mbrl-pvr train data={bank.path}, or mbrl-pvr record RUN --bank {bank.path}")


def show(
    dir: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="Where to look [default: banks].")] = None,
    as_json: Json = False,
) -> None:
    """List the finished banks in a folder."""
    from mbrl_pvr import api

    rows = [
        {
            "bank": bank.path,
            "id": bank.id,
            "task": bank.env.name,
            "pixels": bank.env.size,
            "trajectories": len(bank),
            "frames": bank.frames,
            "kinds": ", ".join(f"{n} {kind}" for kind, n in bank.kinds.items()),
            "shifts": ", ".join(bank.shifts),
            "mean return": round(bank.mean_return, 1),
        }
        for bank in api.list_banks(dir)
    ]
    if as_json:
        say_json(rows)
    elif rows:
        say(table([tuple(row.values()) for row in rows], tuple(rows[0])))
    else:
        say("no banks here. Make one with: mbrl-pvr bank make env=NAME")
