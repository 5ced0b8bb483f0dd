"""The latent explorer: points of recorded runs in UMAP and PCA, each with its frame, rewards, value, episode and time.

How many points a run gets follows from the bytes that their frames take: pages are sent by mail.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import latents as space
from analysis.records import Record, has_frames, read_frames, read_latents, read_states
from analysis.runs import Run

POINT_BYTES = 90  # of a point's numbers in the page
LEAST_BYTES = 250_000  # of one run: some hundred points, below which a picture of a latent space says little
QUALITY = 72  # of WebP
RECORD = "mbrl-pvr record {run}"


@dataclass(frozen=True)
class Cloud:
    """What the page holds of one run; `points` is JSON, {name: list} with `frames` as base64 of WebP or null."""

    name: str
    points: dict[str, Any]
    notes: list[str]


def clouds(
    runs: Sequence[Run], names: Mapping[tuple[str, str], str], room: int, *, most: int, seed: int = 0
) -> tuple[list[Cloud], list[str]]:
    """Clouds of recorded runs that take at most `room` bytes together, and notes on what is left out.

    `names`: what a run is called, by its id and bank. Every run gets an equal share; where that were less than
    `LEAST_BYTES`, first seeds come first.
    """
    recorded = sorted((run for run in runs if run.latents_kind), key=lambda run: run.seed)
    fitting = recorded[: max(0, room) // LEAST_BYTES]
    notes = []
    if left_out := [names[run.id, run.bank] for run in recorded[len(fitting) :]]:
        what = f"{len(fitting)} of {len(recorded)} recorded runs fit into this page; left out: {', '.join(left_out)}"
        notes.append(f"{what}. Give fewer runs to see them")
    share = room // max(1, len(fitting))
    return [_cloud(run, run.record, names[run.id, run.bank], share, most, seed) for run in fitting if run.record], notes


def _cloud(run: Run, record: Record, name: str, room: int, most: int, seed: int) -> Cloud:
    """Points at random among the steps that carry a reward, as many as fit."""
    recorded = read_latents(record.path)
    use = recorded.valid.copy()
    use[:, 0] = False  # an episode's first step has no reward
    episode, step = np.nonzero(use)
    states = read_states(record.path, record.kind)[use]  # (N, W)
    reward = recorded.reward_true[use]
    chosen = space.select(states, reward, most, seed)
    index, total, notes = chosen.index, chosen.total - chosen.dropped, []
    frames = None
    if has_frames(record.path):
        encoded = [_webp(picture) for picture in read_frames(record.path, episode[index], step[index])]
        kept = _fitting([len(one) + POINT_BYTES for one in encoded], room, seed)
        index, frames = index[kept], [encoded[n] for n in kept]
    else:
        index = index[_fitting([POINT_BYTES] * len(index), room, seed)]
        again = RECORD.format(run=run.path) + " --bank BANK" * bool(run.bank)
        notes.append(f"no frames were recorded; record it again: {again}")
    if chosen.dropped:
        notes.append(f"{chosen.dropped} of {chosen.total} latents are not finite and are left out")
    if len(index) < total:
        why = " of as many as their frames leave room for" if len(index) < min(most, total) else ""
        notes.append(f"{len(index):,} of {total:,} steps, drawn at random{why}")
    points = {
        **_projections(states[index], seed, notes),
        "reward": _numbers(reward[index]),
        "predicted": _numbers(recorded.reward_pred[use][index]),
        "value": _numbers(recorded.value[use][index]),
        "episode": episode[index].tolist(),
        "time": step[index].tolist(),
        "frames": frames,
    }
    return Cloud(name, points, notes)


def _projections(points: np.ndarray, seed: int, notes: list[str]) -> dict[str, Any]:
    """UMAP and PCA of points (N, L), and the percentage of variance of the two components; null where there is none."""
    if space.is_constant(points):
        notes.append("the latents are constant, so there is no picture of them")
        return {"umap": None, "pca": None, "share": None}
    scores, share = space.pca(points)
    if scores.shape[1] == 1:
        scores, share = np.hstack([scores, np.zeros_like(scores)]), np.append(share, 0.0)
    flat = {"umap": space.umap(points, seed), "pca": scores}
    axes = {name: [_numbers(column) for column in both.T] for name, both in flat.items()}
    return {**axes, "share": _numbers(100 * share, 3)}


def _fitting(sizes: Sequence[int], room: int, seed: int) -> np.ndarray:
    """Indices, rising, of as many of these as fit into `room`, taken at random."""
    order = np.random.default_rng(seed).permutation(len(sizes))
    return np.sort(order[np.cumsum(np.asarray(sizes)[order]) <= room])


def _webp(picture: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(file.getvalue()).decode()


def _numbers(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Numbers for JSON, rounded to so many significant digits; None for what is not finite."""
    return list(_rounded(values, digits))


def _rounded(values: np.ndarray, digits: int) -> Iterator[float | None]:
    for value in np.asarray(values, dtype=float):
        yield float(f"{value:.{digits}g}") if np.isfinite(value) else None
