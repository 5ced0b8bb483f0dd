"""Figure "latents": UMAP of latents coloured by reward, PCA beside it, with numbers from the full latent in the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis import latents as space
from analysis.figures import style
from analysis.runs import Latents

COLOUR_MAP = "viridis"  # even in lightness, safe for colour-blind readers and in grey print
NEIGHBOURS = 15


@dataclass(frozen=True)
class Cloud:
    """Latents of one run: points (N, L), the reward that arrived with each (N,), and the episode of each (N,)."""

    name: str
    points: np.ndarray
    reward: np.ndarray
    episode: np.ndarray


def cloud(name: str, latents: Latents) -> Cloud:
    """All valid posterior latents that carry a reward: an episode's first step has none."""
    use = latents.valid.copy()
    use[:, 0] = False
    episode = np.broadcast_to(np.arange(len(use))[:, None], use.shape)
    return Cloud(name, latents.posterior[use], latents.reward_true[use], episode[use])


def draw(clouds: Sequence[Cloud], *, max_points: int = 2000, seed: int = 0) -> style.Drawn:
    """One row per cloud: UMAP and PCA. T: trustworthiness of the picture; P: purity of neighbourhoods by reward in the full
    latent, in brackets what chance gives. Each cloud has its own colour scale, from the 1st to the 99th percentile of its reward.
    """
    rows, notes = [], []
    with style.paper():
        figure = Figure(figsize=_size(len(clouds)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
        grid = _grid(figure, len(clouds))
        for one, (left, right) in zip(clouds, grid, strict=True):
            chosen = space.select(one.points, one.reward, max_points, seed)
            points, reward = one.points[chosen.index].astype(float), one.reward[chosen.index].astype(float)
            row = _measure(one, points, reward, one.episode[chosen.index], seed)
            _scatter(left, row["umap"], reward, f"T = {row['trust_umap']:.2f}")
            _scatter(right, row["pca"], reward, f"T = {row['trust_pca']:.2f}")
            left.set(xlabel="UMAP 1", ylabel="UMAP 2", title=one.name)
            share = 100 * row["pca_variance"]
            right.set(xlabel=f"PC 1 ({share[0]:.0f} %)", ylabel=f"PC 2 ({share[1]:.0f} %)", title=_purity_text(row["purity"]))
            figure.colorbar(_colours(reward), ax=right, pad=0.02, aspect=18, label="reward", extend="neither")
            rows.append(_points_table(one.name, one.episode[chosen.index], reward, row))
            notes += _notes(one.name, chosen, row["purity"])
    return style.Drawn(figure, pd.concat(rows, ignore_index=True), _caption(), notes)


def _size(count: int) -> tuple[float, float]:
    return (style.PAGE, 2.35 * (count if count < 3 else -(-count // 2)) * (1.0 if count < 3 else 0.72))


def _grid(figure: Figure, count: int) -> list[tuple[Axes, Axes]]:
    across = 1 if count < 3 else 2
    axes = figure.subplots(-(-count // across), 2 * across, squeeze=False).reshape(-1, 2)
    for unused in axes[count:].ravel():
        unused.remove()
    return [(left, right) for left, right in axes[:count]]


def _measure(one: Cloud, points: np.ndarray, reward: np.ndarray, episode: np.ndarray, seed: int) -> dict:
    embedding = space.umap(points, seed, NEIGHBOURS)
    scores, share = space.pca(points)
    if scores.shape[1] == 1:
        scores, share = np.hstack([scores, np.zeros_like(scores)]), np.append(share, 0.0)
    return {
        "umap": embedding,
        "pca": scores,
        "pca_variance": share,
        "trust_umap": space.trustworthiness(points, embedding, NEIGHBOURS),
        "trust_pca": space.trustworthiness(points, scores, NEIGHBOURS),
        "purity": space.reward_purity(points, reward, neighbours=NEIGHBOURS),
        "purity_other_episodes": space.reward_purity(points, reward, episode, NEIGHBOURS),
    }


def _scatter(axis: Axes, xy: np.ndarray, reward: np.ndarray, text: str) -> None:
    colours = _colours(reward).to_rgba(reward)
    axis.scatter(xy[:, 0], xy[:, 1], c=colours, s=2.2, lw=0, alpha=0.8, rasterized=True)
    axis.set(xticks=[], yticks=[])
    axis.margins(0.06)
    axis.text(0.98, 0.98, text, transform=axis.transAxes, ha="right", va="top", fontsize=6.5, bbox=_BEHIND)


_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.2}


def _colours(reward: np.ndarray) -> ScalarMappable:
    low, high = np.quantile(reward, [0.01, 0.99])
    return ScalarMappable(Normalize(low, high if high > low else low + 1), COLOUR_MAP)


def _purity_text(purity: space.Purity) -> str:
    if np.isnan(purity.value):
        return "P: none, the reward is constant"
    return f"P = {purity.value:.2f} (chance {purity.chance:.2f})"


def _points_table(name: str, episode: np.ndarray, reward: np.ndarray, row: dict) -> pd.DataFrame:
    """The points, and the numbers of the cloud repeated in every row."""
    return pd.DataFrame(
        {
            "series": name,
            "episode": episode,
            "reward": reward,
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


def _caption() -> str:
    return (
        "Encoded latents of recorded episodes, coloured by reward: UMAP (left) and principal components with their share of variance "
        f"(right). T: trustworthiness of the projection, {NEIGHBOURS} neighbours. P: share of the {NEIGHBOURS} nearest neighbours in "
        "the full latent whose reward is in the same fifth of all rewards, and what chance would give."
    )


def _notes(name: str, chosen: space.Selection, purity: space.Purity) -> list[str]:
    notes = []
    if chosen.dropped:
        notes.append(f"{name}: {chosen.dropped} of {chosen.total} latents are not finite and are left out")
    if len(chosen.index) < chosen.total - chosen.dropped:
        notes.append(f"{name}: {len(chosen.index)} of {chosen.total - chosen.dropped} latents, drawn at random")
    if np.isnan(purity.value):
        notes.append(f"{name}: the reward is constant, so there is no purity")
    return notes
