"""How well rewards are predicted: |r - r̂| per step (facts: section 7), on the same horizons as `analysis.dynamics`;
and whether predictions are right where rewards are high (`calibration`), which a mean error over mostly small rewards
hides.
"""

from dataclasses import dataclass

import numpy as np

from analysis import stats
from analysis.dynamics import after_context
from analysis.errors import AnalysisError


def reward_errors(reward_true: np.ndarray, reward_pred: np.ndarray, length: np.ndarray, context: int) -> np.ndarray:
    """(E, K) absolute error; column k - 1 is the k-th step without an observation, NaN after the end. Sum with
    `window_sums`.
    """
    difference = reward_pred[:, context:].astype(float) - reward_true[:, context:]
    return after_context(np.abs(difference), length, context)


def mean_reward_errors(reward_true: np.ndarray, length: np.ndarray, context: int) -> np.ndarray:
    """(E, K) the same error of always predicting the mean reward of all valid steps (index 0 carries no reward)."""
    step = np.arange(reward_true.shape[1])[None, :]
    average = np.nanmean(reward_true[(step > 0) & (step < np.asarray(length)[:, None])], dtype=float)
    return reward_errors(reward_true, np.full(reward_true.shape, average), length, context)


def reward_bins(reward: np.ndarray, bins: int) -> np.ndarray:
    """Numbers from 0 (N,) of bins that hold about equally many of the rewards (N,); equal rewards share one, so that
    ties make fewer bins.
    """
    inner = np.unique(np.quantile(reward, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.unique(np.searchsorted(inner, reward, side="left"), return_inverse=True)[1]


@dataclass(frozen=True)
class Calibration:
    """Per bin (B,): mean true and predicted reward with the latter's interval over trajectories, |r - r̂|, and steps."""

    edges: np.ndarray  # (B + 1,), of the reward that bins
    true: np.ndarray
    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    steps: np.ndarray


def calibration(
    reward_true: np.ndarray, reward_pred: np.ndarray, length: np.ndarray, *, by: str = "true", bins: int = 10
) -> Calibration:
    """Mean predicted against mean true reward, of rewards (E, T), in bins of equally many steps; ties make fewer bins.

    `by="true"` asks what the model predicts where the reward is r (shrinkage towards the mean shows); `by="predicted"`
    asks what the reward is where the model predicts r̂, which is calibration in the statistician's sense. Index 0 of a
    trajectory carries no reward; predictions that are not finite are left out. Intervals draw trajectories, of which
    they need `stats.FEW`.
    """
    if by not in ("true", "predicted"):
        raise AnalysisError(f"rewards are binned by 'true' or 'predicted', not by {by!r}")
    true, predicted = np.asarray(reward_true, dtype=float), np.asarray(reward_pred, dtype=float)
    step = np.arange(true.shape[1])
    there = (step > 0) & (step < np.asarray(length)[:, None]) & np.isfinite(true) & np.isfinite(predicted)
    if not there.any():
        raise AnalysisError("no step has a finite true and predicted reward")
    trajectory = np.nonzero(there)[0]
    r, r_hat = true[there], predicted[there]
    key = r if by == "true" else r_hat
    place = reward_bins(key, bins)
    count = int(place.max()) + 1

    def sums(values: np.ndarray) -> np.ndarray:
        """(E, B) per trajectory and bin."""
        flat = np.bincount(trajectory * count + place, values, minlength=len(true) * count)
        return flat.reshape(len(true), count)

    steps, totals = sums(np.ones(len(r))), sums(r_hat)
    ends = np.full((2, count), np.nan)
    if len(true) >= stats.FEW:
        picks = np.random.default_rng(0).integers(len(true), size=(1000, len(true)))
        weights = np.stack([np.bincount(pick, minlength=len(true)) for pick in picks])  # (draws, E)
        drawn, total = weights @ steps, weights @ totals
        ends = stats.percentiles(np.divide(total, drawn, out=np.full(total.shape, np.nan), where=drawn > 0))
    per_bin = steps.sum(axis=0)
    mean_true, mean_predicted, error = (sums(v).sum(axis=0) / per_bin for v in (r, r_hat, np.abs(r - r_hat)))
    lowest = [key[place == one].min() for one in range(count)]
    edges = np.array([*lowest, key.max()])
    return Calibration(edges, mean_true, mean_predicted, ends[0], ends[1], error, per_bin.astype(int))
