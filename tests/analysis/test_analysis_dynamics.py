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


def planted(power, episodes=40, steps=80, seed=0):
    """Errors (E, K) that grow as k to the power, with noise of their own per trajectory and step."""
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.3, (episodes, steps)))
    return 0.01 * np.arange(1, steps + 1) ** power * noise


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_planted_powers_are_recovered(power):
    found = dynamics.growth(planted(power))
    assert found.point == pytest.approx(power, abs=0.03) and found.low < power < found.high and found.runs == 40
    few = dynamics.growth(planted(power, episodes=3))
    assert np.isnan(few.low) and few.note == "3 trajectories: no interval"


def test_growth_needs_errors():
    with pytest.raises(AnalysisError, match="needs three"):
        dynamics.growth(np.array([[1.0, 2.0, np.nan]]))
    with pytest.raises(AnalysisError, match="above 0"):
        dynamics.growth(np.zeros((5, 9)))


def test_windows_have_intervals_over_trajectories():
    errors = np.ones((20, 40)) * np.arange(20)[:, None]
    errors[15:, 35:] = np.nan  # five trajectories end before step 36
    found = dynamics.window_intervals(errors, (33, 40, 500))
    assert list(found) == [33, 40]
    assert found[33].point == pytest.approx(33 * 9.5) and found[33].runs == 20
    assert found[40].point == pytest.approx(40 * 7) and found[40].runs == 15
    assert found[33].low < found[33].point < found[33].high
    assert dynamics.window_intervals(errors[:3], (33,))[33].note == "range of 3 trajectories"
    assert dynamics.window_intervals(errors[:1], (33,))[33].note == "1 trajectory: no interval"


def test_open_loops_from_several_starts():
    """Latents count steps, so that keeping one k steps long is k away; predictions are off by the start's number."""
    posterior = np.tile(np.arange(10.0)[None, :, None], (2, 1, 3))
    starts, length = np.array([1, 4, 8]), np.array([10, 6])
    index = starts[:, None] + np.arange(5)
    open_loop = np.tile((index + np.array([[1.0], [2.0], [3.0]]))[None, :, :, None], (2, 1, 1, 3))
    errors = dynamics.from_starts(dynamics.open_loop_errors, posterior, open_loop, starts, length)
    no = np.nan
    np.testing.assert_allclose(errors[0], [[1] * 5, [4] * 5, [9, 9, no, no, no]])
    np.testing.assert_allclose(errors[1], [[1] * 5, [4, 4, no, no, no], [no] * 5])
    np.testing.assert_allclose(dynamics.over_starts(errors), [[14 / 3] * 2 + [2.5] * 3, [2.5, 2.5, 1, 1, 1]])

    def copied(recorded, _, lasts, context):
        return dynamics.copy_last_errors(recorded, lasts, context)

    kept = dynamics.from_starts(copied, posterior, open_loop, starts, length)
    np.testing.assert_allclose(kept[0, 0], [1, 4, 9, 16, 25])
    whole = np.concatenate([posterior[:1, :4], open_loop[:1, 1]], axis=1)  # nine steps, as if recorded from one start
    one = dynamics.open_loop_errors(posterior[:1, :9], whole, length[:1], 4)
    np.testing.assert_allclose(errors[0, 1], one[0])


def test_other_errors_have_several_starts_too():
    p, q = np.log([0.75, 0.25]), np.log([0.5, 0.5])
    posterior, starts = np.tile(p, (1, 6, 1)), np.array([2])
    open_loop = np.array([[[p, q, q]]])

    def kl(*given):
        return dynamics.open_loop_kl(*given, classes=2, unimix=0.0)

    found = dynamics.from_starts(kl, posterior, open_loop, starts, np.array([4]))
    np.testing.assert_allclose(found, [[[0, 0.137327, np.nan]]], atol=1e-6)
    true, predicted = np.arange(6.0)[None], np.array([[[2.5, 3.0, 0.0]]])
    found = dynamics.from_starts(rewards.reward_errors, true, predicted, starts, np.array([6]))
    np.testing.assert_allclose(found, [[[0.5, 0, 4]]])


def test_starts_must_be_inside():
    arrays = np.zeros((2, 5, 3)), np.zeros((2, 1, 2, 3))
    for start in (0, 5):
        with pytest.raises(AnalysisError, match=r"should lie in 1\.\.4"):
            dynamics.from_starts(dynamics.open_loop_errors, *arrays, np.array([start]), np.array([5, 5]))
    with pytest.raises(AnalysisError, match="open loops should be"):
        dynamics.from_starts(dynamics.open_loop_errors, *arrays, np.array([1, 2]), np.array([5, 5]))


def test_calibration_by_reward():
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 1, (30, 101))
    shrunk = 0.5 + 0.5 * (true - 0.5)  # half as far from the mean as it should be
    shrunk[0, 3] = np.nan
    by_true = rewards.calibration(true, shrunk, np.full(30, 101))
    np.testing.assert_allclose(by_true.predicted, 0.25 + 0.5 * by_true.true)
    np.testing.assert_allclose(by_true.true, np.linspace(0.05, 0.95, 10), atol=0.02)
    assert by_true.steps.sum() == 30 * 100 - 1 and np.ptp(by_true.steps) <= 1 and len(by_true.edges) == 11
    assert (by_true.low <= by_true.predicted).all() and (by_true.predicted <= by_true.high).all()
    np.testing.assert_allclose(by_true.error, np.abs(by_true.true - 0.5) / 2, atol=0.02)
    noisy = true + rng.normal(0, 0.5, true.shape)  # regression to the mean shows in bins of the prediction alone
    by_prediction = rewards.calibration(true, noisy, np.full(30, 101), by="predicted")
    assert by_prediction.predicted[-1] - by_prediction.true[-1] > 0.4
    assert abs(rewards.calibration(true, noisy, np.full(30, 101)).predicted[-1] - 0.95) < 0.1


def test_calibration_of_few_and_of_tied_rewards():
    true = np.array([[9.0, 0, 0, 0, 1, 1], [9.0, 0, 0, 0, 0, 0]])
    found = rewards.calibration(true, true + 0.5, np.array([6, 5]), bins=4)
    np.testing.assert_allclose(found.true, [0, 1])  # the padding of the second trajectory does not count
    np.testing.assert_allclose(found.predicted, [0.5, 1.5])
    assert found.steps.tolist() == [7, 2] and np.isnan(found.low).all()
    one = rewards.calibration(np.ones((2, 4)), np.ones((2, 4)), np.array([4, 4]))
    assert one.true.tolist() == [1.0] and one.steps.tolist() == [6]
    with pytest.raises(AnalysisError, match="'both'"):
        rewards.calibration(true, true, np.array([6, 5]), by="both")
    with pytest.raises(AnalysisError, match="no step"):
        rewards.calibration(true, true * np.nan, np.array([6, 5]))
