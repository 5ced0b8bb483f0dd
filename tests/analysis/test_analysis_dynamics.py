"""Errors of open-loop predictions: planted ones are recovered, the KL equals numbers worked by hand."""

import math

import numpy as np
import pytest

from analysis import AnalysisError, dynamics, rewards


def test_planted_growth_is_recovered(synthetic):
    arrays = synthetic["latents"](np.random.default_rng(0), growth=0.004, context=5, steps=60)
    given = arrays["length"], 5
    errors = dynamics.open_loop_errors(arrays["posterior"], arrays["open_loop"], *given)
    assert errors.shape == (8, 55)
    np.testing.assert_allclose(errors.mean(axis=0), 0.004 * np.arange(1, 56), rtol=1e-4)


def test_errors_start_with_the_first_step_that_is_predicted():
    posterior = np.zeros((1, 6, 2))
    open_loop = np.zeros((1, 6, 2))
    open_loop[0, 3:] = [[2.0, 0.0], [2.0, 2.0], [4.0, 0.0]]  # the first three are given
    errors = dynamics.open_loop_errors(posterior, open_loop, np.array([5]), context=3)
    np.testing.assert_allclose(errors, [[2.0, 4.0, np.nan]])  # the mean over entries; the episode has five steps


def test_copy_last_keeps_the_last_latent_given():
    posterior = np.array([[[0.0], [1.0], [3.0], [1.0]]])
    np.testing.assert_allclose(dynamics.copy_last_errors(posterior, np.array([4]), context=2), [[4.0, 0.0]])


def test_variance_is_the_error_of_the_mean_latent():
    rng = np.random.default_rng(0)
    posterior = rng.normal(0, [1.0, 3.0], (50, 40, 2))
    posterior[:, 30:] = 1e6  # padding
    length = np.full(50, 30)
    variance = dynamics.latent_variance(posterior, length)
    assert variance == pytest.approx((1 + 9) / 2, rel=0.05)
    mean = posterior[:, :30].mean(axis=(0, 1))
    errors = dynamics.open_loop_errors(posterior, np.broadcast_to(mean, posterior.shape), length, context=1)
    assert np.nanmean(errors) == pytest.approx(variance, rel=0.05)
    with pytest.raises(AnalysisError, match="at least two"):
        dynamics.latent_variance(np.full((1, 3, 2), np.nan), np.array([3]))


def test_window_sums_need_whole_windows():
    errors = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, np.nan]])
    sums = dynamics.window_sums(errors, (1, 3, 4, 500))
    np.testing.assert_allclose(sums[3], [6, 3])
    np.testing.assert_allclose(sums[4], [10, np.nan])
    assert np.isnan(sums[500]).all() and sums[1].tolist() == [1, 1]
    with pytest.raises(AnalysisError, match="not 0"):
        dynamics.window_sums(errors, (0,))


def test_a_diverged_prediction_is_not_a_number():
    open_loop = np.zeros((2, 4, 3))
    open_loop[0, 2:] = np.inf
    with np.errstate(invalid="ignore"):
        errors = dynamics.open_loop_errors(np.zeros((2, 4, 3)), open_loop, np.array([4, 4]), context=1)
    np.testing.assert_array_equal(errors, [[0, np.nan, np.nan], [0, 0, 0]])


def test_kl_by_hand():
    p, q = np.log([[0.75, 0.25]]), np.log([[0.5, 0.5]])
    forward, backward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert dynamics.categorical_kl(p, q, unimix=0) == pytest.approx(forward) == pytest.approx(0.130812, abs=1e-6)
    assert dynamics.categorical_kl(q, p, unimix=0) == pytest.approx(backward) == pytest.approx(0.143841, abs=1e-6)
    assert dynamics.symmetric_kl(p, q, unimix=0) == pytest.approx(0.137327, abs=1e-6)
    # unimix 0.01: p becomes 0.7475, 0.2525 and q stays
    assert dynamics.categorical_kl(p, q) == pytest.approx(0.7475 * math.log(1.495) + 0.2525 * math.log(0.505))


def test_kl_of_32_by_32_logits():
    uniform, certain = np.zeros((32, 32)), np.zeros((32, 32))
    certain[:, 7] = 1000.0  # far beyond what exp can hold
    assert dynamics.categorical_kl(certain, uniform, unimix=0) == pytest.approx(32 * math.log(32))
    assert dynamics.categorical_kl(certain + 5.0, certain, unimix=0) == 0.0  # logits have no level
    # with unimix the backward divergence is finite: q = 0.99 + 0.01/32 once and 0.01/32 31 times
    high, low = 0.99 + 0.01 / 32, 0.01 / 32
    backward = 32 * (math.log(1 / 32) - (math.log(high) + 31 * math.log(low)) / 32)
    assert dynamics.categorical_kl(uniform, certain) == pytest.approx(backward)
    logits = np.random.default_rng(0).normal(size=(2, 5, 3, 32, 32))
    kl = dynamics.symmetric_kl(logits[0], logits[1])
    assert kl.shape == (5, 3) and (kl > 0).all()
    np.testing.assert_allclose(kl, dynamics.symmetric_kl(logits[1], logits[0]))


def test_kl_of_the_open_loop_counts_every_step_that_is_not_given():
    """Two latents of two classes; a step of which one latent is wrong, and one of which both are."""
    p, q = np.log([0.75, 0.25]), np.log([0.5, 0.5])
    one = 0.137327  # nats, as above
    posterior = np.tile([*p, *p], (2, 5, 1))
    open_loop = posterior.copy()
    open_loop[0, 1:] = [[*p, *p], [*q, *p], [*q, *q], [np.inf, np.inf, *p]]
    length = np.array([5, 3])
    kl = dynamics.open_loop_kl(posterior, open_loop, length, context=2, classes=2, unimix=0.0)
    np.testing.assert_allclose(kl, [[one, 2 * one, np.nan], [0, np.nan, np.nan]], atol=1e-6)
    p_1, q_1 = [0.7475, 0.2525], [0.5, 0.5]
    mixed = sum((a - b) * math.log(a / b) for a, b in zip(p_1, q_1, strict=True)) / 2
    kl = dynamics.open_loop_kl(posterior, open_loop, length, context=2, classes=2, unimix=0.01)
    assert kl[0, 0] == pytest.approx(mixed) and mixed < one


def test_keeping_the_last_posterior_has_a_kl_too():
    p, q = np.log([0.75, 0.25]), np.log([0.5, 0.5])
    posterior = np.array([[q, p, q, p, p]])
    kl = dynamics.copy_last_kl(posterior, np.array([4]), context=2, classes=2, unimix=0.0)
    np.testing.assert_allclose(kl, [[0.137327, 0, np.nan]], atol=1e-6)


def test_reward_errors_and_their_baseline():
    true = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 2.0, 9.0, 9.0]])
    predicted = np.array([[np.nan, 1.5, 2.0, 1.0], [np.nan, 2.5, 0.0, 0.0]])
    length = np.array([4, 2])
    np.testing.assert_allclose(rewards.reward_errors(true, predicted, length, 1), [[0.5, 0, 2], [0.5, np.nan, np.nan]])
    # rewards that count: 1, 2, 3 and 2
    np.testing.assert_allclose(rewards.mean_reward_errors(true, length, 1), [[1, 0, 1], [0, np.nan, np.nan]])
