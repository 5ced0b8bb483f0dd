"""Figure "correlation": the error of a world model against the return of its agent, one point per encoder, the mean
over its seeds; one row of panels per task and agent: errors of two agents never share an axis.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import correlation
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "measure", "dynamics_error", "reward_error", "return")
DRAWN = {"dynamics_error": "dynamics", "reward_error": "reward"}


def draw(runs: pd.DataFrame, window: int) -> style.Drawn:
    """Left: error of the latent, right: of the reward, both summed over `window` steps without an observation; y: mean
    return in distribution. `runs`: one row per run with `COLUMNS`; optional `series`, `agent`.
    """
    runs = style.prepare(runs, COLUMNS)
    titles, looks = style.panel_names(runs), style.looks(runs["encoder"])
    rows, notes = [], []
    with style.paper():
        figure = style.new_figure(style.PAGE, 2.0 * len(titles) + 0.35)
        grid = figure.subplots(len(titles), 2, squeeze=False)
        for axes, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            mine = runs[(runs["task"] == task) & (runs["agent"] == agent)]
            points = mine.groupby(["series", "encoder"], as_index=False)[[*DRAWN, "return"]].mean()
            for axis, (column, name) in zip(axes, DRAWN.items(), strict=True):
                found = correlation.correlate(points[column].to_numpy(), points["return"].to_numpy())
                _panel(axis, points, column, found, looks)
                unit = mine["measure"].iloc[0] if name == "dynamics" else "|r − r̂|"
                axis.set(xlabel=f"{unit}, summed over {window} steps", title=f"{title}: {name}")
                rows.append({"task": task, "agent": agent, "error": name, **_numbers(found)})
                if found.note:
                    notes.append(f"{title}, {name}: {found.note}")
            axes[0].set_ylabel("episode return")
        _legend(figure, runs, looks)
    numbers = pd.concat([pd.DataFrame(rows), _points(runs)], ignore_index=True)
    return style.Drawn(figure, numbers, _caption(window), notes)


def _panel(
    axis: Axes, points: pd.DataFrame, column: str, found: correlation.Correlation, looks: dict[str, style.Look]
) -> None:
    for row in points.to_dict("records"):
        look = looks[row["encoder"]]
        axis.plot(row[column], row["return"], look.marker, color=look.colour, ms=4.5, clip_on=False, zorder=3)
    axis.text(0.98, 0.97, _text(found), transform=axis.transAxes, ha="right", va="top", size=6, color=style.GREY)
    axis.margins(0.08)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0), high + 0.25 * (high - min(low, 0)))  # room for the text
    axis.grid(axis="y")


def _text(found: correlation.Correlation) -> str:
    one = found.pearson
    if np.isnan(one.r):
        return found.note
    interval = "no interval" if np.isnan(one.low) else f"[{one.low:.2f}, {one.high:.2f}]"
    p = "p < 0.001" if one.p < 0.001 else f"p = {one.p:.2g}"
    return f"r = {one.r:.2f} {interval}, {p}\nρ = {found.spearman.r:.2f}, n = {found.points}"


def _numbers(found: correlation.Correlation) -> dict[str, float]:
    named = {"pearson": found.pearson, "spearman": found.spearman}
    return {
        f"{name}_{part}": getattr(one, part) for name, one in named.items() for part in ("r", "p", "low", "high")
    } | {"points": found.points}


def _points(runs: pd.DataFrame) -> pd.DataFrame:
    """The points that are drawn, below the correlations."""
    keys = ["task", "agent", "series"]
    means = runs.groupby(keys)[[*DRAWN, "return"]].mean()
    return means.assign(seeds=runs.groupby(keys)["seed"].nunique()).reset_index()


def _legend(figure, runs: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    counts = style.seed_counts(runs)
    entries = [
        Line2D(
            [],
            [],
            color=looks[encoder].colour,
            marker=looks[encoder].marker,
            ls="",
            ms=4.5,
            label=style.with_seeds(name, counts[name]),
        )
        for name, encoder in style.series_of(runs).itertuples(index=False)
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=4)


def _caption(window: int) -> str:
    return (
        f"Error of the world model over {window} steps without an observation against the mean return in distribution. "
        "One point is an encoder, the mean over its seeds. r: Pearson, with its 95 % bootstrap interval over points "
        "and two-sided p; ρ: Spearman."
    )
