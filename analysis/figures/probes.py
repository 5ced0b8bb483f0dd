"""Figure "probes": what can be read linearly from the feature and from the latent, held-out R² per variable; one panel
per task and agent.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "source", "variable", "r2")
SOURCES = ("feature", "latent")  # filled and hollow
FLOOR = -0.1  # below, a probe is as wrong as it gets


def draw(scores: pd.DataFrame) -> style.Drawn:
    """Discs are means over seeds (filled: feature, hollow: latent), lines the range over seeds, or of one seed its
    `low` to `high`, the interval over episodes. `scores`: one row per run, source and variable with `COLUMNS`, as
    `probes.probe` gives them; optional `series`, `agent`, `low`, `high`. R² below `FLOOR` is drawn there; variables
    without one (they do not vary) are left out with a note.
    """
    scores = style.prepare(scores, COLUMNS)
    missing = sorted(scores.loc[scores["r2"].isna(), "variable"].unique())
    notes = [f"{name}: no R² where it does not vary in the held-out episodes" for name in missing]
    scores = scores[scores["r2"].notna()]
    titles, looks = style.panel_names(scores), style.looks(scores["encoder"])
    keys = ["task", "agent", "series", "encoder", "source", "variable"]
    numbers = scores.groupby(keys)["r2"].agg(["mean", "min", "max", "count"]).reset_index()
    if {"low", "high"} <= {*scores.columns}:
        ends, single = scores.groupby(keys)[["low", "high"]].first().reset_index(), numbers["count"] == 1
        numbers.loc[single, ["min", "max"]] = ends.loc[single, ["low", "high"]].to_numpy()
    variables = sorted(numbers["variable"].unique(), key=_natural)
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
    return style.Drawn(figure, table, _caption(), notes)


def _natural(name: str) -> tuple[str, int]:
    """ "velocity 10" behind "velocity 9"."""
    words, _, number = name.rpartition(" ")
    return (words, int(number)) if number.isdecimal() else (name, 0)


def _panel(
    axis: Axes, numbers: pd.DataFrame, variables: list[str], names: list[str], looks: dict[str, style.Look]
) -> None:
    step = 0.72 / len(names)
    for row in numbers.to_dict("records"):
        y = variables.index(row["variable"]) + (names.index(row["series"]) - (len(names) - 1) / 2) * step
        look = looks[row["encoder"]]
        mean, low, high = np.maximum([row["mean"], row["min"], row["max"]], FLOOR)  # NaN stays
        axis.plot([low, high], [y, y], color=look.colour, lw=1.0, zorder=3)
        fill = look.colour if row["source"] == SOURCES[0] else "white"
        axis.plot(mean, y, look.marker, color=look.colour, mfc=fill, ms=4, mew=1.0, zorder=4, clip_on=False)
    axis.axvline(0, color=style.GREY, lw=0.6, zorder=1)
    axis.set(xlim=(FLOOR, 1.02), ylim=(len(variables) - 0.5, -0.5))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _legend(figure, scores: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    entries = style.series_entries(scores, looks)
    entries += [
        Line2D([], [], color=style.GREY, ls="", marker="o", mfc=fill, ms=4, label=f"from the {source}")
        for source, fill in zip(SOURCES, (style.GREY, "white"), strict=True)
    ]
    style.legend(figure, entries)


def _caption() -> str:
    return (
        "R² on held-out episodes of ridge probes from features (filled; of patches their mean) and latents (hollow): "
        "mean over seeds, lines their range, or of one seed the 95 % interval over episodes where five or more are "
        f"held out; 0 is as good as the mean, values below {FLOOR:g} are drawn there."
    )
