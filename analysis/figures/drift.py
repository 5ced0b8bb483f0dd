"""Figure "drift": how far a shift of the looks moves what the model sees of the same states, from the feature over the
latent to the value and the predicted reward: the first that moves says where. One panel per task, agent and shift.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.errors import AnalysisError
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "shift", "stage", "relative", "low", "high", "offset", "cka", "pairs")
STAGES = ("feature", "latent", "value", "predicted reward")
KEYS = ["task", "agent", "shift", "series", "encoder", "stage"]


def draw(drifts: pd.DataFrame) -> style.Drawn:
    """Points are means over seeds with their range, or of one seed with its interval over trajectories; dotted: two
    unrelated states are as far apart. `drifts`: one row per run, shift and stage with `COLUMNS`, as `drift.drift` gives
    them, NaN where a stage is constant; optional `series`, `agent`.
    """
    drifts = style.prepare(drifts, COLUMNS)
    still = drifts.loc[drifts["relative"].isna(), ["task", "agent", "series", "stage"]].drop_duplicates()
    notes = [
        f"{style.named(task, agent, series, drifts['agent'])}: the {stage} is constant"
        for task, agent, series, stage in still.itertuples(index=False)
    ]
    drifts = drifts[drifts["relative"].notna()]
    if len(drifts) == 0:
        raise AnalysisError("nothing varies that a shift could move")
    numbers = pd.DataFrame([_row(key, rows) for key, rows in drifts.groupby(KEYS)])
    tasks, looks = style.panel_names(drifts), style.looks(drifts["encoder"])
    found = sorted(set(zip(drifts["task"], drifts["agent"], drifts["shift"], strict=True)))
    names = list(style.series_of(drifts)["series"])
    stages = [stage for stage in STAGES if stage in set(numbers["stage"])]
    with style.paper():
        figure, grid = style.panels(len(found), 0.6 + len(stages) * (0.1 + 0.1 * len(names)))
        for panel, (task, agent, shift) in zip(grid, found, strict=True):
            there = (numbers["task"] == task) & (numbers["agent"] == agent) & (numbers["shift"] == shift)
            _panel(panel.axis, numbers[there], stages, names, looks)
            panel.axis.set_yticks(range(len(stages)), stages if panel.left else [""] * len(stages))
            panel.axis.set(xlabel="relative drift" if panel.bottom else "")
            panel.axis.set_title(f"{tasks[task, agent]}: {shift.replace('_', ' ')}")
        _legend(figure, drifts, looks)
    return style.Drawn(figure, numbers.drop(columns="encoder"), _caption(drifts), notes)


def _row(key: tuple, rows: pd.DataFrame) -> dict[str, object]:
    row: dict[str, object] = dict(zip(KEYS, key, strict=True))
    several = rows["seed"].nunique() > 1
    low, high = (rows["relative"].min(), rows["relative"].max()) if several else rows[["low", "high"]].iloc[0]
    row |= {"relative": rows["relative"].mean(), "relative_low": low, "relative_high": high}
    return row | {
        "offset": rows["offset"].mean(),
        "cka": rows["cka"].mean(),
        "pairs": rows["pairs"].sum(),
        "seeds": rows["seed"].nunique(),
    }


def _panel(
    axis: Axes, numbers: pd.DataFrame, stages: list[str], names: list[str], looks: dict[str, style.Look]
) -> None:
    step = 0.72 / len(names)
    for row in numbers.to_dict("records"):
        y = stages.index(row["stage"]) + (names.index(row["series"]) - (len(names) - 1) / 2) * step
        look = looks[row["encoder"]]
        axis.plot([row["relative_low"], row["relative_high"]], [y, y], color=look.colour, lw=1.0, zorder=3)
        axis.plot(row["relative"], y, look.marker, color=look.colour, ms=4, zorder=4, clip_on=False)
    axis.axvline(1, color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), zorder=1)
    highest = np.nanmax(numbers[["relative", "relative_high"]].to_numpy())
    axis.set(xlim=(0, 1.05 * max(1.0, highest)), ylim=(len(stages) - 0.5, -0.5))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _legend(figure, drifts: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    entries = style.series_entries(drifts, looks)
    entries.append(Line2D([], [], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), label="two unrelated states"))
    style.legend(figure, entries)


def _caption(drifts: pd.DataFrame) -> str:
    seeds = drifts.groupby(["series", "task", "agent"])["seed"].nunique()
    single = "" if seeds.min() > 1 else ", or of one seed 95 % interval over trajectories"
    return (
        "Mean squared distance between what the model makes of a state under its own looks and under a shift, over "
        "that of two unrelated states: 0 is no drift, at 1 nothing is left of where a state was. Lines: range over "
        f"seeds{single}."
    )
