"""Figure "dynamics": the error of open-loop latents over the horizon, beside the error of the rewards predicted from
them.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import dynamics, rewards, stats
from analysis.figures import style
from analysis.runs import Latents

COLUMNS = (
    "task",
    "encoder",
    "seed",
    "trajectory",
    "k",
    "mse",
    "copy_last_mse",
    "variance",
    "reward_error",
    "mean_reward_error",
)
DASHED = (0, (3, 1.5))
NOISE = 1e-5  # axes reach at least here, so that rounding errors look like the zeros they are


def error_table(latents: Latents, **labels: object) -> pd.DataFrame:
    """One row per trajectory and step k without an observation (`COLUMNS`); `labels` become columns: task, encoder,
    seed …

    Steps after a trajectory's end have no row; a prediction that is not finite gives a row with NaN.
    """
    given = (latents.length, latents.context)
    columns = {
        "mse": dynamics.open_loop_errors(latents.posterior, latents.open_loop, *given),
        "copy_last_mse": dynamics.copy_last_errors(latents.posterior, *given),
        "reward_error": rewards.reward_errors(latents.reward_true, latents.reward_open_loop, *given),
        "mean_reward_error": rewards.mean_reward_errors(latents.reward_true, *given),
        "closed_loop_reward_error": rewards.reward_errors(latents.reward_true, latents.reward_pred, *given),
    }
    trajectory, column = np.nonzero(latents.valid[:, latents.context :])
    table = pd.DataFrame({name: errors[trajectory, column] for name, errors in columns.items()})
    variance = dynamics.latent_variance(latents.posterior, latents.length)
    return table.assign(trajectory=trajectory, k=column + 1, variance=variance, **labels)


def draw(errors: pd.DataFrame) -> style.Drawn:
    """Left: MSE of the latent relative to the latent's variance; right: |r - r̂|; dashed: what predicting no change, or
    the mean reward, would give. `errors`: one row per trajectory and step with `COLUMNS`; optional `series`, `agent`.
    """
    errors = style.prepare(errors, COLUMNS)
    errors = errors.assign(
        relative=errors["mse"] / errors["variance"], relative_copy=errors["copy_last_mse"] / errors["variance"]
    )
    titles, lines = style.panel_names(errors), style.line_styles(errors)
    numbers = []
    with style.paper():
        figure = style.new_figure(style.PAGE, 1.95 * len(titles) + 0.35)
        grid = figure.subplots(len(titles), 2, squeeze=False)
        for (left, right), ((task, agent), title) in zip(grid, titles.items(), strict=True):
            rows = errors[(errors["task"] == task) & (errors["agent"] == agent)]
            for name, encoder in style.series_of(rows).itertuples(index=False):
                mine = rows[rows["series"] == name]
                look = (style.look(encoder).colour, lines[name])
                bands = [
                    _line(left, mine, "relative", "relative_copy", *look),
                    _line(right, mine, "reward_error", "mean_reward_error", *look),
                ]
                numbers.append(_numbers(mine, *bands).assign(task=task, agent=agent, series=name))
            left.set(ylabel="latent MSE / latent variance", title=f"{title}: dynamics")
            right.set(ylabel="reward error |r − r̂|", title=f"{title}: reward")
            for axis in (left, right):
                _axes(axis, int(rows["k"].max()))
        _legend(figure, errors, lines)
    table = pd.concat(numbers, ignore_index=True)
    front = ["task", "agent", "series", "k"]
    return style.Drawn(figure, table[front + [c for c in table if c not in front]], _caption(errors), _notes(errors))


def _line(axis: Axes, rows: pd.DataFrame, value: str, baseline: str, colour: str, line: object) -> stats.Band:
    band = _band(rows, value)
    axis.plot(band.x, band.mean, color=colour, ls=line, zorder=4)
    axis.fill_between(band.x, band.low, band.high, color=colour, alpha=0.18, lw=0, zorder=3)
    base = _band(rows, baseline)
    axis.plot(base.x, base.mean, color=colour, ls=DASHED, lw=0.8, alpha=0.8, zorder=2)
    return band


def _band(rows: pd.DataFrame, value: str) -> stats.Band:
    """Over seeds where there are several, each the mean of its trajectories; otherwise over trajectories."""
    unit = "seed" if rows["seed"].nunique() > 1 else "trajectory"
    wide = rows.groupby(["k", unit])[value].mean().unstack("k")
    return stats.band(wide.columns.to_numpy(float), wide.to_numpy(float))


def _numbers(rows: pd.DataFrame, relative: stats.Band, reward: stats.Band) -> pd.DataFrame:
    """Per k: means, intervals of the lines, and and sums over the first k steps of those that last so long."""
    ordered = rows.sort_values(["seed", "trajectory", "k"])
    sums = ordered.groupby(["seed", "trajectory"])[["mse", "relative", "reward_error"]].transform(
        lambda x: x.cumsum(skipna=False)
    )
    means = rows.groupby("k")[["mse", "relative", "relative_copy", "reward_error", "mean_reward_error"]].mean()
    return means.assign(
        skill_over_copy=1 - means["relative"] / means["relative_copy"],
        relative_low=relative.low,
        relative_high=relative.high,
        reward_error_low=reward.low,
        reward_error_high=reward.high,
        mse_sum=sums["mse"].groupby(ordered["k"]).mean(),
        relative_sum=sums["relative"].groupby(ordered["k"]).mean(),
        reward_error_sum=sums["reward_error"].groupby(ordered["k"]).mean(),
        trajectories=rows.groupby("k")["mse"].count(),
        seeds=rows["seed"].nunique(),
    ).reset_index()


def _axes(axis: Axes, last: int) -> None:
    axis.set_xlabel("agent steps without an observation")
    axis.set_xlim(min(1, last - 1), last)
    axis.set_ylim(0, max(axis.get_ylim()[1], NOISE))
    axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axis.grid(axis="y")


def _legend(figure: Figure, errors: pd.DataFrame, lines: dict[str, tuple]) -> None:
    entries, counts = [], style.seed_counts(errors)
    for name, encoder in style.series_of(errors).itertuples(index=False):
        label = style.with_seeds(name, counts[name])
        entries.append(Line2D([], [], color=style.look(encoder).colour, ls=lines[name], label=label))
    label = "baseline: last latent kept (left), mean reward (right)"
    entries.append(Line2D([], [], color=style.GREY, ls=DASHED, lw=0.8, label=label))
    figure.legend(handles=entries, loc="outside lower center", ncols=4)


def _caption(errors: pd.DataFrame) -> str:
    several = style.seed_counts(errors).max() > 1
    over = "seeds (over trajectories where there is one seed)" if several else "trajectories of the one seed"
    return (
        "Left: mean squared error between open-loop and encoded latent, relative to the variance of the encoded latent "
        "(1: predicting the mean latent), over steps without an observation; right: absolute error of the open-loop "
        "reward. Dashed: keeping the last encoded latent, and predicting the mean reward. "
        f"Bands: 95 % bootstrap intervals over {over}."
    )


def _notes(errors: pd.DataFrame) -> list[str]:
    notes = []
    for (task, series), rows in errors.groupby(["task", "series"]):
        bad = rows.loc[rows[["mse", "reward_error"]].isna().any(axis=1), ["seed", "trajectory"]].drop_duplicates()
        if len(bad):
            notes.append(
                f"{task}: {series}: {len(bad)} trajectories have predictions that are not finite, left out there"
            )
    return notes
