"""Figure "profile": the share of runs and tasks above a normalised return, in distribution and out of it, one panel per
agent (performance profiles, Agarwal et al. 2021, arXiv 2108.13264).
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import stats
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "shift", "normalised")
LOOKS = {"in distribution": "-", "out of distribution": (0, (3, 1.5))}
THRESHOLDS = np.linspace(0, 1, 101)


def draw(episodes: pd.DataFrame) -> style.Drawn:
    """Profiles of every encoder: solid in distribution, dashed the mean over all shifts, with 95 % bands.

    `episodes`: one row per episode with `COLUMNS`; `normalised` is 0 for random actions and 1 for the maximum; shift
    "none" is in distribution. Optional `series`, `agent`. A seed counts once per task; seeds that lack a task that
    others have are left out, with a note.
    """
    episodes = style.prepare(episodes, COLUMNS)
    looks, agents = style.looks(episodes["encoder"]), sorted(episodes["agent"].unique())
    numbers, notes = [], []
    with style.paper():
        figure, grid = style.panels(len(agents), 2.1)
        for panel, agent in zip(grid, agents, strict=True):
            rows = episodes[episodes["agent"] == agent]
            for name, encoder in style.series_of(rows).itertuples(index=False):
                for where, mine in _conditions(rows[rows["series"] == name]).items():
                    wide = mine.groupby(["seed", "task"])["normalised"].mean().unstack("task")
                    whole = wide.dropna()
                    if len(whole) < len(wide):
                        notes.append(f"{name}, {where}: {len(wide) - len(whole)} of {len(wide)} seeds lack a task")
                    if len(whole):
                        profile = _line(panel.axis, whole.to_numpy(), looks[encoder], where)
                        numbers.append(profile.assign(agent=agent, series=name, condition=where, seeds=len(whole)))
            panel.axis.set(xlabel="normalised return τ", ylabel="share of runs × tasks above τ" if panel.left else "")
            panel.axis.set(title=agent, xlim=(0, 1), ylim=(0, 1.02))
            panel.axis.grid()
        _legend(figure, episodes, looks)
    table = pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame()
    return style.Drawn(figure, table, _caption(episodes), notes, table.iloc[::10])  # of 101 thresholds a line


def _conditions(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    inside = rows["shift"] == "none"
    parts = dict(zip(LOOKS, (rows[inside], rows[~inside]), strict=True))
    return {where: part for where, part in parts.items() if len(part)}


def _line(axis: Axes, scores: np.ndarray, look: style.Look, where: str) -> pd.DataFrame:
    band = stats.performance_profile(scores, THRESHOLDS)
    axis.step(band.x, band.mean, where="post", color=look.colour, ls=LOOKS[where], zorder=4)
    axis.fill_between(band.x, band.low, band.high, step="post", color=look.colour, alpha=0.15, lw=0, zorder=3)
    return pd.DataFrame({"threshold": band.x, "share": band.mean, "low": band.low, "high": band.high})


def _legend(figure, episodes: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    solid = dict.fromkeys(style.series_of(episodes)["series"], "-")
    entries = style.series_entries(episodes, looks, lines=solid, markers=False)
    entries += [Line2D([], [], color=style.GREY, ls=dashes, label=where) for where, dashes in LOOKS.items()]
    style.legend(figure, entries)


def _caption(episodes: pd.DataFrame) -> str:
    seeds, tasks = style.seed_counts(episodes), episodes["task"].nunique()
    banded = (seeds > 1).any() and (tasks > 1 or (seeds >= stats.FEW).any())
    return f"Share of runs and tasks ({tasks}) whose normalised return lies above a threshold. " + (
        "Bands: 95 % bootstrap intervals over seeds, pointwise." if banded else "Too few seeds for bands."
    )
