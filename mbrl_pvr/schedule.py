"""When things happen, as pure functions of the step: a resumed run decides as if it had never stopped."""

from dataclasses import dataclass
from math import floor


@dataclass(frozen=True)
class Every:
    """True when a step passes a multiple of `interval`; never for interval 0. Steps advance by `stride` (environments)."""

    interval: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.interval < 0 or self.stride < 1:
            raise ValueError(f"interval must be >= 0 and stride >= 1, got {self.interval} and {self.stride}")

    def __call__(self, step: int) -> bool:
        if self.interval == 0:
            return False
        return step // self.interval > (step - self.stride) // self.interval


@dataclass(frozen=True)
class Ratio:
    """How many updates are due in all at a step: `burst` at step `start`, then `ratio` for each step beyond it."""

    ratio: float
    start: int = 0
    burst: int = 0

    def __post_init__(self) -> None:
        if self.ratio < 0 or self.start < 0 or self.burst < 0:
            raise ValueError(f"ratio, start, burst must be >= 0, got {self.ratio}, {self.start}, {self.burst}")

    def __call__(self, step: int) -> int:
        return 0 if step < self.start else self.burst + floor((step - self.start) * self.ratio)


@dataclass(frozen=True)
class Linear:
    """From `first` to `last` over `duration` steps, then constant."""

    first: float
    last: float
    duration: int

    def __call__(self, step: int) -> float:
        fraction = 1.0 if self.duration <= 0 else min(1.0, max(0.0, step / self.duration))
        return self.first + fraction * (self.last - self.first)
