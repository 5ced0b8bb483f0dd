"""Figure "cost": the final return against what it cost: hours of training, bytes of replay, FLOPs of the encoder per
frame. Grey: the frontier, beyond which nothing is both cheaper and better.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "return", "hours", "bytes", "flops")
PANELS = {"hours": "hours of training", "bytes": "bytes of replay", "flops": "FLOPs of the encoder per frame"}
WIDE = 20.0  # costs that differ by more stand on a logarithmic axis
KEYS = ["task", "agent", "series", "encoder"]


def draw(costs: pd.DataFrame, score: str) -> style.Drawn:
    """A marker per series, the mean over its seeds, with ranges over them; one row of panels per task and agent.

    `costs`: one row per run with `COLUMNS`, NaN where something is not known; optional `series`, `agent`. `score` names
    the return.
    """
    costs = style.prepare(costs, COLUMNS)
    shown = [name for name in PANELS if costs[name].notna().any()]
    values = ["return", *PANELS]
    grouped = costs.groupby(KEYS)[values]
    numbers = grouped.mean().join(grouped.agg(["min", "max"]).set_axis(
        [f"{name}_{end}" for name in values for end in ("low", "high")], axis=1))  # fmt: skip
    numbers = numbers.assign(seeds=costs.groupby(KEYS)["seed"].nunique()).reset_index()
    titles, looks = style.panel_names(costs), style.looks(costs["encoder"])
    with style.paper():
        figure = style.new_figure(style.PAGE, 2.1 * len(titles) + 0.35)
        grid = figure.subplots(len(titles), len(shown), squeeze=False)
        for axes, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            mine = numbers[(numbers["task"] == task) & (numbers["agent"] == agent)]
            for axis, name in zip(axes, shown, strict=True):
                _panel(axis, mine[mine[name].notna()], name, looks)
                axis.set(xlabel=PANELS[name], ylabel=score if axis is axes[0] else "")
            axes[0].set_title(title, loc="left")
        style.legend(figure, style.series_entries(costs, looks))
    front = [*(key for key in KEYS if key != "encoder"), "seeds"]
    ordered = [*front, *(name + end for name in values for end in ("", "_low", "_high"))]
    return style.Drawn(figure, numbers[ordered], _caption(), _notes(costs))


def _panel(axis: Axes, rows: pd.DataFrame, name: str, looks: dict[str, style.Look]) -> None:
    for row in rows.to_dict("records"):
        x, y, colour = row[name], row["return"], looks[row["encoder"]].colour
        axis.plot([row[f"{name}_low"], row[f"{name}_high"]], [y, y], color=colour, lw=0.9, zorder=3)
        axis.plot([x, x], [row["return_low"], row["return_high"]], color=colour, lw=0.9, zorder=3)
        axis.plot(x, y, looks[row["encoder"]].marker, color=colour, ms=4.5, zorder=4, clip_on=False)
    if len(rows):
        edge = frontier(rows[name].to_numpy(), rows["return"].to_numpy())
        x, y = (rows[column].to_numpy()[edge] for column in (name, "return"))
        right = 1.1 * float(rows[f"{name}_high"].max())
        axis.step([*x, right], [*y, y[-1]], where="post", color=style.GREY, lw=0.8, zorder=2)
        axis.set_ylim(*style.value_limits(rows[["return", "return_low", "return_high"]]))
        if rows[name].min() > 0 and rows[name].max() > WIDE * rows[name].min():
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short_number(value)))
            axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.set_xlim(0, 1.1 * max(float(rows[f"{name}_high"].max()), 1e-9))
            style.thousands(axis.xaxis)
    axis.grid()


def frontier(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the points than which none is both no dearer and better, by rising cost."""
    order = np.lexsort((-value, cost))
    best = np.maximum.accumulate(value[order])
    first = np.concatenate([[True], best[1:] > best[:-1]])
    return order[first]


def _notes(costs: pd.DataFrame) -> list[str]:
    words = {"bytes": "the run does not say how many", "flops": "no frozen encoder, or the run does not say"}
    return [
        f"{', '.join(sorted(set(costs.loc[costs[name].isna(), 'series'])))}: not among the {PANELS[name]}: {why}"
        for name, why in words.items()
        if costs[name].isna().any()
    ]


def _caption() -> str:
    return (
        "Mean return after training against its cost: hours as the runs logged them (on whatever machine they ran), "
        "bytes that replay holds at the end of training, and FLOPs (two for a multiplication with its addition) of the "
        "frozen encoder for one frame. Lines: range over seeds; grey: nothing is both cheaper and better."
    )
