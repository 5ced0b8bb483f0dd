"""Drift between paired points: planted shifts are measured, absent ones are not."""

import numpy as np
import pytest

from analysis import AnalysisError
from analysis.drift import drift


@pytest.fixture
def clean():
    """400 points of ten trajectories, and the trajectory of each."""
    return np.random.default_rng(0).normal(size=(400, 8)) * 3 + 5, np.arange(400) // 40


def test_no_shift_is_no_drift(clean):
    found = drift(clean[0], clean[0], clean[1])
    assert (found.relative.point, found.relative.low, found.relative.high) == (0, 0, 0)
    assert found.cka == pytest.approx(1) and np.isnan(found.offset) and found.pairs == 400


def test_unrelated_points_are_one_apart(clean):
    points, trajectory = clean
    found = drift(points, np.random.default_rng(1).permutation(points), trajectory)
    assert found.relative.point == pytest.approx(1, abs=0.05) and found.relative.low < 1 < found.relative.high
    assert found.cka < 0.1 and found.offset < 0.01


def test_a_constant_offset_is_told_apart(clean):
    points, trajectory = clean
    found = drift(points, points + 6.0, trajectory)
    assert found.relative.point == pytest.approx(36 * 8 / (2 * points.var(axis=0).sum()))
    assert found.offset == pytest.approx(1) and found.cka == pytest.approx(1)
    noisy = drift(points, points + np.random.default_rng(0).normal(0, 1.0, points.shape), trajectory)
    assert noisy.relative.point == pytest.approx(8 / (2 * points.var(axis=0).sum()), rel=0.1) and noisy.offset < 0.02


def test_numbers_drift_too(clean):
    value = clean[0][:, 0]
    found = drift(value, -0.5 * value, clean[1])
    assert found.cka == pytest.approx(1)
    away = drift(value, np.full(400, value.mean()), clean[1])
    assert away.relative.point == pytest.approx(0.5) and np.isnan(away.cka)


def test_trajectories_make_the_interval(clean):
    points, trajectory = clean
    moved = points + np.where(trajectory[:, None] < 5, 3.0, 0.0)  # half of the trajectories are shifted
    found = drift(points, moved, trajectory).relative
    narrow = drift(points, moved, np.arange(400)).relative  # as if steps were independent
    assert found.runs == 10 and found.high - found.low > 3 * (narrow.high - narrow.low)
    few = drift(points, moved, trajectory // 5).relative
    assert np.isnan(few.low) and few.note == "2 trajectories: no interval"


def test_pairs_that_are_none(clean):
    points, trajectory = clean
    broken = points.copy()
    broken[7, 2] = np.nan
    assert drift(points, broken, trajectory).pairs == 399
    with pytest.raises(AnalysisError, match="equal shapes"):
        drift(points, points[:, :3], trajectory)
    with pytest.raises(AnalysisError, match="do not vary"):
        drift(np.ones((9, 2)), np.zeros((9, 2)), np.arange(9))
