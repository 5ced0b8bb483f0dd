"""What a run says of itself: metrics.jsonl and episodes.jsonl are the truth, everything else is drawn from them.

Scalars are averaged between two rows. Sinks (TensorBoard and others) and the display follow; a sink that fails is
reported once a minute and never stops the run.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, stack

from mbrl_pvr.display import Display
from mbrl_pvr.runfolder import RunFolder
from mbrl_pvr.sinks import Sink
from mbrl_pvr.storage import plain

WARN_EVERY = 60.0  # seconds
_log = logging.getLogger(__name__)


class _Mean:
    """Mean of numbers, in double precision and in the order given. Tensors are read late, to not wait for them."""

    def __init__(self, total: float = 0.0, count: int = 0) -> None:
        self.total, self.count = total, count
        self._waiting: list[Tensor] = []

    def add(self, value: float | Tensor) -> None:
        if isinstance(value, Tensor):
            self._waiting.append(value.detach())
            return
        self.settle()
        self.total, self.count = self.total + float(value), self.count + 1

    def settle(self) -> None:
        """Read the tensors that wait."""
        if self._waiting:
            for value in stack(self._waiting).tolist():
                self.total, self.count = self.total + value, self.count + 1
            self._waiting.clear()

    @property
    def mean(self) -> float:
        self.settle()
        return self.total / self.count


class Logger:
    """Rows of metrics and episodes of one run. Make it after `checkpoint.restore`, which cuts the journals."""

    def __init__(
        self,
        run: RunFolder,
        sinks: Sequence[Sink] = (),
        *,
        frames_per_step: int = 1,
        display: Display | None = None,
        warn: Callable[[str], None] = _log.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._episodes = run.journal("metrics.jsonl"), run.journal("episodes.jsonl")
        self._run, self._sinks, self._frames, self._display = run, list(sinks), frames_per_step, display
        self._warn, self._clock = warn, clock
        rows = [row for journal in (self._metrics, self._episodes) for row in journal.rows()[-1:]]
        before = max((row["time/elapsed"] for row in rows), default=0.0)  # in the processes that wrote them
        self._begun, self._warned = clock() - before, -math.inf
        self._means: dict[str, _Mean] = {}
        self._redraw()

    def metrics(self, values: Mapping[str, float | Tensor]) -> None:
        """Scalars "<group>/<name>" for the mean in the next row."""
        for name, value in values.items():
            self._means.setdefault(name, _Mean()).add(value)

    def flush(self, step: int) -> None:
        """Write one row at agent step `step` with the means since the last one, where there are any."""
        if not self._means:
            return
        row: dict[str, Any] = {"step": step, "frame": step * self._frames}
        row |= {name: self._means[name].mean for name in sorted(self._means)}
        row["time/elapsed"] = self._clock() - self._begun
        self._means.clear()
        self._metrics.append(row)
        self._send(row)
        if self._display is not None:
            self._display.note(row)

    def episode(self, row: Mapping[str, Any]) -> None:
        """Write one finished episode (fields in analysis.runs)."""
        self._episodes.append({**row, "time/elapsed": self._clock() - self._begun})
        self._send(_episode_scalars(row))
        if self._display is not None:
            self._display.note(_episode_scalars(row))

    def progress(self, step: int, total: int) -> None:
        """Move the display and the heartbeat in status.json."""
        self._run.set_status(state="running", step=step)
        if self._display is not None:
            self._display.progress(step, total)

    def state_dict(self) -> dict[str, Any]:
        """The means that wait for their row, exact and JSON-like, for a checkpoint's meta; without time/ fields."""
        for mean in self._means.values():
            mean.settle()
        kept = {k: v for k, v in self._means.items() if not k.startswith("time/")}
        return {name: [mean.total.hex(), mean.count] for name, mean in sorted(kept.items())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the means that `state_dict` gave."""
        self._means = {name: _Mean(float.fromhex(total), count) for name, (total, count) in state.items()}

    def commit(self) -> None:
        """Make all rows durable."""
        self._metrics.commit()
        self._episodes.commit()

    def close(self) -> None:
        """Close the sinks and the display; the journals belong to the run."""
        for sink in self._sinks:
            self._guard(sink, sink.close)
        if self._display is not None:
            self._display.close()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _redraw(self) -> None:
        """Give sinks that start anew on resume what the journals hold, so that no curve has a point twice."""
        anew = [sink for sink in self._sinks if sink.starts_anew]
        if anew:
            for row in self._metrics.rows():
                self._send(row, anew)
            for row in self._episodes.rows():
                self._send(_episode_scalars(row), anew)

    def _send(self, row: Mapping[str, Any], sinks: Sequence[Sink] | None = None) -> None:
        values = {k: v for k, v in plain(dict(row)).items() if "/" in k and isinstance(v, int | float)}
        for sink in self._sinks if sinks is None else sinks:
            self._guard(sink, partial(sink.scalars, row["step"], values))

    def _guard(self, sink: Sink, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever it is, the truth is in the journals
            if self._clock() - self._warned >= WARN_EVERY:
                self._warned = self._clock()
                self._warn(f"{type(sink).__name__} failed, the run goes on: {type(error).__name__}: {error}")


def _episode_scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a training episode that are drawn; evaluation episodes are drawn as means, in the metrics."""
    if row["kind"] != "train":
        return {"step": row["step"]}
    fields = {f"episode/{name}": row.get(name) for name in ("return", "length", "success")}
    return {"step": row["step"], **{k: v for k, v in fields.items() if v is not None}}
