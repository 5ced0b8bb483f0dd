"""The table of runs: what each is, how far it came, what it earned in and out of distribution, what was recorded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis import files, stats
from analysis.records import Record, has_frames
from analysis.runs import Run

NOTHING = "–"
COLUMNS = ("run", "agent", "encoder", "task", "seed", "steps", "state", "final return", "out of distribution")


@dataclass(frozen=True)
class Row:
    """One run, in words. `cells` go with `COLUMNS`; `record` says what was recorded."""

    cells: tuple[str, ...]
    record: str


def rows(runs: Sequence[Run]) -> list[Row]:
    """One row for each run, in their order."""
    return [Row(_cells(run), _recorded(run)) for run in runs]


def caption() -> str:
    """How the numbers of the table are meant."""
    return (
        "Final return: mean of the last evaluation's episodes, with its 95 % bootstrap interval over them; their range "
        f"where they are fewer than {stats.FEW}. Out of distribution: mean with all factors of a shift held out, at "
        "its highest severity and the newest checkpoint that was played so, beside the mean under the looks of "
        "training from the same call, with the numbers of episodes. Steps are agent steps of the newest checkpoint."
    )


def _cells(run: Run) -> tuple[str, ...]:
    return (
        run.path.name,
        run.agent,
        run.encoder,
        run.task,
        str(run.seed),
        NOTHING if run.step is None else f"{run.step:,}",
        run.state,
        _final(run),
        _out(run),
    )


def _final(run: Run) -> str:
    if len(last := run.last_returns) == 0:
        return NOTHING
    found = stats.bootstrap(last, stats.mean)
    if found.runs == 1:
        return f"{found.point:.1f} (one episode)"
    return f"{found.point:.1f} [{found.low:.1f}, {found.high:.1f}]"


def _out(run: Run) -> str:
    if (played := run.played) is None or played.inside.all():
        return NOTHING
    outside, inside = played.returns[~played.inside], played.returns[played.inside]
    beside = f", beside {inside.mean():.1f} ({len(inside)})" if len(inside) else ""
    return f"{outside.mean():.1f} ({len(outside)}){beside}"


def _recorded(run: Run) -> str:
    """On policy, and on each bank."""
    seen = [one for bank in ("", *run.banks) if (one := run.on(bank).record) is not None]
    return "; ".join(_record(one) + (f", on bank {one.bank}" if one.bank else "") for one in seen) or "no"


def _record(record: Record) -> str:
    length = files.read_npz(record.path, ["length"])["length"]
    step = "" if record.step is None else f" at step {record.step:,}"
    frames = "" if has_frames(record.path) else ", without frames"
    return f"{len(length)} episodes, {int(np.sum(length)):,} steps{step}{frames}"
