"""Figure "area": sample efficiency, the mean return of evaluations on the way to the steps that all runs of a task have
reached (the area under the learning curve over its width); one panel per task and agent.
"""

import numpy as np
import pandas as pd

from analysis import stats
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "step", "return")
KEYS = ["task", "agent", "series", "encoder"]


def draw(evaluations: pd.DataFrame) -> style.Drawn:
    """Discs are means over seeds with their intervals, ticks seeds. `evaluations`: one row per evaluation episode with
    `COLUMNS`; optional `series`, `agent`. Runs with one evaluation are left out with a note.
    """
    evaluations = style.prepare(evaluations, COLUMNS)
    means = evaluations.groupby([*KEYS, "seed", "step"])["return"].mean().reset_index("step")
    many = means.groupby(level=[*KEYS, "seed"])["step"].transform("nunique") > 1
    notes = [
        f"{style.named(task, agent, series, evaluations['agent'])}, seed {seed}: one evaluation has no area"
        for task, agent, series, _, seed in dict.fromkeys(means.index[~many])
    ]
    curves = dict(iter(means[many].groupby(level=[*KEYS, "seed"])))
    spans = _spans(curves)
    areas = pd.DataFrame(
        [
            {**dict(zip([*KEYS, "seed"], key, strict=True)), "area": _area(rows, *spans[key[:2]])}
            for key, rows in curves.items()
        ]
    )
    numbers = pd.DataFrame([_row(key, rows, spans) for key, rows in areas.groupby(KEYS)])
    titles, looks = style.panel_names(areas), style.looks(areas["encoder"])
    names = list(style.series_of(areas)["series"])
    with style.paper():
        figure, grid = style.panels(len(titles), 0.6 + 0.17 * len(names))
        for panel, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            mine, each = (rows[(rows["task"] == task) & (rows["agent"] == agent)] for rows in (numbers, areas))
            for row in mine.to_dict("records"):
                y, look = names.index(row["series"]), looks[row["encoder"]]
                seeds = each.loc[each["series"] == row["series"], "area"]
                panel.axis.plot(seeds, np.full(len(seeds), y), "|", color=look.colour, alpha=0.4, ms=5, zorder=2)
                panel.axis.plot([row["low"], row["high"]], [y, y], color=look.colour, lw=1.4, zorder=3)
                panel.axis.plot(row["mean"], y, look.marker, color=look.colour, ms=4.5, zorder=4, clip_on=False)
            panel.axis.set_yticks(range(len(names)), names if panel.left else [""] * len(names))
            panel.axis.set(xlim=style.value_limits(mine[["mean", "low", "high"]]), ylim=(len(names) - 0.5, -0.5))
            panel.axis.set(xlabel="mean return on the way" if panel.bottom else "", title=title)
            panel.axis.tick_params(axis="y", length=0)
            panel.axis.grid(axis="x")
    notes += style.single_seeds(style.seed_counts(areas))
    return style.Drawn(figure, numbers.drop(columns="encoder"), _caption(areas), notes)


def _spans(curves: dict[tuple, pd.DataFrame]) -> dict[tuple, tuple[float, float]]:
    """(task, agent) to the steps that all its runs have evaluated."""
    spans: dict[tuple, tuple[float, float]] = {}
    for key, rows in curves.items():
        first, last = spans.get(key[:2], (-np.inf, np.inf))
        spans[key[:2]] = max(first, rows["step"].min()), min(last, rows["step"].max())
    return spans


def _area(rows: pd.DataFrame, first: float, last: float) -> float:
    rows = rows.sort_values("step")
    return float(stats.area(rows["step"].to_numpy(), rows["return"].to_numpy(), first, last))


def _row(key: tuple, rows: pd.DataFrame, spans: dict[tuple, tuple[float, float]]) -> dict[str, object]:
    interval = stats.bootstrap(rows["area"].to_numpy(), stats.mean)
    row: dict[str, object] = dict(zip(KEYS, key, strict=True))
    row |= {"mean": interval.point, "low": interval.low, "high": interval.high, "seeds": len(rows)}
    return row | dict(zip(("from", "to"), spans[key[:2]], strict=True))


def _caption(areas: pd.DataFrame) -> str:
    spread = style.spread(style.seed_counts(areas))
    return (
        "Mean return on the way (area under the curve of evaluations over its width, between the steps that all runs "
        "of a task and agent have in common). Ticks are seeds. "
        + (f"Lines: {spread}." if spread else "One seed: no interval.")
    )
