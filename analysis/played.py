"""Which episodes count as a run's return in and out of distribution."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError

Conditions = frozenset[tuple[str, float]]  # shifts that were played held out, with their severity
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
    conditions: Conditions  # of the others


def strongest(split: np.ndarray, shift: np.ndarray, severity: np.ndarray, run: np.ndarray | None = None) -> np.ndarray:
    """Which rows (n,) are of `Played`, out of distribution; with `run`, each has highest severities of its own."""
    whole = (split == HELD_OUT) & (shift != NONE)
    kinds, kind = np.unique((shift if run is None else run + " " + shift).astype(str), return_inverse=True)
    highest = np.full(len(kinds), -np.inf)
    np.maximum.at(highest, kind[whole], severity[whole])
    return whole & (severity == highest[kind])


def require_same(runs: Iterable[tuple[str, str, Conditions]]) -> None:
    """AnalysisError where runs on one task were played under different conditions, so that means over them are not
    comparable: (task, where the run lies, conditions) of each; a run without any is passed over.
    """
    first: dict[str, tuple[str, Conditions]] = {}
    for task, where, conditions in runs:
        if conditions:
            other, theirs = first.setdefault(task, (where, conditions))
            if conditions != theirs:
                both = f"{_in_words(theirs)} and {_in_words(conditions)}"
                raise AnalysisError(
                    f"runs on {task} were played under different shifts: {both}",
                    f"{other} and {where}",
                    "Means over them are not comparable; play the same ones: mbrl-pvr ood RUN --shift … --severity …",
                )


def _in_words(conditions: Conditions) -> str:
    return ", ".join(f"{shift} at {severity:g}" for shift, severity in sorted(conditions))
