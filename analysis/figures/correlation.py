"""Figure "correlation": the error of a world model against the return of its agent. One row of panels per task,
agent and window (errors of two agents never share an axis), and where a task has several agents one of all, each
standardised.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import correlation
from analysis.figures import style
from analysis.figures.errors import UNITS

COLUMNS = ("task", "encoder", "seed", "measure", "window", "dynamics_error", "reward_error", "return")
SUMS = ("dynamics_error_sum", "reward_error_sum")  # as the study has them, listed and not drawn
DRAWN = {"dynamics_error": "dynamics", "reward_error": "reward"}
FILLS: tuple[Any, ...] = ("full", "none", "left", "right")  # of agents that share a panel


def draw(runs: pd.DataFrame, *, per_run: bool = False, score: str = "episode return") -> style.Drawn:
    """Left: error of the latent on a scale that encoders share, right: of the reward, both means of the `window` steps
    without an observation; y: mean return in distribution, which `score` names. A point is an encoder, the mean over
    its seeds; with `per_run` a run, and the bootstrap draws encoders. `runs`: one row per run and window with
    `COLUMNS`; optional `series`, `agent`, `SUMS`.
    """
    runs = style.prepare(runs, COLUMNS)
    looks, rows, notes = style.looks(runs["encoder"]), [], []
    panels = _panels(runs)
    with style.paper():
        figure = style.new_figure(style.PAGE, 2.0 * len(panels) + 0.35)
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for axes, ((task, agent, window), title) in zip(grid, panels.items(), strict=True):
            mine = runs[(runs["task"] == task) & (runs["window"] == window)]
            mine = mine[(mine["agent"] == agent) | (agent == correlation.STANDARDISED)]
            points = _points(mine, per_run, agent == correlation.STANDARDISED)
            for axis, (column, name) in zip(axes, DRAWN.items(), strict=True):
                found = _correlation(mine, column, per_run)[agent]
                _panel(axis, points, column, found, looks)
                axis.set(xlabel=_unit(mine, agent, name), title=f"{title}: {name}")
                rows.append({"task": task, "agent": agent, "window": window, "error": name, **_numbers(found)})
                if found.note:
                    notes.append(f"{title}, {name}: {found.note}")
            axes[0].set_ylabel("standardised return" if agent == correlation.STANDARDISED else score)
        _legend(figure, runs, looks)
    correlations = pd.DataFrame(rows)
    numbers = pd.concat([correlations, _listed(runs, per_run)], ignore_index=True)
    return style.Drawn(figure, numbers, _caption(runs, per_run), notes, correlations)


def _panels(runs: pd.DataFrame) -> dict[tuple[str, str, int], str]:
    """(task, agent, window) to the title of its row, those of all agents of a task behind its own."""
    titles = style.panel_names(runs)
    found: dict[tuple[str, str, int], str] = {}
    for task in dict.fromkeys(task for task, _ in titles):
        own = {agent: title for (other, agent), title in titles.items() if other == task}
        if len(own) > 1:
            own[correlation.STANDARDISED] = f"{task.rpartition('/')[2]} · {correlation.STANDARDISED}"
        windows = sorted(set(runs.loc[runs["task"] == task, "window"]))
        found |= {(task, agent, n): f"{title}, {n} steps" for agent, title in own.items() for n in windows}
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


def _unit(mine: pd.DataFrame, agent: str, name: str) -> str:
    if agent == correlation.STANDARDISED:
        return f"{name} error, standard deviations of its agent"
    measure = mine["measure"].iloc[0]
    return f"{UNITS.get(measure, measure) if name == 'dynamics' else '|r − r̂|'}, mean"


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
    axis.set_ylim(low, high + 0.4 * (high - low))  # room for the text
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
    keys = ["task", "agent", "window", "series", *(["seed"] if per_run else [])]
    means = runs.groupby(keys)[[*DRAWN, *(name for name in SUMS if name in runs), "return"]].mean()
    return means.assign(seeds=runs.groupby(keys)["seed"].nunique()).reset_index()


def _legend(figure, runs: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    entries, agents = style.series_entries(runs, looks), sorted(runs["agent"].unique())
    if len(agents) > 1:
        entries += [
            Line2D([], [], color=style.GREY, ls="", marker="o", fillstyle=FILLS[n % len(FILLS)], label=agent)
            for n, agent in enumerate(agents)
        ]
    style.legend(figure, entries)


def _caption(runs: pd.DataFrame, per_run: bool) -> str:
    several, windows = runs["agent"].nunique() > 1, " and ".join(map(str, sorted(set(runs["window"]))))
    point = (
        "One point is a run; intervals draw encoders, since runs of one are not independent, and there is no p. "
        if per_run
        else "One point is an encoder with one agent, the mean over its seeds; intervals draw points. "
    )
    return (
        f"Error of the world model, mean of {windows} steps without an observation, of the latent relative to its "
        "variance or per categorical latent, against the mean return in distribution. "
        f"{point}r: Pearson, ρ: Spearman, with 95 % bootstrap intervals"
        + ("" if per_run else " and two-sided p")
        + "."
        + (
            " Where a task has several agents, the last rows have both in standard deviations of each."
            if several
            else ""
        )
    )
