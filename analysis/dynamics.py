"""How far open-loop latents drift from encoded ones. Arrays as in `analysis.runs.Latents`: episodes E, steps T, latent
L.

The study (facts: section 7) takes, for TD-MPC2, the MSE between predicted and encoded latent, accumulated over 33 and
500 steps. The paper leaves open whether MSE averages or sums over latent entries: here it averages, as TD-MPC2's
consistency loss does (Hansen et al. 2024, eq. 3). It is not comparable between encoders; `latent_variance` and
`copy_last_errors` give it a scale.

For DreamerV3, whose latents are S categorical ones, it takes the mean of forward and backward KL between posterior and
prior: here of the posterior in the closed loop and the prior in the open one, at the same step. Divided by S, and
beside `copy_last_kl`, it has a scale.

The last step given has the index `context` - 1: every observation after it is unseen, and its error counts.
"""

from collections.abc import Sequence

import numpy as np

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
