"""Figure "dynamics": the error of open-loop latents over the horizon, beside the error of the rewards predicted from
them. Drawn is the mean over the first k steps, k on a logarithmic axis: times k it is the error that the study
accumulates, at k = 33 and k = 500 over its windows. What that error is depends on the latents (`MEASURES`); errors of
two measures never share an axis.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from analysis import dynamics, horizons, stats
from analysis.errors import AnalysisError
from analysis.figures import style
from analysis.records import Latents

COLUMNS = (
    "task",
    "encoder",
    "seed",
    "trajectory",
    "k",
    "context",
    "measure",
    "error",
    "copy_last_error",
    "scale",
    "reward_error",
    "mean_reward_error",
)
DASHED = (0, (3, 1.5))
NOISE = 1e-5  # axes reach at least here, so that rounding errors look like the zeros they are
TICKS = (1, 3, 10, *dynamics.STUDY_WINDOWS[:1], 100, *dynamics.STUDY_WINDOWS[1:], 1000, 3000, 10_000)
DRAWN = ("relative", "relative_copy", "reward_error", "mean_reward_error")
SO_FAR = "_first_k"  # ending of columns that hold means over the first k steps


@dataclass(frozen=True)
class Measure:
    """How the error of a latent is drawn, and what it is."""

    axis: str
    meaning: str


MEASURES = {
    "MSE": Measure(
        "latent MSE / variance",
        "mean squared error between open-loop and encoded latent, relative to the variance of the encoded latent "
        "(1: predicting the mean latent)",
    ),
    "KL": Measure(
        "latent KL, nats / latent",
        "mean of forward and backward KL between the open-loop prior and the posterior that has seen the observation, "
        "in nats per categorical latent",
    ),
}


def error_table(latents: Latents, unimix: float | None = None, **labels: object) -> pd.DataFrame:
    """One row per trajectory and step k without an observation (`COLUMNS`); `labels` become columns: task, encoder,
    seed …

    `measure` says what `error` is, one of `MEASURES`, and `scale` what it is divided by to be drawn. Categorical
    latents need the agent's `unimix`; raises AnalysisError without. Steps after a trajectory's end have no row; a
    prediction that is not finite gives a row with NaN.
    """
    measure = horizons.measure_of(latents, unimix)
    columns = horizons.step_errors(latents, measure)
    trajectory, column = np.nonzero(latents.valid[:, latents.context :])
    table = pd.DataFrame({name: errors[trajectory, column] for name, errors in columns.items()})
    table = table.assign(trajectory=trajectory, k=column + 1, measure=measure.name, scale=measure.scale)
    return table.assign(context=latents.context, **labels)


def draw(errors: pd.DataFrame) -> style.Drawn:
    """Left: error of the latent on its scale (`MEASURES`); right: |r - r̂|; dashed: what predicting no change, or the
    mean reward, would give. All are means over the first k steps. `errors`: one row per trajectory and step with
    `COLUMNS`; optional `series`, `agent`, `run`. Raises AnalysisError where one agent's errors are of two measures.
    """
    errors = _first_steps(style.prepare(errors, COLUMNS))
    measures = _measures(errors)
    titles, lines = style.panel_names(errors), style.line_styles(errors)
    looks = style.looks(errors["encoder"])
    numbers = []
    with style.paper():
        figure = style.new_figure(style.PAGE, 1.95 * len(titles) + 0.35)
        grid = figure.subplots(len(titles), 2, squeeze=False)
        for (left, right), ((task, agent), title) in zip(grid, titles.items(), strict=True):
            rows = errors[(errors["task"] == task) & (errors["agent"] == agent)]
            for name, encoder in style.series_of(rows).itertuples(index=False):
                mine = rows[rows["series"] == name]
                look = (looks[encoder].colour, lines[name])
                bands = [
                    _line(left, mine, *DRAWN[:2], *look),
                    _line(right, mine, *DRAWN[2:], *look),
                ]
                labels = {"task": task, "agent": agent, "series": name, "measure": measures[task, agent]}
                numbers.append(_numbers(mine, *bands).assign(**labels))
            axis_name = MEASURES[measures[task, agent]].axis
            left.set(ylabel=f"{axis_name}\n(mean of steps 1 to k)", title=f"{title}: dynamics")
            right.set(ylabel="reward error |r − r̂|\n(mean of steps 1 to k)", title=f"{title}: reward")
            for axis in (left, right):
                _axes(axis, int(rows["k"].max()))
        _legend(figure, errors, lines, looks)
    table = pd.concat(numbers, ignore_index=True)
    front = ["task", "agent", "series", "measure", "k"]
    table = table[front + [c for c in table if c not in front]]
    return style.Drawn(figure, table, _caption(errors), _notes(errors), _printed(table))


def _printed(numbers: pd.DataFrame) -> pd.DataFrame:
    """What is drawn, at the marks of the axis."""
    shown = [f"{name}{SO_FAR}{end}" for name in ("relative", "reward_error") for end in ("", "_low", "_high")]
    rows = numbers[numbers["k"].isin(TICKS)]
    return rows[["task", "agent", "series", "measure", "k", *shown, "skill_over_copy", "trajectories", "seeds"]]


def _measures(errors: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(task, agent) to the one measure of its panel."""
    found: dict[tuple[str, str], str] = {}
    for task, agent, measure in errors[["task", "agent", "measure"]].drop_duplicates().itertuples(index=False):
        if measure not in MEASURES:
            raise AnalysisError(f"unknown measure {measure!r} of latent errors", hint=f"Known: {', '.join(MEASURES)}")
        if found.setdefault((task, agent), measure) != measure:
            both = " and ".join(sorted((found[task, agent], measure)))
            what = f"errors of agent {agent!r} on {task} are {both}, which cannot share an axis"
            raise AnalysisError(what, hint="Give runs of different algorithms different names in the column 'agent'")
    return found


def _first_steps(errors: pd.DataFrame) -> pd.DataFrame:
    """With the means over the first k steps of each trajectory, NaN from the first prediction that is not finite on."""
    errors = errors.sort_values("k", ignore_index=True)
    relative, relative_copy = (errors[name] / errors["scale"] for name in ("error", "copy_last_error"))
    errors = errors.assign(relative=relative, relative_copy=relative_copy)
    one = errors.groupby(["task", "agent", "series", "run", "seed", "trajectory"])[["error", *DRAWN]]
    sums = one.transform(lambda x: x.cumsum(skipna=False))
    return errors.join(sums.div(one.cumcount() + 1, axis=0).add_suffix(SO_FAR))


def _line(axis: Axes, rows: pd.DataFrame, value: str, baseline: str, colour: str, line: object) -> stats.Band:
    band = _band(rows, value + SO_FAR)
    axis.plot(band.x, band.mean, color=colour, ls=line, zorder=4)
    axis.fill_between(band.x, band.low, band.high, color=colour, alpha=0.18, lw=0, zorder=3)
    base = _band(rows, baseline + SO_FAR)
    axis.plot(base.x, base.mean, color=colour, ls=DASHED, lw=0.8, alpha=0.8, zorder=2)
    return band


def _band(rows: pd.DataFrame, value: str) -> stats.Band:
    """Over seeds where there are several, each the mean of its trajectories; otherwise over trajectories."""
    unit = "seed" if rows["seed"].nunique() > 1 else "trajectory"
    wide = rows.groupby(["k", unit])[value].mean().unstack("k")
    return stats.band(wide.columns.to_numpy(float), wide.to_numpy(float))


def _numbers(rows: pd.DataFrame, relative: stats.Band, reward: stats.Band) -> pd.DataFrame:
    """Per k: means at step k, means over the first k steps of the trajectories that last so long with the bands drawn,
    and the sums over those steps that the study gives.
    """
    means = rows.groupby("k")[["error", *DRAWN, *(name + SO_FAR for name in DRAWN)]].mean()
    sums = rows.groupby("k")[[name + SO_FAR for name in ("error", "relative", "reward_error")]].mean()
    sums.columns = sums.columns.str.replace(SO_FAR, "_sum")
    return means.assign(
        skill_over_copy=1 - means["relative"] / means["relative_copy"],
        relative_first_k_low=relative.low,
        relative_first_k_high=relative.high,
        reward_error_first_k_low=reward.low,
        reward_error_first_k_high=reward.high,
        **sums.mul(sums.index, axis=0),
        trajectories=rows.groupby("k")["relative_first_k"].count(),
        seeds=rows["seed"].nunique(),
        context=_given(rows),
    ).reset_index()


def _axes(axis: Axes, last: int) -> None:
    axis.set_xlabel("k, agent steps without an observation")
    axis.set_xscale("log")
    axis.set_xlim(1, 1.05 * max(last, 2))
    axis.set_ylim(0, max(axis.get_ylim()[1], NOISE))
    ticks = [k for k in TICKS if k <= last]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FixedFormatter([str(k) for k in ticks]))
    axis.xaxis.set_minor_locator(NullLocator())
    for window in dynamics.STUDY_WINDOWS:
        if window <= last:
            axis.axvline(window, color=style.GREY, lw=0.6, ls=(0, (1, 1.5)), zorder=1)
    axis.grid(axis="y")


def _legend(figure: Figure, errors: pd.DataFrame, lines: dict[str, tuple], looks: dict[str, style.Look]) -> None:
    entries = style.series_entries(errors, looks, lines=lines, markers=False)
    label = "baseline: last latent kept (left), mean reward (right)"
    entries.append(Line2D([], [], color=style.GREY, ls=DASHED, lw=0.8, label=label))
    style.legend(figure, entries)


def _caption(errors: pd.DataFrame) -> str:
    units = errors.groupby(["series", "task", "agent"])[["seed", "trajectory"]].nunique()
    single = units["seed"] == 1
    spreads = [style.spread(units["seed"]), style.spread(units.loc[single, "trajectory"], "trajectories of one seed")]
    meanings = [one.meaning for name, one in MEASURES.items() if name in set(errors["measure"])]
    return (
        f"Left: {'; or '.join(meanings)}; right: absolute error of the open-loop reward. Both are means over the first "
        f"k steps without an observation, from the start of an episode, after {_given(errors)} given, so that k times "
        "the value is the accumulated error; dotted: windows of "
        f"{' and '.join(map(str, dynamics.STUDY_WINDOWS))} steps. Dashed: keeping the last encoded latent, and "
        f"predicting the mean reward. Bands: {'; '.join(filter(None, spreads)) or 'none, one trajectory of one seed'}."
    )


def _given(errors: pd.DataFrame) -> str:
    """How many observations the model was given: "1", or "1 to 5" where recordings differ."""
    low, high = errors["context"].min(), errors["context"].max()
    return f"{low}" if low == high else f"{low} to {high}"


def _notes(errors: pd.DataFrame) -> list[str]:
    notes = []
    for (task, agent, series), rows in errors.groupby(["task", "agent", "series"]):
        bad = rows.loc[rows[["error", "reward_error"]].isna().any(axis=1), ["seed", "trajectory"]].drop_duplicates()
        if len(bad):
            what = f"{len(bad)} trajectories have predictions that are not finite, left out from there on"
            notes.append(f"{style.named(task, agent, series, errors['agent'])}: {what}")
    return notes
