"""Figure "properties": IQM in distribution (x) and out of it (y) of the encoders with each property, as the study has
it (facts: section 7); one panel per agent.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import properties, stats
from analysis.errors import AnalysisError
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "inside", "outside")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # of properties, which have no colours: those are of encoders


def draw(scores: pd.DataFrame, names: Sequence[str]) -> style.Drawn:
    """Groups as large markers with 95 % intervals over runs, encoders as small ones in their colours; dotted: no loss.

    `scores`: one row per run and task with `COLUMNS`, normalised returns, and a column of booleans for each of `names`;
    optional `series`, `agent`. Runs that lack a task are left out with a note; raises AnalysisError if all do, or if no
    encoder has a property.
    """
    scores = style.prepare(scores, (*COLUMNS, *names))
    looks, agents = style.looks(scores["encoder"]), sorted(scores["agent"].unique())
    numbers: list[pd.DataFrame] = []
    notes: list[str] = []
    with style.paper():
        figure, grid = style.panels(len(agents), 2.6)
        for panel, agent in zip(grid, agents, strict=True):
            inside, outside, has = _matrices(scores[scores["agent"] == agent], names, notes)
            encoder = inside.index.get_level_values("encoder")
            found = properties.by_property(inside.to_numpy(), outside.to_numpy(), encoder, has)
            if not found:
                raise AnalysisError(f"no encoder has one of the properties {', '.join(names)}")
            _encoders(panel.axis, inside, outside, looks)
            numbers.append(_groups(panel.axis, found, names).assign(agent=agent))
            _axes(panel.axis, agent)
        _legend(figure, scores, names, looks)
    return style.Drawn(figure, pd.concat(numbers, ignore_index=True), _caption(), notes)


def _matrices(
    rows: pd.DataFrame, names: Sequence[str], notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray]]:
    """(runs, tasks) in and out of distribution, of the runs that have all tasks, and their properties (runs,)."""
    wide = rows.pivot_table(index=["series", "encoder", "seed"], columns="task", values=["inside", "outside"])
    whole = wide.dropna()
    if len(whole) < len(wide):
        notes.append(f"{len(wide) - len(whole)} of {len(wide)} runs lack a task that others have")
    if len(whole) == 0:
        raise AnalysisError("no run has every task", hint="Draw tasks of different runs apart")
    by_encoder = rows.groupby("encoder")[list(names)].first()
    encoder = whole.index.get_level_values("encoder")
    return whole["inside"], whole["outside"], {name: by_encoder.loc[encoder, name].to_numpy(bool) for name in names}


def _encoders(axis: Axes, inside: pd.DataFrame, outside: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    for encoder, mine in inside.groupby("encoder"):
        x, y = stats.iqm(mine.to_numpy()), stats.iqm(outside.loc[mine.index].to_numpy())
        axis.plot(x, y, looks[encoder].marker, color=looks[encoder].colour, ms=3, zorder=6)


def _groups(axis: Axes, found: dict[str, properties.Group], names: Sequence[str]) -> pd.DataFrame:
    rows = []
    for name, group in found.items():
        x, y = group.inside, group.outside
        axis.plot([x.low, x.high], [y.point, y.point], color=style.GREY, lw=0.9, zorder=4)
        axis.plot([x.point, x.point], [y.low, y.high], color=style.GREY, lw=0.9, zorder=4)
        axis.plot(x.point, y.point, _marker(name, names), color="black", mfc="white", ms=6, mew=1.1, zorder=5)
        row: dict[str, object] = {"property": name, "encoders": group.encoders, "runs": x.runs}
        for where in ("inside", "outside", "better_inside", "better_outside"):
            one = getattr(group, where)
            row |= {where: one.point, f"{where}_low": one.low, f"{where}_high": one.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _marker(name: str, names: Sequence[str]) -> str:
    return MARKERS[list(names).index(name) % len(MARKERS)]


def _axes(axis: Axes, agent: str) -> None:
    low = min(0.0, axis.get_xlim()[0], axis.get_ylim()[0])
    high = max(axis.get_xlim()[1], axis.get_ylim()[1])
    high += 0.04 * (high - low)  # markers at the edge stay whole
    axis.plot([low, high], [low, high], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), zorder=1)
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=agent)
    axis.set(xlabel="IQM in distribution", ylabel="IQM out of distribution")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(MaxNLocator(5))
    axis.grid()


def _legend(figure, scores: pd.DataFrame, names: Sequence[str], looks: dict[str, style.Look]) -> None:
    entries = [
        Line2D([], [], color="black", mfc="white", ls="", marker=_marker(name, names), ms=6, mew=1.1, label=name)
        for name in names
    ]
    entries += [
        Line2D([], [], color=looks[one].colour, ls="", marker=looks[one].marker, ms=3, label=one)
        for one in sorted(scores["encoder"].unique())
    ]
    style.legend(figure, entries, 5)


def _caption() -> str:
    return (
        "Interquartile mean of normalised returns in and out of distribution, over the runs and tasks of the encoders "
        "with each property (large) and of each encoder (small). Bars: 95 % bootstrap intervals over runs; dotted: no "
        "loss. An encoder counts in every group it belongs to."
    )
