"""The open-loop video of an agent that draws pixels: one column an episode; rows truth, model and difference.

Frames that the model was given have a green border, those that it predicts an orange one. In the last row grey is no
difference, lighter is too bright a prediction and darker too dark a one. A column goes dark where its episode is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COLUMNS = 4  # episodes, at most
MAX_BYTES = 128 * 2**20  # of all frames together: fewer columns where episodes are long or frames large
BORDER = 2  # pixels around every picture
GIVEN, PREDICTED, OVER = (0, 158, 115), (213, 94, 0), (40, 40, 40)


@dataclass(frozen=True)
class Film:
    """One episode as it was and as the model draws it, both (T, height, width, 3) uint8."""

    truth: np.ndarray
    model: np.ndarray


def frames(films: Sequence[Film], context: int) -> list[np.ndarray]:
    """Frames (3 · height, columns · width, 3) uint8, borders included, until the longest episode is over."""
    longest = max(len(film.truth) for film in films)
    columns = [_column(film, context, longest) for film in films[: _affordable(films[0], longest)]]
    return list(np.concatenate(columns, axis=2))


def _affordable(film: Film, steps: int) -> int:
    """How many columns of such an episode fit into MAX_BYTES, at least one."""
    height, width = (side + 2 * BORDER for side in film.truth.shape[1:3])
    return max(1, MAX_BYTES // (steps * 3 * height * width * 3))


def _column(film: Film, context: int, steps: int) -> np.ndarray:
    """(steps, 3 · height, width, 3), borders included."""
    ahead = film.model.astype(np.int16) - film.truth
    difference = (128 + ahead // 2).astype(np.uint8)
    height, width = film.truth.shape[1:3]
    column = np.empty((steps, 3, height + 2 * BORDER, width + 2 * BORDER, 3), np.uint8)
    column[:context], column[context:], column[len(film.truth) :] = GIVEN, PREDICTED, OVER
    inside = column[: len(film.truth), :, BORDER:-BORDER, BORDER:-BORDER]  # (T, 3, height, width, 3)
    for row, pictures in enumerate((film.truth, film.model, difference)):
        inside[:, row] = pictures
    return column.reshape(steps, -1, width + 2 * BORDER, 3)
