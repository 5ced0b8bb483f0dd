"""Statistics against numbers worked by hand, against SciPy, and against their own promise of coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from analysis import AnalysisError, stats


def test_iqm_by_hand():
    assert stats.iqm(np.arange(1.0, 9.0)) == pytest.approx((3 + 4 + 5 + 6) / 4)
    outliers = np.array([[-1e6, 2.0], [4.0, 1e6]])  # one value is cut from each end
    assert stats.iqm(outliers) == pytest.approx(3.0)
    assert stats.iqm(np.array([[5.0], [7.0], [9.0]])) == pytest.approx(7.0)  # a quarter of three rounds down to none


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_iqm_equals_scipys_trimmed_mean(values):
    assert stats.iqm(np.array(values)) == pytest.approx(trim_mean(values, 0.25), abs=1e-9)


def test_median_is_over_tasks_of_run_means():
    scores = np.array([[0.0, 10.0, 100.0], [2.0, 30.0, 300.0]])  # run means 1, 20, 200
    assert stats.median(scores) == 20.0
    assert stats.mean(scores) == pytest.approx(221 / 3)


def test_normalise():
    returns = np.array([[50.0, 5.0], [1000.0, 1.0]])
    np.testing.assert_allclose(stats.normalise(returns, [50, 1], [1000, 5]), [[0, 1], [1, 0]])
    with pytest.raises(AnalysisError, match="does not lie above"):
        stats.normalise(returns, 10, 10)


def test_probability_of_improvement_by_hand():
    x, y = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 5.0], [0.0, 9.0], [3.0, 1.0]])
    # task 1: x=1 beats 0; x=3 beats 2 and 0, ties 3: 3.5 of 6; task 2: x=5 ties 5, loses to 9, beats 1, twice: 3 of 6
    assert stats.probability_of_improvement(x, y) == pytest.approx((3.5 / 6 + 3 / 6) / 2)
    assert stats.probability_of_improvement(x, y) + stats.probability_of_improvement(y, x) == pytest.approx(1)
    with pytest.raises(AnalysisError, match="same tasks"):
        stats.probability_of_improvement(x, y[:, :1])


def test_one_run_has_no_interval_and_says_so():
    interval = stats.bootstrap(np.array([[3.0, 5.0]]), stats.mean)
    assert interval.point == 4.0 and np.isnan([interval.low, interval.high]).all()
    assert interval.note == "1 run: no interval"
    assert np.isnan(stats.band(np.arange(2), np.array([[1.0, 2.0]])).low).all()


def test_few_runs_have_a_range_and_no_interval():
    few = stats.bootstrap(np.array([1.0, 2.0, 6.0]), stats.mean)
    assert few == stats.Interval(3.0, 1.0, 6.0, 3, "range of 3 runs")
    many = stats.bootstrap(np.array([1.0, 2.0, 6.0, 3.0, 3.0]), stats.mean)
    assert many.note == "" and 1 < many.low < 3 < many.high < 6
    several_tasks = stats.bootstrap(np.array([[1.0, 5.0], [2.0, 1.0], [6.0, 2.0]]), stats.mean)
    assert several_tasks.note == ""
    band = stats.band(np.arange(1), np.array([[1.0], [2.0], [3.0], [6.0]]))
    assert (band.low[0], band.high[0]) == (1, 6)


def test_equal_returns_give_an_interval_of_width_zero():
    interval = stats.bootstrap(np.full((5, 2), 7.0))
    assert (interval.point, interval.low, interval.high, interval.note) == (7.0, 7.0, 7.0, "")


def test_bootstrap_is_stratified_and_seeded():
    scores = np.array([[0.0, 1000.0], [0.0, 1000.0], [0.0, 1000.0]])  # all variance lies between the tasks
    assert stats.bootstrap(scores, stats.mean) == stats.Interval(500.0, 500.0, 500.0, 3)
    noisy = np.random.default_rng(0).normal(size=(6, 3))
    assert stats.bootstrap(noisy, seed=3) == stats.bootstrap(noisy, seed=3) != stats.bootstrap(noisy, seed=4)


def test_chunks_do_not_change_the_result(monkeypatch):
    noisy = np.random.default_rng(0).normal(size=(6, 3))
    whole = stats.bootstrap(noisy, stats.mean, repetitions=100)
    monkeypatch.setattr(stats, "CHUNK", 1)
    parts = stats.bootstrap(noisy, stats.mean, repetitions=100)
    assert parts.point == whole.point and parts.low == pytest.approx(whole.low, abs=0.2)


@pytest.mark.parametrize("statistic", [stats.mean, stats.iqm])
def test_intervals_cover_the_truth_about_as_often_as_they_say(statistic):
    """Within 3 points of 95 % at 20 runs; benchmarks/README.md has fewer runs and less friendly scores."""
    rng = np.random.default_rng(1)
    hits = 0
    for number in range(1000):
        scores = rng.normal([1.0, 3.0], 1.0, (20, 2))  # both statistics have the expectation 2, by symmetry
        interval = stats.bootstrap(scores, statistic, repetitions=400, seed=number)
        hits += interval.low <= 2.0 <= interval.high
    assert 920 <= hits <= 980


@pytest.mark.parametrize(
    ("scores", "problem"), [([[1.0, np.nan]], "run 0 on task 1 is nan"), ([], "shape"), (np.zeros((2, 2, 2)), "shape")]
)
def test_scores_that_are_none(scores, problem):
    with pytest.raises(AnalysisError, match=problem):
        stats.bootstrap(np.array(scores))


def test_align_interpolates_inside_the_range_that_all_share():
    x, curves = stats.align([(np.array([0, 10, 20]), np.array([0, 10, 20])), (np.array([5, 15]), np.array([1.0, 2.0]))])
    np.testing.assert_allclose(x, [5, 10, 15])
    np.testing.assert_allclose(curves, [[5, 10, 15], [1, 1.5, 2]])


def test_band_ignores_what_is_missing_and_needs_two_curves():
    curves = np.array([[1.0, 1.0, 1.0], [3.0, 3.0, np.nan], [5.0, np.nan, np.nan]])
    band = stats.band(np.arange(3), curves)
    np.testing.assert_allclose(band.mean, [3, 2, 1])
    np.testing.assert_array_equal(band.count, [3, 2, 1])
    assert band.low[0] < 3 < band.high[0] and (band.low[1], band.high[1]) == (1, 3)
    assert np.isnan([band.low[2], band.high[2]]).all()


def test_optimality_gap_by_hand():
    scores = np.array([[0.5, 2.0], [0.25, 1.0]])  # short by 0.5, 0, 0.75, 0
    assert stats.optimality_gap(scores) == pytest.approx(1.25 / 4)
    assert stats.optimality_gap(scores, target=2.0) == pytest.approx((1.5 + 0 + 1.75 + 1) / 4)
    assert stats.bootstrap(np.tile(scores, (5, 1)), stats.optimality_gap).point == pytest.approx(1.25 / 4)


def test_improvement_has_an_interval():
    rng = np.random.default_rng(0)
    better, worse = rng.normal(1, 1, (8, 3)), rng.normal(0, 1, (6, 3))
    found = stats.bootstrap_improvement(better, worse)
    assert found.point == stats.probability_of_improvement(better, worse)
    assert 0.5 < found.low < found.point < found.high < 1 and found.runs == 6
    assert stats.bootstrap_improvement(better + 100, worse).low == 1.0
    assert stats.bootstrap_improvement(better[:1], worse).note == "1 run: no interval"
    few = stats.bootstrap_improvement(better[:, 0], worse[:3, 0])
    assert np.isnan(few.low) and few.note == "3 runs: no interval"


def test_profile_by_hand():
    scores = np.array([[0.0, 0.5], [0.5, 1.0], [1.0, 1.0]])
    profile = stats.performance_profile(scores, np.array([-1.0, 0.0, 0.5, 1.0]))
    np.testing.assert_allclose(profile.mean, [1, 5 / 6, 3 / 6, 0])  # above, not at
    assert (profile.low <= profile.mean).all() and (profile.mean <= profile.high).all()
    assert profile.low[0] == profile.high[0] == 1 and profile.low[1] < 5 / 6
    assert np.isnan(stats.performance_profile(scores[:1], np.array([0.3])).low).all()
    with pytest.raises(AnalysisError, match="thresholds should be"):
        stats.performance_profile(scores, np.zeros((2, 2)))


def test_area_by_hand():
    steps = np.array([0, 10, 30])
    curve = np.array([0.0, 1.0, 1.0])
    assert stats.area(steps, curve) == pytest.approx((5 + 20) / 30)
    assert stats.area(steps, curve, end=5) == pytest.approx(0.25)
    assert stats.area(steps, curve, start=5, end=20) == pytest.approx((5 * 0.75 + 10) / 15)
    curves = np.stack([curve, 2 * curve])[:, None]  # (runs, tasks, P)
    np.testing.assert_allclose(stats.area(steps, curves), [[25 / 30], [50 / 30]])
    assert np.isnan(stats.area(steps, curve * np.nan, end=10))
    with pytest.raises(AnalysisError, match="not inside the steps 0 to 30"):
        stats.area(steps, curve, end=31)
    with pytest.raises(AnalysisError, match="rising steps"):
        stats.area(steps[::-1], curve)
