"""Figure "latents_shifted": latents in distribution and under shifts, coloured by reward (or value, time, a state
variable), on the same axes: UMAP and PCA fitted on the former alone, and beside each a fit on all. UMAP places unseen
points on what it was fitted on, wherever they lie, so that the first picture alone would hide a shift.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from analysis import latents as space
from analysis.figures import style
from analysis.figures.latents import NEIGHBOURS, colour_scale

FITS = {
    "umap_inside": "UMAP, own looks",
    "umap_joint": "UMAP, all",
    "pca_inside": "PCA, own looks",
    "pca_joint": "PCA, all",
}
ACROSS = 8  # panels side by side; more runs go on below
LARGEST = 1.7  # inches of a panel
HEAD = 3  # lines above a run: its name on two, and its apartness
LETTERS = 19  # of a name in an inch
INSIDE = "own looks"


@dataclass(frozen=True)
class Look:
    """Latents (N, L) under one look, what each is coloured by (N,), and the number of its episode (N,)."""

    points: np.ndarray
    colour: np.ndarray
    episode: np.ndarray


@dataclass(frozen=True)
class Shifted:
    """Latents of one run under its own looks, `INSIDE`, and under shifts. Episodes of equal number belong together;
    where looks are `paired`, equal indices are one state.
    """

    name: str
    task: str
    looks: Mapping[str, Look]
    paired: bool = True


@dataclass(frozen=True)
class _Chosen:
    """The points (n, L) that are drawn of one run, their looks (n,) and what they are coloured by (n,); and how many
    there are.
    """

    one: Shifted
    points: np.ndarray
    looks: np.ndarray
    values: np.ndarray
    total: int


def draw(pairs: Sequence[Shifted], *, max_points: int = 2000, seed: int = 0, colour: str = "reward") -> style.Drawn:
    """For each run a column for its own looks and one for each shift; grey are the points of the others.

    Apartness is the share of the nearest neighbours in the full latent, among all points in other episodes, that are
    under the same looks; chance is what it would be if looks left no trace.
    """
    tables, numbers, notes = [], [], []
    by_task = {one.task: [other for other in pairs if other.task == one.task] for one in pairs}
    widest = max(len(one.looks) for one in pairs)
    most, fit = max(map(len, by_task.values())), max(1, ACROSS // widest)
    across = -(-most // -(-most // fit))  # runs side by side: lines about equally long
    grids = {task: [mine[n : n + across] for n in range(0, len(mine), across)] for task, mine in by_task.items()}
    side = min(LARGEST, (style.PAGE - 1.1) / (across * widest))
    heights = [len(lines) * (len(FITS) * (side + 0.08) + 0.5) + 0.2 for lines in grids.values()]
    with style.paper():
        figure = style.new_figure(style.PAGE, sum(heights))
        parts = figure.subfigures(len(grids), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, (task, lines) in zip(parts, grids.items(), strict=True):
            axes = part.subplots(len(lines) * len(FITS), across * widest, squeeze=False)
            for axis in axes.ravel():
                axis.set(xticks=[], yticks=[], visible=False)
            chosen = [[_chosen(one, max_points // len(one.looks), seed) for one in line] for line in lines]
            scale = colour_scale(np.concatenate([drawn.values for line in chosen for drawn in line]))
            for n, line in enumerate(chosen):
                for k, drawn in enumerate(line):
                    block = axes[n * len(FITS) : (n + 1) * len(FITS), k * widest : (k + 1) * widest]
                    places = _places(drawn, seed)
                    apart = _apartness(drawn.one)
                    _draw_block(block, drawn, places, apart, scale, named=k == 0, letters=int(LETTERS * side * widest))
                    tables.append(_points_table(drawn, places, colour))
                    row = {"task": task, "series": drawn.one.name, "apartness": apart.value, "chance": apart.chance}
                    numbers.append(row | {"points": drawn.total})
                    if len(drawn.points) < drawn.total:
                        notes.append(f"{drawn.one.name}: {len(drawn.points)} of {drawn.total} latents, drawn at random")
            if len(grids) > 1:
                part.suptitle(task.rpartition("/")[2], size=7.5)
            part.colorbar(scale, ax=axes.ravel().tolist(), pad=0.015, aspect=30 * len(lines), label=colour)
    return style.Drawn(
        figure, pd.concat(tables, ignore_index=True), _caption(pairs, colour), notes, pd.DataFrame(numbers)
    )


def _finite(one: Shifted) -> dict[str, np.ndarray]:
    """Indices of the finite points under each look, of paired ones the same under all."""
    finite = {name: np.isfinite(look.points).all(axis=1) for name, look in one.looks.items()}
    if one.paired:
        finite = dict.fromkeys(finite, np.all(list(finite.values()), axis=0))
    return {name: np.flatnonzero(good) for name, good in finite.items()}


def _chosen(one: Shifted, each: int, seed: int) -> _Chosen:
    finite = _finite(one)
    use = {name: index[space.thinned(len(index), each, seed)] for name, index in finite.items()}
    points = np.concatenate([one.looks[name].points[index].astype(float) for name, index in use.items()])
    values = np.concatenate([one.looks[name].colour[index] for name, index in use.items()])
    looks = np.repeat(list(use), [len(index) for index in use.values()])
    return _Chosen(one, points, looks, values, sum(map(len, finite.values())))


def _apartness(one: Shifted) -> space.Purity:
    use = _finite(one)
    points = np.concatenate([one.looks[name].points[index] for name, index in use.items()])
    episode = np.concatenate([one.looks[name].episode[index] for name, index in use.items()])
    kinds = np.repeat(np.arange(len(use), dtype=float), [len(index) for index in use.values()])
    return space.reward_purity(points, kinds, episode, NEIGHBOURS, bins=2 * len(use))


def _places(drawn: _Chosen, seed: int) -> dict[str, np.ndarray]:
    """(n, 2) in each of `FITS`."""
    inside, found = drawn.looks == INSIDE, {}
    own, others = drawn.points[inside], drawn.points[~inside]
    for name in FITS:
        joint = name.endswith("joint")
        if name.startswith("umap"):
            pair = space.umap_pair(own, others, joint=joint, seed=seed, neighbours=NEIGHBOURS)
        else:
            pair = space.pca_pair(own, others, joint=joint)
        found[name] = np.empty((len(drawn.points), 2))
        found[name][inside], found[name][~inside] = pair.inside, pair.outside
    return found


def _draw_block(
    axes: np.ndarray,
    drawn: _Chosen,
    places: dict[str, np.ndarray],
    apart: space.Purity,
    scale: ScalarMappable,
    *,
    named: bool,
    letters: int,
) -> None:
    """The panels (fits, looks) of one run, whose name has room for so many letters; with `named` the fits stand at the
    left.
    """
    looks = list(drawn.one.looks)
    for row, (name, title) in zip(axes, FITS.items(), strict=True):
        for axis, look in zip(row, looks, strict=False):
            _scatter(axis, places[name], drawn.looks == look, scale.to_rgba(drawn.values))
        row[0].set_ylabel(title if named else "")
    for axis, look in zip(axes[0], looks, strict=False):
        axis.set_title("\n" * HEAD + _words(look), loc="left", size=6.5)
    called = textwrap.wrap(drawn.one.name, letters, max_lines=HEAD - 1, placeholder="…")
    head = "\n".join([*called, f"apartness {apart.value:.2f} (chance {apart.chance:.2f})"])
    above = axes[0, 0].annotate(head, (0, 1), (0, 13), "axes fraction", "offset points", size=6.5, va="bottom")
    above.set_in_layout(False)  # it lies over all panels of the run; titles leave its lines free


def _scatter(axis: Axes, xy: np.ndarray, mine: np.ndarray, colours: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(np.flatnonzero(mine))  # no episode lies on top of all others
    axis.scatter(xy[~mine, 0], xy[~mine, 1], c="#cfcfcf", s=1.2, lw=0, rasterized=True)
    axis.scatter(xy[order, 0], xy[order, 1], c=colours[order], s=1.8, lw=0, alpha=0.8, rasterized=True)
    axis.margins(0.05)
    axis.set_visible(True)


def _words(look: str) -> str:
    return look.replace("_", " ")


def _points_table(drawn: _Chosen, places: dict[str, np.ndarray], colour: str) -> pd.DataFrame:
    flat = {f"{name}_{n + 1}": places[name][:, n] for name in FITS for n in (0, 1)}
    names = {"task": drawn.one.task, "series": drawn.one.name, "looks": drawn.looks}
    return pd.DataFrame({**names, colour: drawn.values, **flat})


def _caption(pairs: Sequence[Shifted], colour: str) -> str:
    states = (
        "the same states under their own looks and under shifts"
        if all(one.paired for one in pairs)
        else "states that the agent came to under the looks of training and, from the same first states, under shifts "
        "(so that they are apart in looks and in where it went)"
    )
    return (
        f"Encoded latents of {states}, coloured by {colour}; grey: the others. UMAP places points that it was not "
        "fitted on among those that it was, so a fit on all stands below each fit on own looks. Apartness: share of "
        f"the {NEIGHBOURS} nearest neighbours in the full latent, of other episodes, that are under the same looks."
    )
