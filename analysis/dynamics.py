"""How far open-loop latents drift from encoded ones. Arrays as in `analysis.records.Latents`: episodes E, steps T,
latent L.

The study (facts: section 7) takes, for TD-MPC2, the MSE between predicted and encoded latent, accumulated over 33 and
500 steps. The paper leaves open whether MSE averages or sums over latent entries: here it averages, as TD-MPC2's
consistency loss does (Hansen et al. 2024, eq. 3). It is not comparable between encoders; `latent_variance` and
`copy_last_errors` give it a scale.

For DreamerV3, whose latents are S categorical ones, it takes the mean of forward and backward KL between posterior and
prior: here of the posterior in the closed loop and the prior in the open one, at the same step. Divided by S, and
beside `copy_last_kl`, it has a scale.

The last step given has the index `context` - 1: every observation after it is unseen, and its error counts. Open loops
recorded from several start points of one trajectory go through `from_starts`, and are averaged within the trajectory
(`over_starts`) before anything is said about trajectories: they are not independent. From how many points the study
starts is not said; its 500 steps leave room for one.
"""

from collections.abc import Callable, Sequence

import numpy as np

from analysis import stats
from analysis.errors import AnalysisError

STUDY_WINDOWS = (33, 500)


def open_loop_errors(posterior: np.ndarray, open_loop: np.ndarray, length: np.ndarray, context: int) -> np.ndarray:
    """(E, K) mean squared error; column k - 1 is the k-th step without an observation (index context + k - 1), NaN
    after the end.
    """
    difference = open_loop[:, context:].astype(float) - posterior[:, context:]
    return after_context(np.mean(difference**2, axis=-1), length, context)


def copy_last_errors(posterior: np.ndarray, length: np.ndarray, context: int) -> np.ndarray:
    """(E, K) the same error of the prediction that nothing changes after the last observation given."""
    difference = posterior[:, context - 1, None].astype(float) - posterior[:, context:]
    return after_context(np.mean(difference**2, axis=-1), length, context)


def open_loop_kl(
    posterior: np.ndarray, open_loop: np.ndarray, length: np.ndarray, context: int, classes: int, unimix: float
) -> np.ndarray:
    """(E, K) `symmetric_kl`, columns as of `open_loop_errors`, of logits (E, T, S · classes)."""
    kl = _episode_by_episode(posterior[:, context:], open_loop[:, context:], classes, unimix)
    return after_context(kl, length, context)


def copy_last_kl(posterior: np.ndarray, length: np.ndarray, context: int, classes: int, unimix: float) -> np.ndarray:
    """(E, K) the same divergence of the prediction that nothing changes after the last observation given."""
    last = np.broadcast_to(posterior[:, context - 1, None], posterior[:, context:].shape)
    return after_context(_episode_by_episode(posterior[:, context:], last, classes, unimix), length, context)


def _episode_by_episode(posterior: np.ndarray, prior: np.ndarray, classes: int, unimix: float) -> np.ndarray:
    """`symmetric_kl` (E, K), one episode after the other: its intermediate arrays are many times larger than logits."""
    latents = (posterior.shape[1], posterior.shape[2] // classes, classes)  # (K, S, classes)
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, which `after_context` keeps
        return np.stack(
            [
                symmetric_kl(q.reshape(latents), p.reshape(latents), unimix)
                for q, p in zip(posterior, prior, strict=True)
            ]
        )


def after_context(errors: np.ndarray, length: np.ndarray, context: int) -> np.ndarray:
    """Errors (E, K) of the steps from `context` on, with NaN where the episode is over or the error is not finite."""
    step = context + np.arange(errors.shape[1])
    return np.where((step[None, :] < np.asarray(length)[:, None]) & np.isfinite(errors), errors, np.nan)


def latent_variance(posterior: np.ndarray, length: np.ndarray) -> float:
    """Variance of one latent entry over all valid steps, averaged over entries: the MSE of always predicting the mean
    latent.
    """
    valid = np.arange(posterior.shape[1])[None, :] < np.asarray(length)[:, None]
    points = posterior[valid].astype(float)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 2:
        raise AnalysisError(f"{len(points)} finite latents: a variance needs at least two")
    return float(points.var(axis=0).mean())


def window_sums(errors: np.ndarray, windows: Sequence[int] = STUDY_WINDOWS) -> dict[int, np.ndarray]:
    """Errors (E, K) summed over the first w steps, (E,) for every w; NaN for episodes that are shorter."""
    if wrong := [w for w in windows if w < 1]:
        raise AnalysisError(f"a window has at least one step, not {wrong[0]}")
    nothing = np.full(len(errors), np.nan)
    return {w: errors[:, :w].sum(axis=1) if w <= errors.shape[1] else nothing for w in windows}


def window_intervals(errors: np.ndarray, windows: Sequence[int] = STUDY_WINDOWS) -> dict[int, stats.Interval]:
    """Window to the mean over trajectories of the error summed over its steps, with its interval over trajectories;
    errors (E, K). Trajectories that end inside of a window are left out of it; a window that none fills has no entry.
    """
    whole = {window: sums[np.isfinite(sums)] for window, sums in window_sums(errors, windows).items()}
    return {window: over_trajectories(sums) for window, sums in whole.items() if len(sums)}


def over_trajectories(values: np.ndarray) -> stats.Interval:
    """Mean of one finite number per trajectory (E,) with its interval; the note counts trajectories, not runs."""
    interval = stats.bootstrap(values, stats.mean)
    note = interval.note.replace("runs", "trajectories").replace("run:", "trajectory:")
    return stats.Interval(interval.point, interval.low, interval.high, interval.runs, note)


def from_starts(
    errors_of: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray],
    recorded: np.ndarray,
    open_loop: np.ndarray,
    starts: np.ndarray,
    length: np.ndarray,
) -> np.ndarray:
    """(E, P, K) errors of open loops from P start points, one trajectory in memory at a time.

    recorded: (E, T, …), open_loop: (E, P, K, …), whose k-th entry predicts step starts[p] + k - 1; starts (P,): index
    of the first step that was not given, at least 1. `errors_of(recorded, open_loop, length, context)` is
    `open_loop_errors`, `open_loop_kl` with its last two arguments bound, `rewards.reward_errors`, or a baseline that
    does not look at the open loop. NaN after the end of a trajectory.
    """
    recorded, open_loop, starts = np.asarray(recorded), np.asarray(open_loop), np.asarray(starts)
    steps, points = recorded.shape[1], len(starts)
    wanted = (len(recorded), points, *recorded.shape[2:])
    if (*open_loop.shape[:2], *open_loop.shape[3:]) != wanted or starts.ndim != 1:
        raise AnalysisError(f"open loops should be (E, P, K, …) = {wanted} without K, but are {open_loop.shape}")
    if points == 0 or starts.min() < 1 or starts.max() >= steps:
        raise AnalysisError(f"start points should lie in 1..{steps - 1}, but are {starts.tolist()}")
    index = starts[:, None] + np.arange(-1, open_loop.shape[2])  # (P, 1 + K): the last step given, and K more
    found = []
    for one, predicted, end in zip(recorded, open_loop, np.asarray(length), strict=True):
        target = one[np.minimum(index, steps - 1)]  # (P, 1 + K, …); beyond the end nothing counts
        given = np.concatenate([target[:, :1], predicted], axis=1)
        found.append(errors_of(target, given, np.maximum(end - starts + 1, 0), 1))
    return np.stack(found)


def over_starts(errors: np.ndarray) -> np.ndarray:
    """(E, K) means of errors (E, P, K) over the start points whose trajectory lasts so long; NaN where none does."""
    there = np.isfinite(errors)
    total, count = np.where(there, errors, 0.0).sum(axis=1), there.sum(axis=1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def growth(errors: np.ndarray, *, repetitions: int = 1000, seed: int = 0) -> stats.Interval:
    """How fast errors (E, K) grow: the exponent b of error ~ kᵇ, fitted by least squares to the logarithm of the mean
    over trajectories, with its bootstrap interval over them; 1 for independent errors that add up, 0 for
    saturated ones.

    Steps that not every trajectory reaches are left out. Raises AnalysisError where fewer than three remain or one has
    no error, which has no logarithm.
    """
    errors = np.asarray(errors, dtype=float)
    whole = np.isfinite(errors).all(axis=0)
    log_k = np.log(1 + np.flatnonzero(whole))
    if len(log_k) < 3 or (errors[:, whole].mean(axis=0) <= 0).any():
        raise AnalysisError(f"{len(log_k)} steps with errors above 0 in every trajectory: a rate of growth needs three")
    slope = (log_k - log_k.mean()) / np.sum((log_k - log_k.mean()) ** 2)
    point = float(np.log(errors[:, whole].mean(axis=0)) @ slope)
    if len(errors) < stats.FEW:
        return stats.Interval(point, np.nan, np.nan, len(errors), f"{len(errors)} trajectories: no interval")
    picks = np.random.default_rng(seed).integers(len(errors), size=(repetitions, len(errors)))
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of trajectories without error has no rate
        draws = np.stack([np.log(errors[pick][:, whole].mean(axis=0)) @ slope for pick in picks])
    low, high = stats.percentiles(np.where(np.isfinite(draws), draws, np.nan))
    return stats.Interval(point, float(low), float(high), len(errors))


def categorical_kl(p_logits: np.ndarray, q_logits: np.ndarray, unimix: float = 0.01) -> np.ndarray:
    """KL(p || q) in nats of S independent categoricals, closed form: logits (..., S, K) -> (...), summed over S, no
    free bits.

    Both are mixed with `unimix` of the uniform distribution first (DreamerV3, Hafner et al. 2023, section "World model
    learning").
    """
    log_p, log_q = _log_probabilities(p_logits, unimix), _log_probabilities(q_logits, unimix)
    p = np.exp(log_p)
    return np.sum(np.where(p > 0, p * (log_p - log_q), 0.0), axis=(-2, -1))


def symmetric_kl(posterior_logits: np.ndarray, prior_logits: np.ndarray, unimix: float = 0.01) -> np.ndarray:
    """Mean of forward and backward KL, the study's dynamics error of DreamerV3: logits (..., S, K) -> (...)."""
    forward = categorical_kl(posterior_logits, prior_logits, unimix)
    return (forward + categorical_kl(prior_logits, posterior_logits, unimix)) / 2


def _log_probabilities(logits: np.ndarray, unimix: float) -> np.ndarray:
    logits = np.asarray(logits, dtype=float)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return log_p if unimix == 0 else np.log((1 - unimix) * np.exp(log_p) + unimix / logits.shape[-1])
