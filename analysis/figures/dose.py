"""Figure "dose": return over the severity of a held-out shift, one panel per task, shift (and agent)."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import stats
from analysis.figures import style
from analysis.played import HELD_OUT

COLUMNS = ("task", "encoder", "seed", "split", "shift", "severity", "return")


def doses(episodes: pd.DataFrame) -> pd.DataFrame:
    """Rows under a held-out shift that was played at several severities, all its factors held out at once."""
    shifted = episodes[episodes["split"] == HELD_OUT]
    return shifted[shifted.groupby("shift")["severity"].transform("nunique") > 1]


def draw(episodes: pd.DataFrame, random_scores: Mapping[str, float] | None = None) -> style.Drawn:
    """Mean return of every encoder at every severity with its band over seeds; dotted: the same in distribution.

    `episodes`: one row per episode with `COLUMNS`; shift "none" is in distribution. Optional `series`, `agent`.
    `random_scores`: task to the return of random actions.
    """
    episodes = style.prepare(episodes, COLUMNS)
    shifted, inside = doses(episodes), episodes[episodes["shift"] == "none"]
    panels = _panels(shifted)
    lines, looks = style.line_styles(shifted), style.looks(shifted["encoder"])
    numbers = []
    with style.paper():
        figure, grid = style.panels(len(panels), 2.0)
        for panel, ((task, agent, shift), title) in zip(grid, panels.items(), strict=True):
            rows = _of(shifted[shifted["shift"] == shift], task, agent)
            for name, encoder in style.series_of(rows).itertuples(index=False):
                mine, own = rows[rows["series"] == name], _of(inside[inside["series"] == name], task, agent)
                numbers.append(
                    _line(panel.axis, mine, own, looks[encoder], lines[name]).assign(
                        task=task, agent=agent, shift=shift, series=name
                    )
                )
            if random_scores and task in random_scores:
                panel.axis.axhline(random_scores[task], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), zorder=1)
            panel.axis.set(xlabel="severity" if panel.bottom else "", ylabel="episode return" if panel.left else "")
            panel.axis.set_title(title)
            panel.axis.grid(axis="y")
            panel.axis.margins(y=0.06)  # room for the line of what is reached in distribution
            panel.axis.set_xlim(0, max(1.02 * float(rows["severity"].max()), 0.01))
            panel.axis.set_ylim(*style.value_limits(pd.concat([rows["return"], inside["return"]])))
        _legend(figure, shifted, lines, looks, bool(random_scores))
    table = pd.concat(numbers, ignore_index=True)
    notes = style.single_seeds(style.seed_counts(shifted))
    played = table.set_index(["task", "agent", "series"])[["episodes", "episodes_inside"]].stack()
    notes += style.unequal(played[played > 0])
    return style.Drawn(figure, table, _caption(shifted), notes)


def _panels(shifted: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    """(task, agent, shift) to the title of its panel."""
    tasks = style.panel_names(shifted)
    found = sorted(set(zip(shifted["task"], shifted["agent"], shifted["shift"], strict=True)))
    return {(task, agent, shift): f"{tasks[task, agent]}: {shift.replace('_', ' ')}" for task, agent, shift in found}


def _of(rows: pd.DataFrame, task: str, agent: str) -> pd.DataFrame:
    return rows[(rows["task"] == task) & (rows["agent"] == agent)]


def _line(axis: Axes, rows: pd.DataFrame, inside: pd.DataFrame, look: style.Look, dashes: tuple) -> pd.DataFrame:
    """One series: a seed counts once at each severity, as the mean of its episodes."""
    curves = [one.groupby("severity")["return"].mean() for _, one in rows.groupby("seed")]
    band = stats.band(*stats.align([(c.index.to_numpy(float), c.to_numpy(float)) for c in curves]))
    axis.plot(band.x, band.mean, color=look.colour, ls=dashes, marker=look.marker, zorder=4, clip_on=False)
    axis.fill_between(band.x, band.low, band.high, color=look.colour, alpha=0.18, lw=0, zorder=3)
    base = float(inside.groupby("seed")["return"].mean().mean()) if len(inside) else float("nan")
    axis.axhline(base, color=look.colour, lw=0.9, ls=(0, (1, 2)), zorder=2)
    table = {"severity": band.x, "mean": band.mean, "low": band.low, "high": band.high}
    counts = rows.groupby("severity").size().reindex(band.x).to_numpy()
    here = {"in_distribution": base, "seeds": len(curves), "episodes": counts, "episodes_inside": len(inside)}
    return pd.DataFrame({**table, **here})


def _legend(figure, rows: pd.DataFrame, lines: dict[str, tuple], looks: dict[str, style.Look], random: bool) -> None:
    entries = style.series_entries(rows, looks, lines=lines)
    entries.append(Line2D([], [], color=style.GREY, lw=0.9, ls=(0, (1, 2)), label="in distribution, same colour"))
    if random:
        entries.append(Line2D([], [], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), label="random actions"))
    style.legend(figure, entries)


def _caption(rows: pd.DataFrame) -> str:
    spread = style.spread(style.seed_counts(rows))
    band = f"Band: {spread}." if spread else "One seed: no interval."
    return f"Mean return over the severity of held-out shifts, all factors of a shift at once. {band}"
