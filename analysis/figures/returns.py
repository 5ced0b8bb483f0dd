"""Figure "returns": return over agent steps, one panel per task (and agent), one line per encoder."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import stats
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "step", "return", "kind")
TRAIN_POINTS = 200  # dots of one seed's training returns; more episodes are averaged in bins
MANY_DOTS = 150  # in one panel: smaller and fainter beyond


def draw(episodes: pd.DataFrame, random_scores: Mapping[str, float] | None = None) -> style.Drawn:
    """Evaluation mean with its band over seeds, training episodes as faint dots behind it.

    `episodes`: one row per episode with `COLUMNS`; `kind` is "train" or "eval"; optional `series` (name of the line,
    default the encoder), `agent`, `frame` (environment frames, for the axis on top). `random_scores`: task to the
    return of random actions.
    """
    episodes = style.prepare(episodes, COLUMNS)
    titles = style.panel_names(episodes)
    lines, looks = style.line_styles(episodes), style.looks(episodes["encoder"])
    numbers = []
    with style.paper():
        figure, grid = style.panels(len(titles), 2.0)
        for panel, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            axis = panel.axis
            rows = episodes[(episodes["task"] == task) & (episodes["agent"] == agent)]
            _train(axis, rows[rows["kind"] == "train"], looks)
            for name, encoder in style.series_of(rows).itertuples(index=False):
                mine = rows[rows["series"] == name]
                evaluated = mine[mine["kind"] == "eval"]
                numbers.append(_evaluation(axis, evaluated, looks[encoder], lines[name], (task, agent, name)))
            if random_scores and task in random_scores:
                axis.axhline(random_scores[task], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), zorder=1)
            _axes(panel, rows, title)
            axis.set_ylim(*style.value_limits(rows["return"]))
        for task in episodes["task"].unique():  # agents are read side by side
            mine = [panel.axis for panel, (other, _) in zip(grid, titles, strict=True) if other == task]
            ends = np.array([axis.get_ylim() for axis in mine])
            for axis in mine:
                axis.set_ylim(ends[:, 0].min(), ends[:, 1].max())
        _legend(figure, episodes, lines, looks, bool(random_scores))
    table = pd.concat(numbers, ignore_index=True)
    last = table[table["step"] == table.groupby(["task", "agent", "series"])["step"].transform("max")]
    return style.Drawn(figure, table, _caption(episodes), _notes(episodes), last)


def _train(axis: Axes, rows: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    parts = []
    for (_, _, encoder), one in rows.groupby(["series", "seed", "encoder"]):
        one = one.sort_values("step")
        bins = np.arange(len(one)) * min(TRAIN_POINTS, len(one)) // len(one)
        parts.append((one.groupby(bins)[["step", "return"]].mean(), looks[encoder].colour))
    many = sum(len(dots) for dots, _ in parts) > MANY_DOTS
    size, alpha = (2.2, 0.18) if many else (4.0, 0.45)
    for dots, colour in parts:
        axis.plot(
            dots["step"], dots["return"], ".", color=colour, ms=size, mew=0, alpha=alpha, zorder=2, rasterized=many
        )


def _evaluation(
    axis: Axes, rows: pd.DataFrame, look: style.Look, line: tuple, key: tuple[str, str, str]
) -> pd.DataFrame:
    columns = ["task", "agent", "series", "step", "mean", "low", "high", "seeds"]
    if len(rows) == 0:
        return pd.DataFrame(columns=columns)
    curves = [(c.index.to_numpy(float), c.to_numpy(float)) for c in _curves(rows)]
    band = stats.band(*stats.align(curves))
    marker = look.marker if len(band.x) <= 12 else ""
    axis.plot(band.x, band.mean, color=look.colour, ls=line, marker=marker, zorder=4, clip_on=False)
    axis.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.18, lw=0, zorder=3)
    table = {"step": band.x, "mean": band.mean, "low": band.low, "high": band.high, "seeds": len(curves)}
    return pd.DataFrame({**dict(zip(columns, key, strict=False)), **table})[columns]


def _curves(rows: pd.DataFrame) -> list[pd.Series]:
    """One curve per seed: the mean over the episodes of each evaluation."""
    return [one.groupby("step")["return"].mean() for _, one in rows.groupby("seed")]


def _axes(panel: style.Panel, rows: pd.DataFrame, title: str) -> None:
    axis = panel.axis
    axis.set_xlabel("agent steps" if panel.bottom else "")
    axis.set_ylabel("episode return" if panel.left else "")
    axis.grid(axis="y")
    axis.margins(x=0.02)
    style.thousands(axis.xaxis)
    repeat = _frames_per_step(rows)
    if repeat > 1:
        top = axis.secondary_xaxis("top", functions=(partial(np.multiply, repeat), partial(np.multiply, 1 / repeat)))
        top.set_zorder(3)  # above the grid
        style.thousands(top.xaxis)
        top.spines["top"].set_visible(True)
        top.set_xlabel("environment frames" if panel.top else "")
    axis.set_title(title)


def _frames_per_step(rows: pd.DataFrame) -> int:
    if "frame" not in rows:
        return 1
    moved = rows[rows["step"] > 0]
    return int(np.round((moved["frame"] / moved["step"]).median())) if len(moved) else 1


def _legend(
    figure, episodes: pd.DataFrame, lines: dict[str, tuple], looks: dict[str, style.Look], random: bool
) -> None:
    entries = style.series_entries(episodes, looks, lines=lines)
    if (episodes["kind"] == "train").any():
        entries.append(
            Line2D([], [], color=style.GREY, ls="", marker=".", ms=4, mew=0, alpha=0.6, label="training episodes")
        )
    if random:
        entries.append(Line2D([], [], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), label="random actions"))
    style.legend(figure, entries)


def _caption(episodes: pd.DataFrame) -> str:
    spread = style.spread(style.seed_counts(episodes))
    band = f"Band: {spread}." if spread else "One seed: no interval."
    return f"Episode return over agent steps: mean of evaluation episodes; dots: training episodes. {band}"


def _notes(episodes: pd.DataFrame) -> list[str]:
    evaluated = set(episodes.loc[episodes["kind"] == "eval", "series"])
    return style.single_seeds(style.seed_counts(episodes)) + [
        f"{name}: no evaluation yet, training episodes only" for name in sorted(set(episodes["series"]) - evaluated)
    ]
