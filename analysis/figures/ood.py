"""Figure "ood": return in distribution against out of distribution, per encoder and shift."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import stats
from analysis.figures import style

COLUMNS = ("task", "encoder", "seed", "split", "shift", "severity", "return")
IN = "in distribution"
MARKERS = tuple("Ds^vPX<>ph*d8H")  # of the shifts; the disc is in distribution


def draw(episodes: pd.DataFrame, random_scores: Mapping[str, float] | None = None) -> style.Drawn:
    """Mean return of every encoder in distribution (disc) and under each shift (hollow), with intervals over seeds.

    `episodes`: one row per episode with `COLUMNS`; shift "none" at severity 0 is in distribution. Optional `series`,
    `agent`. `random_scores`: task to the return of random actions.
    """
    episodes = style.prepare(episodes, COLUMNS)
    episodes = episodes.assign(condition=condition_names(episodes))
    titles = style.panel_names(episodes)
    conditions = sorted(episodes["condition"].unique(), key=lambda name: (name != IN, name))
    numbers = summarise(episodes)
    names, looks = list(style.series_of(episodes)["series"]), style.looks(episodes["encoder"])
    with style.paper():
        height = 0.5 + len(names) * (0.1 + 0.11 * len(conditions))
        figure, grid = style.panels(len(titles), height)
        counts = style.seed_counts(episodes)
        for panel, ((task, agent), title) in zip(grid, titles.items(), strict=True):
            axis = panel.axis
            mine = (numbers["task"] == task) & (numbers["agent"] == agent)
            rows = episodes[(episodes["task"] == task) & (episodes["agent"] == agent)]
            _panel(axis, numbers[mine], rows, names, conditions, looks)
            if random_scores and task in random_scores:
                axis.axvline(random_scores[task], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), zorder=1)
            axis.set(xlabel="episode return" if panel.bottom else "", title=title)
            axis.set_yticks(
                range(len(names)),
                [style.with_seeds(n, counts[n]) for n in names] if panel.left else [""] * len(names),
            )
        _legend(figure, conditions, bool(random_scores), numbers)
    notes = style.single_seeds(numbers.groupby(["series", "task", "agent"])["seeds"].min())
    notes += style.unequal(numbers.set_index(["task", "agent", "series"])["episodes"])
    return style.Drawn(figure, numbers.drop(columns="encoder"), _caption(numbers), notes)


def condition_names(episodes: pd.DataFrame) -> pd.Series:
    """What the episodes of a row were drawn from, in words."""

    def name(split: str, shift: str, severity: float) -> str:
        if shift == "none" and severity == 0:
            return IN
        part, _, alone = split.partition(":")
        where = f"{alone} held out".strip() if part == "held_out" else "training part"
        return f"{shift.replace('_', ' ')} {severity:g} ({where.replace('_', ' ')})"

    triples = list(zip(episodes["split"], episodes["shift"], episodes["severity"], strict=True))
    names = {triple: name(*triple) for triple in dict.fromkeys(triples)}
    return pd.Series([names[triple] for triple in triples], index=episodes.index, dtype=object)


def summarise(episodes: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval per task, agent, series and condition; a seed counts once, as the mean of its episodes.

    `retained`: the mean as a share of the same series' mean in distribution, over the episodes (by `seed` and
    `episode`, where they are numbered) that both have: equal numbers begin in the same state.
    """
    keys = ["task", "agent", "series", "encoder", "condition"]
    places, of_seeds = episodes.groupby(keys, sort=True).indices, _of_seeds(episodes, keys)
    rows = []
    for key, place in places.items():
        interval, inside, retained = stats.bootstrap(of_seeds[key], stats.mean), (*key[:-1], IN), np.nan
        if inside in places:
            above, below = of_seeds[key], of_seeds[inside]
            if "episode" in episodes and len(place) != len(places[inside]):
                mine, plain = episodes.iloc[place], episodes.iloc[places[inside]]
                sides = (_shared(mine, plain), _shared(plain, mine))
                above, below = (one.groupby("seed")["return"].mean().to_numpy() for one in sides)
            retained = above.mean() / below.mean() if len(above) and below.mean() else np.nan
        rows.append((*key, interval.point, interval.low, interval.high, interval.runs, len(place), retained))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "seeds", "episodes", "retained"])


def _of_seeds(episodes: pd.DataFrame, keys: list[str]) -> dict[tuple[str, ...], np.ndarray]:
    """Mean return (n,) of each seed, by group."""
    means = episodes.groupby([*keys, "seed"], sort=True)["return"].mean()
    return {key: means.to_numpy()[place] for key, place in means.groupby(keys).indices.items()}


def _shared(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """The episodes that the others have too."""
    keys = ["seed", "episode"]
    return rows[pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(others[keys]))]


def _panel(
    axis: Axes,
    numbers: pd.DataFrame,
    episodes: pd.DataFrame,
    names: list[str],
    conditions: list[str],
    looks: dict[str, style.Look],
) -> None:
    step = 0.72 / max(len(conditions), 1)
    for row in numbers.itertuples():
        place = conditions.index(row.condition)
        y = names.index(row.series) + (place - (len(conditions) - 1) / 2) * step
        colour = looks[row.encoder].colour
        mine = episodes[(episodes["series"] == row.series) & (episodes["condition"] == row.condition)]
        points = mine["return"] if row.seeds == 1 else mine.groupby("seed")["return"].mean()
        axis.plot(points, np.full(len(points), y), "|", color=colour, alpha=0.35, ms=4, mew=0.7, zorder=2)
        axis.plot([row.low, row.high], [y, y], color=colour, lw=1.4, solid_capstyle="butt", zorder=3)
        fill = colour if row.condition == IN else "white"
        marker = "o" if row.condition == IN else MARKERS[(place - 1) % len(MARKERS)]
        axis.plot(row.mean, y, marker, color=colour, mfc=fill, ms=4.5, mew=1.1, zorder=4, clip_on=False)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(*style.value_limits(episodes["return"]))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _legend(figure, conditions: list[str], random: bool, numbers: pd.DataFrame) -> None:
    entries = []
    for place, name in enumerate(conditions):
        marker, fill = ("o", style.GREY) if name == IN else (MARKERS[(place - 1) % len(MARKERS)], "white")
        entries.append(Line2D([], [], color=style.GREY, ls="", marker=marker, mfc=fill, ms=4.5, mew=1.1, label=name))
    small = "one episode" if numbers["seeds"].max() == 1 else "one seed"
    if numbers["seeds"].max() > 1 == numbers["seeds"].min():
        small = "one seed, or one episode of a single seed"
    entries.append(Line2D([], [], color=style.GREY, ls="", marker="|", ms=4, mew=0.7, alpha=0.6, label=small))
    if random:
        entries.append(Line2D([], [], color=style.GREY, lw=0.8, ls=(0, (1, 1.5)), label="random actions"))
    style.legend(figure, entries)


def _caption(numbers: pd.DataFrame) -> str:
    spread = style.spread(numbers["seeds"])
    bars = f"Bars: {spread}; ticks are seeds." if spread else "One seed: no interval; ticks are single episodes."
    uneven = bool(numbers.groupby(["task", "agent", "series"])["episodes"].nunique().max() > 1)
    warning = " Conditions were played in unequal numbers of episodes, from other starts: see `retained` of the CSV."
    return f"Mean return in and out of distribution. {bars}" + warning * uneven
