"""Figure "errors_shifted": errors of the world model under its own looks and under shifts, per encoder: whether the
model still predicts what it has not seen. Trajectories of equal number are compared: on a bank they are of the same
states and actions, on policy they begin in the same state.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.errors import AnalysisError
from analysis.figures import errors, style
from analysis.figures.ood import MARKERS
from analysis.figures.shifted import INSIDE

PANELS = {"relative": "{unit}, mean", "reward_per_step": "|r − r̂|, mean"}
KEYS = [*errors.KEYS, "looks"]


def draw(sums: pd.DataFrame) -> style.Drawn:
    """Means over seeds, or over trajectories where there is one seed, with their intervals: a disc under own looks,
    hollow under shifts. `sums`: as `errors.draw` takes them, with a column `run`, and `looks`, which is `INSIDE` or a
    shift. Errors of a latent are shares of its variance under own looks, or per categorical latent. Only trajectories
    that were recorded under all looks of a run, and are finite under them, count; the table has the paired
    `…_change` from own looks, whose intervals are narrower than those drawn where looks rank trajectories alike.
    """
    sums = style.prepare(sums, (*errors.COLUMNS, "looks", "run"))
    own = sums[sums["looks"] == INSIDE].groupby("run")["scale"].first()
    sums = sums.assign(
        relative=sums["error"] / (sums["run"].map(own) * sums["window"]),
        reward_per_step=sums["reward_error"] / sums["window"],
    )
    whole, notes = _under_all_looks(sums)
    if len(whole) == 0:
        raise AnalysisError("no trajectory is as long as a window and has finite predictions under all looks")
    numbers = pd.DataFrame([_row(key, rows) for key, rows in _with_change(whole).groupby(KEYS)])
    titles, palette = style.panel_names(sums), style.looks(sums["encoder"])
    shifts = sorted(set(sums["looks"]) - {INSIDE})
    symbols = {INSIDE: "o"} | {shift: MARKERS[n % len(MARKERS)] for n, shift in enumerate(shifts)}
    grid = [(key, window, rows) for key in titles for window, rows in errors.windows(numbers, *key)]
    heights = [0.72 + rows["series"].nunique() * (0.08 + 0.1 * len(symbols)) for _, _, rows in grid]
    with style.paper():
        figure = style.new_figure(style.PAGE, sum(heights) + 0.3)
        axes = figure.subplots(len(grid), len(PANELS), squeeze=False, height_ratios=heights)
        for line, (key, window, rows) in zip(axes, grid, strict=True):
            for axis, (value, name) in zip(line, PANELS.items(), strict=True):
                _panel(axis, rows, value, symbols, palette)
                measure = rows["measure"].iloc[0]
                axis.set_xlabel(name.format(unit=errors.UNITS.get(measure, measure)))
                axis.tick_params(axis="y", length=0, labelleft=axis is line[0])
            line[0].set_title(f"{titles[key]}: {window} steps", loc="left")
        style.legend(figure, [*_symbols(symbols), errors.interval_entry(whole)])
    return style.Drawn(figure, numbers.drop(columns="encoder"), _caption(whole), notes)


def _under_all_looks(sums: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows of the trajectories that have finite errors under all looks of their run, and a note on each run of which
    some have not.
    """
    pair, finite = ["run", "window", "trajectory"], np.isfinite(sums[list(PANELS)]).all(axis=1)
    looks = sums.groupby("run")["looks"].transform("nunique")
    kept = finite.groupby([sums[key] for key in pair]).transform("sum") == looks
    notes = []
    for (_, window), rows in sums.assign(kept=kept).groupby(["run", "window"], sort=False):
        each, first = rows.groupby("trajectory")["kept"].all(), rows.iloc[0]
        if not each.all():
            whose = style.named(first["task"], first["agent"], first["series"], sums["agent"])
            notes.append(f"{whose}, {window} steps: {each.sum()} of {len(each)} trajectories are whole under all looks")
    return sums[kept], notes


def _with_change(whole: pd.DataFrame) -> pd.DataFrame:
    """With what each trajectory's errors are above those under own looks."""
    pair = ["run", "window", "trajectory"]
    own = whole[whole["looks"] == INSIDE].set_index(pair)[list(PANELS)]
    mine = own.loc[pd.MultiIndex.from_frame(whole[pair])].to_numpy()
    return whole.assign(**{f"{value}_change": whole[value] - mine[:, n] for n, value in enumerate(PANELS)})


def _row(key: tuple, rows: pd.DataFrame) -> dict[str, object]:
    row: dict[str, object] = dict(zip(KEYS, key, strict=True))
    for value in (*PANELS, *(f"{value}_change" for value in PANELS)):
        row |= errors.mean_with_ends(rows, value)
    trajectories = len(rows[["seed", "trajectory"]].drop_duplicates())
    return row | {"trajectories": trajectories, "seeds": rows["seed"].nunique()}


def _panel(axis: Axes, rows: pd.DataFrame, value: str, symbols: dict[str, str], palette: dict[str, style.Look]) -> None:
    names, places = list(dict.fromkeys(rows["series"])), list(symbols)
    step = 0.72 / len(places)
    for row in rows.to_dict("records"):
        y = names.index(row["series"]) + (places.index(row["looks"]) - (len(places) - 1) / 2) * step
        colour, inside = palette[row["encoder"]].colour, row["looks"] == INSIDE
        axis.plot([row[f"{value}_low"], row[f"{value}_high"]], [y, y], color=colour, lw=1.2, zorder=3)
        how: dict[str, Any] = {"color": colour, "mfc": colour if inside else "white", "ms": 4, "mew": 1.0}
        axis.plot(row[value], y, symbols[row["looks"]], **how, zorder=4, clip_on=False)
    axis.set_yticks(range(len(names)), names)
    axis.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, max(axis.get_xlim()[1], errors.NOISE)))
    axis.grid(axis="x")


def _symbols(symbols: dict[str, str]) -> list[Line2D]:
    how: dict[str, Any] = {"color": style.GREY, "ls": "", "ms": 4, "mew": 1.0}
    return [
        Line2D(
            [], [], **how, marker=marker, mfc=style.GREY if look == INSIDE else "white", label=look.replace("_", " ")
        )
        for look, marker in symbols.items()
    ]


def _caption(sums: pd.DataFrame) -> str:
    return (
        "Errors of the world model on open loop, mean per step of a window, under its own looks (discs) and under "
        "shifts (hollow): of the latent as a share of its variance under own looks, or per categorical latent; "
        "absolute error of the reward. Of the same trajectories under all looks; their paired change is in the table. "
        f"{errors.intervals_in_words(sums)}"
    )
