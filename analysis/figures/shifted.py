"""Figure "latents_shifted": latents of the same states under their own looks and under shifts, on the same axes: UMAP
fitted on the former alone, and beside it UMAP and PCA of all. UMAP places unseen points on what it was fitted on,
wherever they lie, so that the first picture alone would hide a shift.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import latents as space
from analysis.figures import style

ROWS = {"UMAP, fitted on own looks": "umap_inside", "UMAP, fitted on all": "umap_joint", "PCA of all": "pca_joint"}
NEIGHBOURS = 15
ACROSS = 4  # runs side by side
INSIDE = "own looks"


@dataclass(frozen=True)
class Shifted:
    """Latents (N, L) of one run, and of the same steps under each shift."""

    name: str
    task: str
    inside: np.ndarray
    outside: Mapping[str, np.ndarray]


def draw(pairs: Sequence[Shifted], *, max_points: int = 2000, seed: int = 0) -> style.Drawn:
    """One column per run. Apartness is the share of the nearest neighbours in the full latent that are under the same
    looks, over all points of a column; chance is what it would be if looks left no trace.
    """
    shifts = sorted({shift for one in pairs for shift in one.outside})
    colours = {INSIDE: "#a0a0a0", **{shift: style.COLOURS[n % len(style.COLOURS)] for n, shift in enumerate(shifts)}}
    tables, numbers, notes = [], [], []
    bands, across = -(-len(pairs) // ACROSS), min(max(len(pairs), 3), ACROSS)
    with style.paper():
        figure = style.new_figure(style.PAGE, bands * len(ROWS) * ((style.PAGE - 0.4) / across + 0.2) + 0.5)
        grid = figure.subplots(bands * len(ROWS), across, squeeze=False)
        columns = grid.reshape(bands, len(ROWS), across).transpose(0, 2, 1).reshape(-1, len(ROWS))  # of one run each
        for axis in columns[len(pairs) :].ravel():
            axis.set_visible(False)
        for number, (column, one) in enumerate(zip(columns, pairs, strict=False)):
            points, looks = _chosen(one, max_points // (1 + len(one.outside)), seed)
            kinds = np.unique(looks, return_inverse=True)[1].astype(float)
            apart = space.reward_purity(points, kinds, None, NEIGHBOURS, bins=2 * (1 + len(one.outside)))
            places = _places(points, looks == INSIDE, seed)
            for axis, (title, name) in zip(column, ROWS.items(), strict=True):
                _scatter(axis, places[name], [colours[look] for look in looks])
                axis.set_ylabel("" if number % across else title)
            column[0].set_title(
                f"{textwrap.fill(one.name, 26)}\napartness {apart.value:.2f} (chance {apart.chance:.2f})"
            )
            flat = {f"{name}_{n + 1}": places[name][:, n] for name in ROWS.values() for n in (0, 1)}
            tables.append(pd.DataFrame({"task": one.task, "series": one.name, "looks": looks, **flat}))
            row = {"task": one.task, "series": one.name, "apartness": apart.value, "chance": apart.chance}
            numbers.append(row | {"points": len(points)})
            if len(points) < len(one.inside) * (1 + len(one.outside)):
                notes.append(f"{one.name}: {len(points)} latents, drawn at random")
        entries = [
            Line2D([], [], ls="", marker="o", ms=3, color=colour, label=name.replace("_", " "))
            for name, colour in colours.items()
        ]
        style.legend(figure, entries)
    return style.Drawn(figure, pd.concat(tables, ignore_index=True), _caption(), notes, pd.DataFrame(numbers))


def _chosen(one: Shifted, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, L) of the same steps under all looks, finite under each, and their looks (n,)."""
    clouds = {INSIDE: one.inside, **one.outside}
    finite = np.all([np.isfinite(points).all(axis=1) for points in clouds.values()], axis=0)
    use = np.flatnonzero(finite)
    use = use[space.thinned(len(use), each, seed)]
    points = np.concatenate([points[use].astype(float) for points in clouds.values()])
    return points, np.repeat(list(clouds), len(use))


def _places(points: np.ndarray, inside: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """(n, 2) in each picture."""
    found = {}
    for name, pair in (
        ("umap_inside", space.umap_pair(points[inside], points[~inside], seed=seed, neighbours=NEIGHBOURS)),
        ("umap_joint", space.umap_pair(points[inside], points[~inside], joint=True, seed=seed, neighbours=NEIGHBOURS)),
        ("pca_joint", space.pca_pair(points[inside], points[~inside], joint=True)),
    ):
        found[name] = np.empty((len(points), 2))
        found[name][inside], found[name][~inside] = pair.inside, pair.outside
    return found


def _scatter(axis: Axes, xy: np.ndarray, colours: list[str]) -> None:
    order = np.random.default_rng(0).permutation(len(xy))  # no look lies on top of all others
    axis.scatter(xy[order, 0], xy[order, 1], c=np.array(colours)[order], s=2.2, lw=0, alpha=0.8, rasterized=True)
    axis.set(xticks=[], yticks=[])
    axis.margins(0.05)


def _caption() -> str:
    return (
        "Encoded latents of the same states under their own looks (grey) and under shifts. UMAP places points that it "
        "was not fitted on among those that it was, so a fit on all stands beside. Apartness: share of the "
        f"{NEIGHBOURS} nearest neighbours in the full latent that are under the same looks."
    )
