"""Figure "correlation": the error of a world model against the return of its agent. One row of panels per task and
agent (errors of two agents never share an axis), and where a task has several agents one of all, each standardised.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import correlation
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "measure", "dynamics_error", "reward_error", "return")
DRAWN = {"dynamics_error": "dynamics", "reward_error": "reward"}
FILLS: tuple[Any, ...] = ("full", "none", "left", "right")  # of agents that share a panel


def draw(runs: pd.DataFrame, window: int, *, per_run: bool = False, score: str = "episode return") -> style.Drawn:
    """Left: error of the latent, right: of the reward, both summed over `window` steps without an observation; y: mean
    return in distribution, which `score` names. A point is an encoder, the mean over its seeds; with `per_run` a run,
    and the bootstrap draws encoders. `runs`: one row per run with `COLUMNS`; optional `series`, `agent`.
    """
    runs = style.prepare(runs, COLUMNS)
    looks, rows, notes = style.looks(runs["encoder"]), [], []
    panels = _panels(runs)
    with style.paper():
        figure = style.new_figure(style.PAGE, 2.0 * len(panels) + 0.35)
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for axes, ((task, agent), title) in zip(grid, panels.items(), strict=True):
            mine = runs[(runs["task"] == task) & ((runs["agent"] == agent) | (agent == correlation.STANDARDISED))]
            points = _points(mine, per_run, agent == correlation.STANDARDISED)
            for axis, (column, name) in zip(axes, DRAWN.items(), strict=True):
                found = _correlation(mine, column, per_run)[agent]
                _panel(axis, points, column, found, looks)
                axis.set(xlabel=_unit(mine, agent, name, window), title=f"{title}: {name}")
                rows.append({"task": task, "agent": agent, "error": name, **_numbers(found)})
                if found.note:
                    notes.append(f"{title}, {name}: {found.note}")
            axes[0].set_ylabel("standardised return" if agent == correlation.STANDARDISED else score)
        _legend(figure, runs, looks)
    correlations = pd.DataFrame(rows)
    numbers = pd.concat([correlations, _listed(runs, per_run)], ignore_index=True)
    return style.Drawn(figure, numbers, _caption(window, per_run, runs["agent"].nunique() > 1), notes, correlations)


def _panels(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(task, agent) to the title of its row, the one of all agents of a task behind its own."""
    titles = style.panel_names(runs)
    found: dict[tuple[str, str], str] = {}
    for task in dict.fromkeys(task for task, _ in titles):
        own = {key: title for key, title in titles.items() if key[0] == task}
        found |= own
        if len(own) > 1:
            found[task, correlation.STANDARDISED] = f"{task.rpartition('/')[2]} · {correlation.STANDARDISED}"
    return found


def _correlation(mine: pd.DataFrame, column: str, per_run: bool) -> dict:
    """Agent to its correlation; a mean over seeds is of a series, what the bootstrap draws is an encoder."""
    names = mine["encoder" if per_run else "series"].tolist()
    x, y = mine[column].to_numpy(), mine["return"].to_numpy()
    return correlation.within_agents(x, y, mine["agent"].tolist(), names, per_run=per_run)


def _points(mine: pd.DataFrame, per_run: bool, standardised: bool) -> pd.DataFrame:
    values = [*DRAWN, "return"]
    points = mine if per_run else mine.groupby(["agent", "series", "encoder"], as_index=False)[values].mean()
    if standardised:
        agents = points["agent"].tolist()
        points = points.assign(**{name: correlation.standardise(points[name].to_numpy(), agents) for name in values})
    return points


def _unit(mine: pd.DataFrame, agent: str, name: str, window: int) -> str:
    if agent == correlation.STANDARDISED:
        return f"{name} error over {window} steps, standard deviations of its agent"
    unit = mine["measure"].iloc[0] if name == "dynamics" else "|r − r̂|"
    return f"{unit}, summed over {window} steps"


def _panel(
    axis: Axes, points: pd.DataFrame, column: str, found: correlation.Correlation, looks: dict[str, style.Look]
) -> None:
    agents = sorted(points["agent"].unique())
    for row in points.to_dict("records"):
        look, fill = looks[row["encoder"]], FILLS[agents.index(row["agent"]) % len(FILLS)]
        point = axis.plot(row[column], row["return"], look.marker, color=look.colour, ms=4.5, mew=1.0, clip_on=False)
        point[0].set(fillstyle=fill, zorder=3)
    axis.text(0.98, 0.97, _text(found), transform=axis.transAxes, ha="right", va="top", size=6, color=style.GREY)
    axis.margins(0.08)
    low, high = axis.get_ylim()
    low = min(low, 0)
    axis.set_ylim(low, high + 0.25 * (high - low))  # room for the text
    axis.grid(axis="y")


def _text(found: correlation.Correlation) -> str:
    if np.isnan(found.pearson.r):
        return found.note
    named = {"r": found.pearson, "ρ": found.spearman}
    lines = [f"{name} = {one.r:.2f}{_interval(one)}{_p(one)}" for name, one in named.items()]
    drawn = f", {found.clusters} encoders" if found.clusters != found.points else ""
    return "\n".join([*lines, f"n = {found.points}{drawn}"])


def _interval(one: correlation.Coefficient) -> str:
    return ", no interval" if np.isnan(one.low) else f" [{one.low:.2f}, {one.high:.2f}]"


def _p(one: correlation.Coefficient) -> str:
    if np.isnan(one.p):
        return ""
    return ", p < 0.001" if one.p < 0.001 else f", p = {one.p:.2g}"


def _numbers(found: correlation.Correlation) -> dict[str, float]:
    named = {"pearson": found.pearson, "spearman": found.spearman}
    values = {
        f"{name}_{part}" if part != "r" else name: getattr(one, part)
        for name, one in named.items()
        for part in ("r", "low", "high", "p")
    }
    return values | {"points": found.points, "clusters": found.clusters}


def _listed(runs: pd.DataFrame, per_run: bool) -> pd.DataFrame:
    """The points that are drawn, below the correlations."""
    keys = ["task", "agent", "series", *(["seed"] if per_run else [])]
    means = runs.groupby(keys)[[*DRAWN, "return"]].mean()
    return means.assign(seeds=runs.groupby(keys)["seed"].nunique()).reset_index()


def _legend(figure, runs: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    entries, agents = style.series_entries(runs, looks), sorted(runs["agent"].unique())
    if len(agents) > 1:
        entries += [
            Line2D([], [], color=style.GREY, ls="", marker="o", fillstyle=FILLS[n % len(FILLS)], label=agent)
            for n, agent in enumerate(agents)
        ]
    style.legend(figure, entries)


def _caption(window: int, per_run: bool, several: bool) -> str:
    point = (
        "One point is a run; intervals draw encoders, since runs of one are not independent, and there is no p. "
        if per_run
        else "One point is an encoder with one agent, the mean over its seeds; intervals draw points. "
    )
    return (
        f"Error of the world model over {window} steps without an observation against the mean return in distribution. "
        f"{point}r: Pearson, ρ: Spearman, with 95 % bootstrap intervals"
        + ("" if per_run else " and two-sided p")
        + "."
        + (" Where a task has several agents, a last row has both in standard deviations of each." if several else "")
    )
