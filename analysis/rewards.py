"""How well rewards are predicted: |r - r̂| per step (facts: section 7), on the same horizons as `analysis.dynamics`."""

import numpy as np

from analysis.dynamics import after_context


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
