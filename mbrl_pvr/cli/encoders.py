"""`encoders download`: the weights that encoders need, for this machine or for one without a network."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mbrl_pvr import api
from mbrl_pvr.cli.output import say, say_json, table

PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal


def add_to(app: typer.Typer) -> None:
    """Register the command with the group `encoders`, which is there already."""
    group = next(group for group in app.registered_groups if group.name == "encoders").typer_instance
    assert group is not None
    group.command("download")(download)


def download(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAMES]...", help="Encoders.")] = None,
    study: Annotated[
        Path | None, typer.Option("--for", metavar="STUDY.yaml", help="A YAML file; all that it names as encoder.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="A folder for another machine's MBRL_PVR_CACHE [default: the cache]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch the weights of encoders, with their checksums compared; a download that was cut off goes on."""
    with _Bars() as bars:
        fetched = api.download_encoders(names or [], to, study=study, progress=bars.show)
    if as_json:
        say_json(fetched)
        return
    rows = [(f.encoder, f"{f.bytes / 1e6:,.1f} MB" if f.file else "", f.sha256[:12], f.file or f.note) for f in fetched]
    say(table(rows, ("encoder", "size", "sha256", "file")))
    if to is not None:
        say(f"\nUse it: MBRL_PVR_CACHE={to.expanduser().absolute()} HF_HUB_OFFLINE=1")


class _Bars:
    """How far each download is, on standard error: bars in a terminal, a plain line now and then elsewhere."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        self._printed = 0.0

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, name: str, done: int, total: int | None) -> None:
        """`done` bytes of `total`, if known, are there."""
        if self._progress is None:
            self._progress = _bars()
        if self._progress.console.is_terminal:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total)
            self._progress.update(self._tasks[name], completed=done, total=total)
        elif time.monotonic() - self._printed >= PLAIN_EVERY or done == total:
            self._printed = time.monotonic()
            of = "" if total is None else f" of {total / 1e6:,.1f}"
            self._progress.console.print(f"{name}: {done / 1e6:,.1f}{of} MB", soft_wrap=True, highlight=False)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), refresh_per_second=2)
    if progress.console.is_terminal:
        progress.start()
    return progress
