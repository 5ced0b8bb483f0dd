"""When things happen, as pure functions of the step: a resumed run decides as if it had never stopped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """True when a multiple of `interval` lies in (before, now]."""

    interval: int

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"interval={self.interval} must be at least 1")

    def __call__(self, before: int, now: int) -> bool:
        return now // self.interval > before // self.interval


class Stopwatch:
    """Seconds spent in named parts of the loop: `with clock("render"): …`. Parts may not nest in themselves."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call, and start anew."""
        taken, self._seconds = self._seconds, {}
        return taken
