"""Figure "latents": UMAP of latents coloured by reward (or value, time, a state variable), PCA with it, with numbers
from the full latent in the picture; of each task a grid, its rows agents and its columns encoders.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from analysis import latents as space
from analysis.figures import style
from analysis.records import Latents

COLOUR_MAP = "viridis"  # even in lightness, safe for colour-blind readers and in grey print
NEIGHBOURS = 15
ACROSS = 5  # encoders side by side; more go on below


@dataclass(frozen=True)
class Cloud:
    """Latents of one run: points (N, L), the reward that arrived with each (N,), and the episode of each (N,).

    Clouds of one `task` share a colour scale, of the reward or of what else each point has for a `colour` (N,). A cloud
    stands in the row of its `agent` and the column of its `series` (default: the name).
    """

    name: str
    task: str
    points: np.ndarray
    reward: np.ndarray
    episode: np.ndarray
    colour: np.ndarray | None = None
    agent: str = ""
    series: str = ""

    @property
    def column(self) -> str:
        return self.series or self.name

    @property
    def shown(self) -> np.ndarray:
        """What points are coloured by (N,)."""
        return self.reward if self.colour is None else self.colour


def cloud(
    name: str,
    task: str,
    latents: Latents,
    states: np.ndarray | None = None,
    colour: np.ndarray | None = None,
    *,
    agent: str = "",
    series: str = "",
) -> Cloud:
    """All valid steps that carry a reward (an episode's first has none), as their posterior latents or as `states`
    (E, T, W), coloured by reward or by `colour` (E, T).
    """
    use = latents.valid.copy()
    use[:, 0] = False
    episode = np.broadcast_to(np.arange(len(use))[:, None], use.shape)
    points = latents.posterior if states is None else states
    shown = None if colour is None else colour[use]
    return Cloud(name, task, points[use], latents.reward_true[use], episode[use], shown, agent, series)


def draw(clouds: Sequence[Cloud], *, max_points: int = 2000, seed: int = 0, colour: str = "reward") -> style.Drawn:
    """UMAP and PCA of every cloud, with their trustworthiness and the reward purity of the full latent.

    `colour` names what points are coloured by; colours run from its 1st to its 99th percentile in the task. Purity is
    of all points, not only of those drawn.
    """
    rows, notes, table = [], [], []
    by_task = {one.task: [other for other in clouds if other.task == one.task] for one in clouds}
    grids = {task: _grid(mine) for task, mine in by_task.items()}
    across = max(len(line) for lines in grids.values() for line in lines)  # of all tasks, so that panels are alike
    heights = [len(lines) * _height(across) for lines in grids.values()]
    with style.paper():
        figure = style.new_figure(style.PAGE, sum(heights))
        parts = figure.subfigures(len(grids), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, (task, lines) in zip(parts, grids.items(), strict=True):
            pairs = _pairs(part, len(lines), across)
            chosen = {one.name: space.select(one.points, one.reward, max_points, seed) for one in by_task[task]}
            colours = colour_scale(np.concatenate([one.shown[chosen[one.name].index] for one in by_task[task]]))
            for (line, column), (upper, lower) in pairs.items():
                one = lines[line][column] if column < len(lines[line]) else None
                if one is None:
                    for axis in (upper, lower):
                        axis.set(xticks=[], yticks=[], visible=False)
                    continue
                picked = chosen[one.name]
                numbers = _measure(one, picked.index, seed)
                shown = colours.to_rgba(one.shown[picked.index])
                _panels(upper, lower, one.name, shown, numbers, 115 // max(across, 3))
                rows.append(_points_table(one, picked.index, numbers, colour))
                table.append(_described(one, numbers))
                notes += _notes(one.name, picked, numbers)
            if len(grids) > 1:
                part.suptitle(task.rpartition("/")[2], size=7.5)
            axes = [axis for pair in pairs.values() for axis in pair]
            part.colorbar(colours, ax=axes, pad=0.015, aspect=25 * len(lines), label=colour)
    return style.Drawn(figure, pd.concat(rows, ignore_index=True), _caption(colour), notes, pd.DataFrame(table))


def _grid(clouds: Sequence[Cloud]) -> list[list[Cloud | None]]:
    """Clouds of one task in lines, one for each agent, of the same encoders: at most `ACROSS`, as many in each as can
    be. None where there is no such cloud.
    """
    places = {(one.agent, one.column): one for one in clouds}
    columns, agents = sorted({one.column for one in clouds}), sorted({one.agent for one in clouds})
    across = math.ceil(len(columns) / math.ceil(len(columns) / ACROSS))
    parts = [columns[n : n + across] for n in range(0, len(columns), across)]
    lines = [[places.get((agent, column)) for column in part] for part in parts for agent in agents]
    return [line for line in lines if any(line)]


def _pairs(part: Any, lines: int, across: int) -> dict[tuple[int, int], tuple[Axes, Axes]]:
    """Line and column of the grid to the panels of UMAP and PCA: the latter below, or beside where there is room."""
    if across == 1:
        return {(line, 0): (upper, lower) for line, (upper, lower) in enumerate(part.subplots(lines, 2, squeeze=False))}
    axes = part.subplots(2 * lines, across, squeeze=False)
    return {(n, k): (axes[2 * n, k], axes[2 * n + 1, k]) for n in range(lines) for k in range(across)}


def _height(across: int) -> float:
    """Inches of a line of the grid: about square panels, two rows of them where encoders stand side by side."""
    return 2.8 if across == 1 else 2 * ((style.PAGE - 0.8) / max(across, 3) + 0.3)


def _panels(upper: Axes, lower: Axes, name: str, colours: np.ndarray, numbers: dict, letters: int) -> None:
    """Both panels of a cloud; a line of their titles has room for so many letters."""
    if numbers["constant"]:
        for axis, text in ((upper, "constant latents"), (lower, "")):
            axis.set(xticks=[], yticks=[])
            axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)
        _title(upper, letters, name)
        return
    share = 100 * numbers["pca_variance"]
    _scatter(upper, numbers["umap"], colours)
    _scatter(lower, numbers["pca"], colours)
    upper.set(xlabel="UMAP 1", ylabel="UMAP 2")
    lower.set(xlabel=f"PC 1 ({share[0]:.0f} %)", ylabel=f"PC 2 ({share[1]:.0f} %)")
    _title(upper, letters, name, _purity_text(numbers["purity"]), _projection_text("UMAP", numbers["trust_umap"]))
    _title(lower, letters, _projection_text("PCA", numbers["trust_pca"]))


def _title(axis: Axes, letters: int, *lines: str) -> None:
    parts = [part for line in lines for part in ([line] if len(line) <= letters else line.split(" · "))]
    axis.set_title("\n".join(textwrap.fill(part, letters) for part in parts), size=6.5)


def _projection_text(method: str, trust: float) -> str:
    return f"{method}, trustworthiness {trust:.2f}"


def _purity_text(purity: space.Purity) -> str:
    if np.isnan(purity.value):
        return "constant reward"
    return f"reward purity {purity.value:.2f} (chance {purity.chance:.2f})"


def _measure(one: Cloud, index: np.ndarray, seed: int) -> dict:
    points = one.points[index].astype(float)
    if space.is_constant(points):  # UMAP would blow rounding errors up to a round cloud
        nowhere, unknown = np.full((len(points), 2), np.nan), space.Purity(np.nan, np.nan, 1)
        return {
            "constant": True,
            **dict.fromkeys(("umap", "pca"), nowhere),
            **dict.fromkeys(("trust_umap", "trust_pca"), np.nan),
            **dict.fromkeys(("purity", "purity_other_episodes"), unknown),
        }
    found = space.describe(one.points, one.reward, one.episode, neighbours=NEIGHBOURS, seed=seed)
    embedding = space.umap(points, seed, NEIGHBOURS)
    scores, share = space.pca(points)
    if scores.shape[1] == 1:
        scores, share = np.hstack([scores, np.zeros_like(scores)]), np.append(share, 0.0)
    return {
        "constant": False,
        "umap": embedding,
        "pca": scores,
        "pca_variance": share,
        "trust_umap": space.trustworthiness(points, embedding, NEIGHBOURS),
        "trust_pca": space.trustworthiness(points, scores, NEIGHBOURS),
        "purity": found.purity,
        "purity_other_episodes": found.purity_other_episodes,
        "described": found,
    }


def _scatter(axis: Axes, xy: np.ndarray, colours: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(xy))  # no episode lies on top of all others
    axis.scatter(xy[order, 0], xy[order, 1], c=colours[order], s=2.2, lw=0, alpha=0.8, rasterized=True)
    axis.set(xticks=[], yticks=[])
    axis.margins(0.05)


def colour_scale(shown: np.ndarray) -> ScalarMappable:
    """From the 1st to the 99th percentile of what points are coloured by."""
    low, high = np.nanquantile(shown, [0.01, 0.99])
    return ScalarMappable(Normalize(low, high if high > low else low + 1), COLOUR_MAP)


def _described(one: Cloud, row: dict) -> dict[str, object]:
    """The numbers of a cloud: of its projections those of the points drawn, otherwise of all points."""
    names = {"task": one.task, "series": one.name}
    trust = {"trustworthiness_umap": row["trust_umap"], "trustworthiness_pca": row["trust_pca"]}
    if row["constant"]:
        return names | trust
    found = row["described"]
    return names | trust | {
        "purity": found.purity.value,
        "purity_chance": found.purity.chance,
        "purity_other_episodes": found.purity_other_episodes.value,
        "silhouette": found.silhouette,
        "effective_rank": found.effective_rank,
        "rankme": found.rankme,
        "points": found.points,
    }  # fmt: skip


def _points_table(one: Cloud, index: np.ndarray, row: dict, colour: str) -> pd.DataFrame:
    """The points, and the numbers of the cloud repeated in every row."""
    return pd.DataFrame(
        {
            "series": one.name,
            "task": one.task,
            "episode": one.episode[index],
            "reward": one.reward[index],
            colour: one.shown[index],
            "umap_1": row["umap"][:, 0],
            "umap_2": row["umap"][:, 1],
            "pc_1": row["pca"][:, 0],
            "pc_2": row["pca"][:, 1],
            "trustworthiness_umap": row["trust_umap"],
            "trustworthiness_pca": row["trust_pca"],
            "purity": row["purity"].value,
            "purity_chance": row["purity"].chance,
            "purity_other_episodes": row["purity_other_episodes"].value,
        }
    )


def _caption(colour: str) -> str:
    return (
        f"Encoded latents of recorded episodes, coloured by {colour}; rows: agents, columns: encoders, one scale of "
        "colours for a task. UMAP, and principal components with their share of variance. "
        f"Trustworthiness: of {NEIGHBOURS} neighbours. "
        f"Reward purity: share of the {NEIGHBOURS} "
        "nearest neighbours in the full latent whose reward is in the same fifth of all rewards."
    )


def _notes(name: str, chosen: space.Selection, numbers: dict) -> list[str]:
    notes = []
    if chosen.dropped:
        notes.append(f"{name}: {chosen.dropped} of {chosen.total} latents are not finite and are left out")
    if len(chosen.index) < chosen.total - chosen.dropped:
        notes.append(f"{name}: {len(chosen.index)} of {chosen.total - chosen.dropped} latents, drawn at random")
    if numbers["constant"]:
        notes.append(f"{name}: the latents are constant, so there is no picture of them")
    elif np.isnan(numbers["purity"].value):
        notes.append(f"{name}: the reward is constant, so there is no purity")
    return notes
