"""Figure "calibration": mean predicted against mean true reward, in bins of the true reward; what a mean error over
mostly small rewards hides. Left in the closed loop, right in the open one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import rewards
from analysis.figures import style
from analysis.records import Latents

LOOPS = ("closed loop", "open loop")
BINS = 10
WIDTH = 5.4  # inches: two square panels


@dataclass(frozen=True)
class Rewards:
    """Rewards (E, T) of the recorded episodes of one run, what was predicted of them in each loop, their lengths (E,),
    and the names of the run: task, agent, series, encoder, seed.
    """

    labels: dict[str, object]
    true: np.ndarray
    predicted: dict[str, np.ndarray]
    length: np.ndarray


def rewards_of(latents: Latents, **labels: object) -> Rewards:
    """The open loop from the first step that was not given on."""
    ahead = np.where(np.arange(latents.reward_true.shape[1]) < latents.context, np.nan, latents.reward_open_loop)
    loops = dict(zip(LOOPS, (latents.reward_pred, ahead), strict=True))
    return Rewards(labels, latents.reward_true, loops, latents.length)


def draw(runs: Sequence[Rewards]) -> style.Drawn:
    """A line per series through its bins, which hold about equally many steps of all its runs together, with 95 %
    intervals over trajectories; dotted: predicted as they are.
    """
    table = style.prepare(pd.DataFrame([run.labels for run in runs]), ("task", "encoder", "seed"))
    titles, looks, lines = style.panel_names(table), style.looks(table["encoder"]), style.line_styles(table)
    numbers, notes = [], []
    with style.paper():
        figure = style.new_figure(WIDTH, 2.5 * len(titles) + 0.3)
        grid = figure.subplots(len(titles), len(LOOPS), squeeze=False)
        for axes, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            there = (table["task"] == task) & (table["agent"] == agent)
            for name, encoder in style.series_of(table[there]).itertuples(index=False):
                mine = [run for run, use in zip(runs, there & (table["series"] == name), strict=True) if use]
                if not _varies(mine):
                    notes.append(f"{title}: {name}: the reward is constant")
                for axis, loop in zip(axes, LOOPS, strict=True):
                    found = _bins(mine, loop)
                    _line(axis, found, looks[encoder], lines[name])
                    labels = {"task": task, "agent": agent, "series": name, "loop": loop}
                    numbers.append(_numbers(found).assign(**labels, seeds=len(mine)))
            for axis, loop in zip(axes, LOOPS, strict=True):
                _diagonal(axis)
                axis.set(title=f"{title}: {loop}", xlabel="true reward, mean of a bin", ylabel="")
            axes[0].set_ylabel("predicted reward, mean of a bin")
        entries = style.series_entries(table, looks, lines=lines)
        entries.append(Line2D([], [], color=style.GREY, ls=(0, (1, 1.5)), lw=0.8, label="predicted as it is"))
        style.legend(figure, entries)
    front = ["task", "agent", "series", "loop"]
    joined = pd.concat(numbers, ignore_index=True)
    return style.Drawn(figure, joined[front + [c for c in joined if c not in front]], _caption(runs), notes)


def _bins(runs: Sequence[Rewards], loop: str) -> rewards.Calibration:
    steps = max(run.true.shape[1] for run in runs)
    true, predicted = (
        np.concatenate([np.pad(one, ((0, 0), (0, steps - one.shape[1]))) for one in each])
        for each in ([run.true for run in runs], [run.predicted[loop] for run in runs])
    )
    return rewards.calibration(true, predicted, np.concatenate([run.length for run in runs]), bins=BINS)


def _varies(runs: Sequence[Rewards]) -> bool:
    each = [run.true[:, 1:][np.arange(1, run.true.shape[1]) < run.length[:, None]] for run in runs]
    return float(np.ptp(np.concatenate(each))) > 0


def _line(axis: Axes, found: rewards.Calibration, look: style.Look, dashes: tuple) -> None:
    axis.plot(found.true, found.predicted, color=look.colour, ls=dashes, marker=look.marker, ms=3, zorder=4)
    axis.vlines(found.true, found.low, found.high, color=look.colour, lw=0.9, zorder=3)


def _diagonal(axis: Axes) -> None:
    low = min(axis.get_xlim()[0], axis.get_ylim()[0])
    high = max(axis.get_xlim()[1], axis.get_ylim()[1])
    axis.plot([low, high], [low, high], color=style.GREY, ls=(0, (1, 1.5)), lw=0.8, zorder=1)
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.grid()


def _numbers(found: rewards.Calibration) -> pd.DataFrame:
    columns = {
        "from": found.edges[:-1],
        "to": found.edges[1:],
        "true": found.true,
        "predicted": found.predicted,
        "predicted_low": found.low,
        "predicted_high": found.high,
        "error": found.error,
        "steps": found.steps,
    }
    return pd.DataFrame(columns).rename_axis("bin").reset_index()


def _caption(runs: Sequence[Rewards]) -> str:
    few = min(len(run.length) for run in runs)
    return (
        f"Mean predicted against mean true reward in up to {BINS} bins of equally many steps by true reward (ties "
        "share one), of the recorded trajectories of all seeds: with every observation given (left), and on open loop "
        f"behind those given (right). Bars: 95 % bootstrap intervals over trajectories ({few} or more)."
    )
