"""Figures "truncation" and "front_end": the final return against one setting of otherwise equal runs, in distribution
(filled, solid) and out of it (hollow, dashed). The study shortens VC-1, and compares one linear layer with an MLP in
front of the world model (facts: section 7).
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import stats
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "setting", "inside", "outside")
KEYS = ["task", "agent", "series", "encoder", "setting", "where"]
PLACES = ("inside", "outside")
DASHES = {"inside": "-", "outside": (0, (3, 1.5))}
WORDS = {"inside": "in distribution", "outside": "out of distribution"}


def over_numbers(scores: pd.DataFrame, setting: str, score: str) -> style.Drawn:
    """A line per series over a setting that is a number. `scores`: one row per run with `COLUMNS`, `outside` NaN where
    nothing was played; optional `series` (without the setting in its name), `agent`.
    """
    scores, numbers = _summary(scores)
    titles, looks = style.panel_names(scores), style.looks(scores["encoder"])
    with style.paper():
        figure, grid = style.panels(len(titles), 2.0)
        for panel, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            mine = numbers[(numbers["task"] == task) & (numbers["agent"] == agent)]
            for (_, encoder, where), rows in mine.groupby(["series", "encoder", "where"]):
                look, fill = looks[encoder], "full" if where == "inside" else "none"
                line = panel.axis.plot(rows["setting"], rows["mean"], look.marker, color=look.colour, ms=4)[0]
                line.set(linestyle=DASHES[where], fillstyle=fill, zorder=4, clip_on=False)
                panel.axis.vlines(rows["setting"], rows["low"], rows["high"], color=look.colour, lw=1.0, zorder=3)
            panel.axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.axis.set(xlabel=setting if panel.bottom else "", ylabel=score if panel.left else "", title=title)
            panel.axis.set_ylim(*style.value_limits(mine[["mean", "low", "high"]]))
            panel.axis.grid(axis="y")
        style.legend(figure, [*style.series_entries(scores, looks), *_places(numbers)])
    what = f"Final return over the {setting}, runs otherwise equal."
    return style.Drawn(figure, numbers.drop(columns="encoder"), _caption(scores, what), _notes(scores))


def over_words(scores: pd.DataFrame, setting: str, score: str) -> style.Drawn:
    """A row per series, with one marker for each value of a setting that is a word; columns of panels: in distribution
    and out of it. `scores` as of `over_numbers`.
    """
    scores, numbers = _summary(scores)
    titles, looks = style.panel_names(scores), style.looks(scores["encoder"])
    values, names = sorted(numbers["setting"].unique()), list(style.series_of(scores)["series"])
    with style.paper():
        height = 0.6 + len(names) * (0.1 + 0.12 * len(values))
        figure = style.new_figure(style.PAGE, height * len(titles) + 0.35)
        grid = figure.subplots(len(titles), len(PLACES), squeeze=False)
        for axes, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            mine = numbers[(numbers["task"] == task) & (numbers["agent"] == agent)]
            for axis, where in zip(axes, PLACES, strict=True):
                _rows(axis, mine[mine["where"] == where], names, values, looks)
                axis.set_yticks(range(len(names)), names if axis is axes[0] else [""] * len(names))
                axis.set(xlabel=score, title=f"{title}: {WORDS[where]}")
                axis.set_xlim(*style.value_limits(mine[["mean", "low", "high"]]))
        entries = [
            Line2D([], [], color=style.GREY, ls="", marker=style.MARKERS[n], label=f"{setting}: {value}")
            for n, value in enumerate(values)
        ]
        style.legend(figure, entries)
    what = f"Final return by {setting}, runs otherwise equal."
    return style.Drawn(figure, numbers.drop(columns="encoder"), _caption(scores, what), _notes(scores))


def _summary(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = style.prepare(scores, COLUMNS)
    long = scores.melt(
        [*(key for key in KEYS if key != "where"), "seed"], list(PLACES), var_name="where", value_name="score"
    )
    rows = []
    for key, mine in long.dropna(subset=["score"]).groupby(KEYS):
        interval = stats.bootstrap(mine.groupby("seed")["score"].mean().to_numpy(), stats.mean)
        ends = {"mean": interval.point, "low": interval.low, "high": interval.high, "seeds": interval.runs}
        rows.append({**dict(zip(KEYS, key, strict=True)), **ends})
    return scores, pd.DataFrame(rows)


def _rows(axis: Axes, rows: pd.DataFrame, names: list[str], values: list, looks: dict[str, style.Look]) -> None:
    step = 0.6 / len(values)
    for row in rows.to_dict("records"):
        place = values.index(row["setting"])
        y, colour = names.index(row["series"]) + (place - (len(values) - 1) / 2) * step, looks[row["encoder"]].colour
        axis.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.2, zorder=3)
        axis.plot(row["mean"], y, style.MARKERS[place], color=colour, ms=4.5, zorder=4, clip_on=False)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _places(numbers: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color=style.GREY, ls=DASHES[where], label=WORDS[where])
        for where in PLACES
        if where in set(numbers["where"])
    ]


def _notes(scores: pd.DataFrame) -> list[str]:
    counts = scores.groupby(["task", "agent", "series", "setting"])["seed"].nunique()
    notes = [
        f"{style.named(task, agent, series, scores['agent'])}, {value}: one seed, so no interval"
        for (task, agent, series, value), n in counts.items()
        if n == 1
    ]
    return notes + (["nothing was played out of distribution"] if scores["outside"].isna().all() else [])


def _caption(scores: pd.DataFrame, what: str) -> str:
    spread = style.spread(scores.groupby(["task", "agent", "series", "setting"])["seed"].nunique())
    return f"{what} {f'Lines: {spread}.' if spread else 'One seed each: no interval.'}"
