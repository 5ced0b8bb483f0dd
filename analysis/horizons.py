"""What a recorded model gets wrong: errors of its latents and rewards per trajectory and step, and summed over windows.

The study (facts: section 7) sums both over 33 steps and over the whole trajectory, 500 steps. Here the first of them
starts from every point that was recorded, and the second from the first point alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis import dynamics, rewards
from analysis.errors import AnalysisError
from analysis.records import Latents, Starts

BOTH = ("error", "copy_last_error")  # of the latent: the model's, and that of keeping the last latent
REWARD = ("reward_error", "mean_reward_error")  # the model's, and that of predicting the mean reward


@dataclass(frozen=True)
class Measure:
    """What the error of a latent is, "MSE" or "KL"; `scale` makes it comparable: the latent's variance, or the number
    of categorical latents.
    """

    name: str
    scale: float
    classes: int = 0
    unimix: float | None = None


def measure_of(latents: Latents, unimix: float | None) -> Measure:
    """Raises AnalysisError for categorical latents without the agent's `unimix`."""
    if latents.kind == "deterministic":
        return Measure("MSE", dynamics.latent_variance(latents.posterior, latents.length))
    if unimix is None:
        raise AnalysisError("the KL of categorical latents needs the share of unimix that the agent has")
    return Measure("KL", latents.posterior.shape[2] / latents.classes, latents.classes, unimix)


def step_errors(latents: Latents, measure: Measure) -> dict[str, np.ndarray]:
    """(E, K) each of `BOTH` and `REWARD`, and `closed_loop_reward_error`, of the open loop behind `context`; NaN after
    an episode's end.
    """
    given = (latents.length, latents.context)
    model, kept = _errors_of(measure)
    return {
        "error": model(latents.posterior, latents.open_loop, *given),
        "copy_last_error": kept(latents.posterior, latents.open_loop, *given),
        "reward_error": rewards.reward_errors(latents.reward_true, latents.reward_open_loop, *given),
        "mean_reward_error": rewards.mean_reward_errors(latents.reward_true, *given),
        "closed_loop_reward_error": rewards.reward_errors(latents.reward_true, latents.reward_pred, *given),
    }


def start_errors(latents: Latents, starts: Starts, measure: Measure) -> dict[str, np.ndarray]:
    """(E, K) each of `BOTH` and `REWARD`, means over the start points whose episode lasts so long."""
    model, kept = _errors_of(measure)
    average = np.nanmean(np.where(latents.valid, latents.reward_true, np.nan)[:, 1:], dtype=float)
    found = {
        "error": (model, latents.posterior, starts.open_loop),
        "copy_last_error": (kept, latents.posterior, starts.open_loop),
        "reward_error": (rewards.reward_errors, latents.reward_true, starts.reward),
        "mean_reward_error": (
            rewards.reward_errors,
            latents.reward_true,
            np.full(starts.reward.shape, average),
        ),
    }
    return {
        name: dynamics.over_starts(dynamics.from_starts(of, true, predicted, starts.points, latents.length))
        for name, (of, true, predicted) in found.items()
    }


def _errors_of(measure: Measure) -> tuple:
    """Functions (true, predicted, length, context) to errors (E, K): the model's, and of keeping the last latent."""
    if measure.name == "MSE":
        model, kept = dynamics.open_loop_errors, dynamics.copy_last_errors
    else:
        how: dict[str, Any] = {"classes": measure.classes, "unimix": measure.unimix}
        model, kept = partial(dynamics.open_loop_kl, **how), partial(dynamics.copy_last_kl, **how)
    return model, lambda true, predicted, length, context: kept(true, length, context)


def window_table(
    latents: Latents, starts: Starts | None, unimix: float | None, windows: Sequence[int], **labels: object
) -> pd.DataFrame:
    """One row per window and trajectory with the sums over its steps of `BOTH` and `REWARD`, NaN where a trajectory is
    shorter; `labels` become columns.

    Also `measure`, `scale`, `context`, and `points`, how many start points a row is the mean of: all that were recorded
    where the window is no longer than theirs, one otherwise.
    """
    measure = measure_of(latents, unimix)
    from_first = step_errors(latents, measure)
    from_all = None if starts is None else start_errors(latents, starts, measure)
    parts = []
    for window in windows:
        many = starts is not None and window <= starts.open_loop.shape[2]
        errors = from_all if many and from_all is not None else from_first
        sums = {name: dynamics.window_sums(errors[name], [window])[window] for name in (*BOTH, *REWARD)}
        points = len(starts.points) if many and starts is not None else 1
        parts.append(pd.DataFrame({**sums, "trajectory": np.arange(len(latents.length)), "points": points}))
        parts[-1]["window"] = window
    table = pd.concat(parts, ignore_index=True)
    return table.assign(measure=measure.name, scale=measure.scale, context=latents.context, **labels)


def windows_that_fit(steps: int, wanted: Sequence[int] = dynamics.STUDY_WINDOWS) -> list[int]:
    """The wanted windows, those longer than `steps` cut to it: the study's 500 are its whole trajectories."""
    return sorted({min(window, steps) for window in wanted})
