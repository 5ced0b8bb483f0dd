"""Which episodes count as a run's return in and out of distribution."""

from dataclasses import dataclass

import numpy as np

HELD_OUT = "held_out"  # split of episodes with all factors of a shift held out at once
NONE = "none"  # shift of episodes under the looks of training


@dataclass(frozen=True)
class Played:
    """Episodes (n,) under the looks of training, and with all factors of a shift held out at the highest severity that
    was played: lower ones, and single factors, are other questions.
    """

    inside: np.ndarray  # whether it had the looks of training
    returns: np.ndarray
    normalised: np.ndarray  # NaN where it has none
    conditions: frozenset[tuple[str, float]]  # shifts of the others, with their severity


def strongest(split: np.ndarray, shift: np.ndarray, severity: np.ndarray, run: np.ndarray | None = None) -> np.ndarray:
    """Which rows (n,) are of `Played`, out of distribution; with `run`, each has highest severities of its own."""
    whole = (split == HELD_OUT) & (shift != NONE)
    kinds, kind = np.unique((shift if run is None else run + " " + shift).astype(str), return_inverse=True)
    highest = np.full(len(kinds), -np.inf)
    np.maximum.at(highest, kind[whole], severity[whole])
    return whole & (severity == highest[kind])
