"""Progress with time left: a bar in a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal
_SHOWN = {"eval/return": "eval return", "episode/return": "return"}  # newest values shown beside the bar


class Display:
    """Shows how far `what` is. Writes to standard error, so that results can be piped.

    A terminal has one bar at a time: a display that moves ends the bar of the one before.
    """

    _in_terminal: ClassVar["Display | None"] = None

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic, what: str = ""
    ) -> None:
        self._console = console or Console(stderr=True)
        self._clock, self._what = clock, f"{what} " if what else ""
        self._notes: dict[str, float] = {}
        self._first: tuple[float, int] | None = None  # clock and step when this process began
        self._printed = clock()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def note(self, row: Mapping[str, Any]) -> None:
        """Remember the newest values that are shown."""
        self._notes |= {_SHOWN[k]: v for k, v in row.items() if k in _SHOWN and v is not None}

    def say(self, line: str) -> None:
        """One line for the reader."""
        self._console.print(line, soft_wrap=True, highlight=False)

    def progress(self, step: int, total: int) -> None:
        """It is at `step` of `total`."""
        if self._first is None:
            self._first = (self._clock(), step)
        text = self._text(step, total)
        if self._console.is_terminal:
            if self._bar is None:
                self._start(total)
            assert self._bar is not None
            self._bar.update(self._task, completed=step, description=text)
        elif self._clock() - self._printed >= PLAIN_EVERY or step >= total:
            self._printed = self._clock()
            parts = [f"{self._what}step {step:,}/{total:,}", *([text] if text else [])]
            self._console.print(" · ".join(parts), soft_wrap=True, highlight=False)

    def close(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = Display._in_terminal = None

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, total: int) -> None:
        if Display._in_terminal is not None:
            Display._in_terminal.close()
        Display._in_terminal = self
        columns = (TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=self._console, refresh_per_second=2)
        self._task = self._bar.add_task("", total=total)
        self._bar.start()

    def _text(self, step: int, total: int) -> str:
        assert self._first is not None
        seconds, steps = self._clock() - self._first[0], step - self._first[1]
        parts = []
        if steps > 0 and seconds > 0:
            parts = [f"{steps / seconds:.1f} steps/s", f"{_duration((total - step) * seconds / steps)} left"]
        return " · ".join([*parts, *(f"{name} {value:.4g}" for name, value in self._notes.items())])


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
