"""Figure "probes": what can be read linearly from the feature and from the latent, held-out R² per variable; one panel
per task and agent.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import stats
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "source", "variable", "r2")
SOURCES = ("feature", "latent")  # filled and hollow
FLOOR = -0.1  # where the axis ends; a probe below is as wrong as it gets
CUT = "<"  # marks what lies below


def draw(scores: pd.DataFrame) -> style.Drawn:
    """Marks are means over seeds (filled: feature, hollow: latent), lines the range over seeds, or of one seed its
    `low` to `high`, the interval over episodes. `scores`: one row per run, source and variable with `COLUMNS`, as
    `probes.probe` gives them; optional `series`, `agent`, `low`, `high`, `held_out` (how many episodes). Of R² below
    `FLOOR` an arrow stands there; variables without one (they do not vary) are left out with a note.
    """
    scores = style.prepare(scores, COLUMNS)
    missing = sorted(scores.loc[scores["r2"].isna(), "variable"].unique())
    notes = [f"{name}: no R² where it does not vary in the held-out episodes" for name in missing]
    scores = scores[scores["r2"].notna()]
    titles, looks = style.panel_names(scores), style.looks(scores["encoder"])
    notes += _few_held_out(scores, titles)
    keys = ["task", "agent", "series", "encoder", "source", "variable"]
    numbers = scores.groupby(keys)["r2"].agg(["mean", "min", "max", "count"]).reset_index()
    if {"low", "high"} <= {*scores.columns}:
        ends, single = scores.groupby(keys)[["low", "high"]].first().reset_index(), numbers["count"] == 1
        numbers.loc[single, ["min", "max"]] = ends.loc[single, ["low", "high"]].to_numpy()
    numbers = numbers.sort_values(["task", "agent", "series", "source", "variable"], key=_naturally)
    variables = list(dict.fromkeys(sorted(numbers["variable"], key=_natural)))
    names = list(style.series_of(scores)["series"])
    with style.paper():
        figure, grid = style.panels(len(titles), 0.5 + len(variables) * (0.08 + 0.09 * len(names)))
        for panel, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            mine = numbers[(numbers["task"] == task) & (numbers["agent"] == agent)]
            _panel(panel.axis, mine, variables, names, looks)
            labels = variables if panel.left else [""] * len(variables)
            panel.axis.set_yticks(range(len(variables)), labels)
            panel.axis.set(xlabel="held-out R²" if panel.bottom else "", title=title)
        _legend(figure, scores, looks)
    table = numbers.drop(columns="encoder").rename(
        columns={"mean": "r2", "min": "low", "max": "high", "count": "seeds"}
    )
    return style.Drawn(figure, table, _caption(scores), notes)


def _few_held_out(scores: pd.DataFrame, titles: dict[tuple[str, str], str]) -> list[str]:
    if "held_out" not in scores:
        return []
    notes = []
    for (task, agent, series), rows in scores.groupby(["task", "agent", "series"]):
        if (number := int(rows["held_out"].min())) < stats.FEW:
            alone = ", so no interval" if rows["seed"].nunique() == 1 else ""
            count = f"{number} held-out episode{'s' if number > 1 else ''}"
            notes.append(f"{titles[task, agent]}: {series} is probed on {count}{alone}")
    return notes


def _natural(name: str) -> tuple[str, int]:
    """ "velocity 10" behind "velocity 9"."""
    words, _, number = name.rpartition(" ")
    return (words, int(number)) if number.isdecimal() else (name, 0)


def _naturally(column: pd.Series) -> pd.Series:
    return column.map({name: n for n, name in enumerate(sorted(column.unique(), key=_natural))})


def _panel(
    axis: Axes, numbers: pd.DataFrame, variables: list[str], names: list[str], looks: dict[str, style.Look]
) -> None:
    step = 0.72 / len(names)
    for row in numbers.to_dict("records"):
        y = variables.index(row["variable"]) + (names.index(row["series"]) - (len(names) - 1) / 2) * step
        look = looks[row["encoder"]]
        ends = np.array([row["min"], row["max"]])
        axis.plot(np.maximum(ends, FLOOR), [y, y], color=look.colour, lw=1.0, zorder=3)  # NaN stays
        if ends[0] < FLOOR:
            axis.plot(FLOOR, y, CUT, color=look.colour, ms=2.5, zorder=3, clip_on=False)
        fill = look.colour if row["source"] == SOURCES[0] else "white"
        marker = CUT if row["mean"] < FLOOR else look.marker
        axis.plot(
            max(row["mean"], FLOOR), y, marker, color=look.colour, mfc=fill, ms=4, mew=1.0, zorder=4, clip_on=False
        )
    axis.axvline(0, color=style.GREY, lw=0.6, zorder=1)
    axis.set(xlim=(FLOOR, 1.02), ylim=(len(variables) - 0.5, -0.5))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _legend(figure, scores: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    """Fillings are shown on the mark of the first encoder; where all are of one source, encoders have its filling."""
    entries = style.series_entries(scores, looks)
    fills = {source: fill for source, fill in zip(SOURCES, (style.GREY, "white"), strict=True) if _has(scores, source)}
    if len(fills) == 1 and SOURCES[0] not in fills:
        for entry in entries:
            entry.set_markerfacecolor("white")
    marker = entries[0].get_marker()
    entries += [
        Line2D([], [], color=style.GREY, ls="", marker=marker, mfc=fill, ms=4, label=f"from the {source}")
        for source, fill in fills.items()
    ]
    style.legend(figure, entries)


def _has(scores: pd.DataFrame, source: str) -> bool:
    return bool((scores["source"] == source).any())


def _caption(scores: pd.DataFrame) -> str:
    sources = {"feature": "features (filled; of patches their mean)", "latent": "latents (hollow)"}
    given = " and ".join(words for source, words in sources.items() if _has(scores, source))
    acted = scores["variable"].str.match(r"action\b").any()
    return (
        f"R² on held-out episodes of ridge probes from {given}: "
        "mean over seeds, lines their range, or of one seed the 95 % interval over episodes where "
        f"{stats.FEW} or more are held out; 0 is as good as the mean, arrows at {FLOOR:g} stand for lower values."
    ) + (
        " An action is the one that led to the state: DreamerV3 makes its recurrent state of it, so that reading it "
        "there says nothing."
        if acted
        else ""
    )
