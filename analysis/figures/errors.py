"""Figure "errors": errors of the world model summed over windows, as bars per encoder: of the latent as the study gives
it, of the latent on a scale that encoders share, and of the reward. One row of panels per task, agent and window, since
neither windows nor measures share an axis.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import correlation, dynamics, stats
from analysis.errors import AnalysisError
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "trajectory", "window", "points", "measure", "scale", "context", "error",
           "copy_last_error", "reward_error", "mean_reward_error")  # fmt: skip
PANELS = {  # the value of a bar, its baseline, and its axis
    "error": ("copy_last_error", "{measure}, summed"),
    "relative": ("relative_copy", "{unit}, mean"),
    "reward_error": ("mean_reward_error", "|r − r̂|, summed"),
}
NOISE = 1e-4  # axes reach at least here, so that rounding errors look like the zeros they are
UNITS = {"MSE": "MSE / latent variance", "KL": "KL per latent, nats"}
KEYS = ["task", "agent", "window", "series", "encoder", "measure"]


def draw(sums: pd.DataFrame) -> style.Drawn:
    """Bars are means over seeds, or over trajectories where there is one seed, with their intervals; a short grey line
    is the baseline: the last latent kept, and the mean reward. `sums`: one row per run, trajectory and window with
    `COLUMNS`, as `horizons.window_table` gives them; optional `series`, `agent`, `run`.
    """
    sums = style.prepare(sums, COLUMNS)
    per_step = sums["scale"] * sums["window"]
    sums = sums.assign(relative=sums["error"] / per_step, relative_copy=sums["copy_last_error"] / per_step)
    whole = sums[np.isfinite(sums[["error", "reward_error"]]).all(axis=1)]
    if len(whole) == 0:
        raise AnalysisError("no trajectory is as long as a window and has finite predictions in it")
    notes = _left_out(sums, whole)
    numbers = _standardised(pd.DataFrame([_row(key, rows) for key, rows in whole.groupby(KEYS)]))
    titles, looks = style.panel_names(sums), style.looks(sums["encoder"])
    grid = [(key, window, rows) for key in titles for window, rows in windows(numbers, *key)]
    heights = [0.72 + 0.17 * len(rows) for _, _, rows in grid]
    with style.paper():
        figure = style.new_figure(style.PAGE, sum(heights) + 0.3)
        axes = figure.subplots(len(grid), len(PANELS), squeeze=False, height_ratios=heights)
        for line, (key, window, rows) in zip(axes, grid, strict=True):
            for axis, (value, (baseline, name)) in zip(line, PANELS.items(), strict=True):
                _bars(axis, rows, value, baseline, looks)
                measure = rows["measure"].iloc[0]
                axis.set_xlabel(name.format(measure=measure, unit=UNITS.get(measure, measure)))
                axis.tick_params(axis="y", length=0, labelleft=axis is line[0])
            line[0].set_title(f"{titles[key]}: {window} steps", loc="left")
        _legend(figure, sums)
    return style.Drawn(figure, numbers.drop(columns="encoder"), _caption(sums), notes, _printed(numbers))


def windows(numbers: pd.DataFrame, task: str, agent: str) -> list[tuple[int, pd.DataFrame]]:
    """Each window of one task and agent, and its rows."""
    mine = numbers[(numbers["task"] == task) & (numbers["agent"] == agent)]
    return [(int(str(window)), rows) for window, rows in mine.groupby("window")]


def _row(key: tuple, rows: pd.DataFrame) -> dict[str, object]:
    """Means of one series with intervals over seeds (drawn where there are several) or trajectories."""
    row: dict[str, object] = dict(zip(KEYS, key, strict=True))
    for value, (baseline, _) in PANELS.items():
        row |= mean_with_ends(rows, value)
        row[baseline] = rows.groupby("seed")[baseline].mean().mean()
    trajectories = len(rows[["seed", "trajectory"]].drop_duplicates())
    return row | {"points": rows["points"].max(), "trajectories": trajectories, "seeds": rows["seed"].nunique()}


def mean_with_ends(rows: pd.DataFrame, value: str) -> dict[str, float]:
    """The mean of a column, and as `…_low` and `…_high` its interval over seeds, or over the trajectories of one."""
    each = rows.groupby("seed")[value].mean() if rows["seed"].nunique() > 1 else rows[value]
    interval = dynamics.over_trajectories(each.to_numpy())
    return {value: interval.point, f"{value}_low": interval.low, f"{value}_high": interval.high}


def _standardised(numbers: pd.DataFrame) -> pd.DataFrame:
    """With both errors in standard deviations of the encoders of one task, agent and window: what has no unit can be
    compared between agents.
    """
    for value in ("error", "reward_error"):
        each = numbers.groupby(["task", "agent", "window"])[value]
        numbers[f"{value}_standardised"] = each.transform(lambda x: correlation.standardise(x.to_numpy(), [0] * len(x)))
    return numbers


def _bars(axis: Axes, rows: pd.DataFrame, value: str, baseline: str, looks: dict[str, style.Look]) -> None:
    for place, row in enumerate(rows.to_dict("records")):
        axis.barh(place, row[value], 0.7, color=looks[row["encoder"]].colour, alpha=0.85, zorder=2)
        ends = [row[f"{value}_low"], row[f"{value}_high"]]
        axis.plot(ends, [place, place], color="white", lw=2.4, zorder=3)  # to be seen on dark bars
        axis.plot(ends, [place, place], color="black", lw=1.0, zorder=4)
        axis.plot([row[baseline]] * 2, [place - 0.42, place + 0.42], color=style.GREY, lw=1.4, zorder=5)
    axis.set_yticks(range(len(rows)), list(rows["series"]))
    axis.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, max(axis.get_xlim()[1], NOISE)))
    axis.grid(axis="x")


def _legend(figure, sums: pd.DataFrame) -> None:
    entries = [
        Patch(color=style.LIGHT, label="world model"),
        interval_entry(sums, "black"),
        Line2D([], [], color=style.GREY, ls="", marker="|", ms=7, mew=1.4, label="last latent kept, mean reward"),
    ]
    style.legend(figure, entries)


def interval_entry(sums: pd.DataFrame, colour: str = style.GREY) -> Line2D:
    """Of the legend: what the lines of `mean_with_ends` are, in the main."""
    counts = sums.groupby(["series", "task", "agent"])[["seed", "trajectory"]].nunique().max()
    unit = "seed" if counts["seed"] > 1 else "trajectory"
    kind = "range" if counts[unit] < stats.FEW else "interval"
    many = "seeds" if unit == "seed" else "trajectories"
    return Line2D([], [], color=colour, lw=1.0, label=f"{kind} over {many}")


def intervals_in_words(sums: pd.DataFrame) -> str:
    """For a caption."""
    counts = sums.groupby(["series", "task", "agent"])[["seed", "trajectory"]].nunique()
    single = counts["seed"] == 1
    spreads = [style.spread(counts["seed"]), style.spread(counts.loc[single, "trajectory"], "trajectories of one seed")]
    return f"Intervals: {'; '.join(filter(None, spreads)) or 'none, one trajectory of one seed'}."


def _left_out(sums: pd.DataFrame, whole: pd.DataFrame) -> list[str]:
    keys = ["task", "agent", "series", "window"]
    before, after = (rows.groupby(keys).size() for rows in (sums, whole))
    short = {key: (int(n), int(after.get(key, 0))) for key, n in before.items() if after.get(key, 0) < n}
    return [
        f"{style.named(task, agent, series, sums['agent'])}, {window} steps: {n - left} of {n} trajectories are "
        "shorter, or not finite in places"
        for (task, agent, series, window), (n, left) in short.items()
    ]


def _printed(numbers: pd.DataFrame) -> pd.DataFrame:
    shown = [f"{name}{end}" for name in PANELS for end in ("", "_low", "_high")]
    return numbers[[*(key for key in KEYS if key != "encoder"), *shown, "trajectories", "seeds"]]


def _caption(sums: pd.DataFrame) -> str:
    low, high = sums["context"].min(), sums["context"].max()
    given = f"{low}" if low == high else f"{low} to {high}"
    starts = sums.groupby("window")["points"].max()
    many = ", ".join(f"over {window} steps from {n}" for window, n in starts.items() if n > 1)
    kinds = {
        "MSE": "mean squared error between open-loop and encoded latent",
        "KL": "mean of forward and backward KL between open-loop prior and posterior, summed over latents",
    }
    meanings = "; or ".join(text for name, text in kinds.items() if name in set(sums["measure"]))
    first = f"{given} first observation{'' if high == 1 else 's'} given"
    return (
        f"Errors of the world model on open loop, {first}, summed over windows of steps: {meanings}; the same per step "
        "and relative to the variance of the latent, or per latent; absolute error of the reward. Start points of a "
        f"window: {f'{many}, otherwise one' if many else 'one'}. Grey: the last latent kept, and the mean reward "
        f"predicted. {intervals_in_words(sums)}"
    )
