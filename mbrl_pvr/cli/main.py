"""The entry of the command line, and the one place where errors become lines and exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from mbrl_pvr.cli import bank, embed, encoders, inspect, jobs, results, study
from mbrl_pvr.cli.output import complain

OUR_PACKAGES = ("mbrl_pvr", "world_models", "pvr_zoo", "analysis")
INTERRUPTED, BROKEN_PIPE, STORAGE, UNAVAILABLE = 130, 141, 5, 8
UsageError = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="mbrl-pvr",
    help="Pretrained visual representations for model-based reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
jobs.add_to(app)
inspect.add_to(app)
encoders.add_to(app)
embed.add_to(app)
bank.add_to(app)
results.add_to(app, study.add_to(app))


def _version(wanted: bool) -> None:
    if wanted:
        from mbrl_pvr import __version__

        print(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    traceback: bool = typer.Option(
        False, "--traceback", help="Show where an error came from; also MBRL_PVR_TRACEBACK=1. May stand anywhere."
    ),
) -> None:
    """Options of all commands; `--traceback` is taken out of the arguments before they get here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; what goes wrong is printed as one or two lines."""
    args = list(sys.argv[1:] if argv is None else argv)
    show = "--traceback" in args or os.environ.get("MBRL_PVR_TRACEBACK") == "1"
    try:
        status = _run([arg for arg in args if arg != "--traceback"])
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # what is still buffered goes nowhere, or the interpreter would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        complain(str(error) or "interrupted")
        return INTERRUPTED
    except Exception as error:
        if show:
            traceback.print_exception(error)
        text, status = explain(error)
        complain(text)
        return status


def _run(args: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("mbrl-pvr", args) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def explain(error: Exception) -> tuple[str, int]:
    """An error as one or two lines and its exit status."""
    status: Any = getattr(error, "exit_code", None)
    if isinstance(error, UsageError):
        return _usage(error), 2
    if isinstance(status, int) and hasattr(error, "what"):  # Error, ZooError, AnalysisError
        return str(error), status
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in OUR_PACKAGES:
        return f"the package {error.name!r} is not installed\nInstall it: pip install {error.name}", UNAVAILABLE
    if isinstance(error, OSError) and error.errno is not None:
        place = f" ({error.filename})" if error.filename else ""
        return f"the system refused: {error.strerror}{place}", STORAGE
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}\nThis is a bug of mbrl_pvr; run again with --traceback and report it", 1


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mbrl-pvr"
    text = error.format_message()
    return text if text.startswith("Usage:") else f"{text}\nSee: {path} --help"


def run() -> None:
    """The console script."""
    raise SystemExit(main())


if __name__ == "__main__":
    run()
