"""Numbers of latent spaces: planted structure is found, absent structure is not."""

import numpy as np
import pytest

from analysis import AnalysisError, latents


@pytest.fixture
def clusters():
    """Three tight clusters in 20 dimensions, and the reward of each."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 10, (3, 20))
    label = np.repeat([0, 1, 2], 60)
    return centres[label] + rng.normal(0, 0.3, (180, 20)), label.astype(float)


def test_purity_of_clusters_and_of_noise(clusters):
    points, reward = clusters
    found = latents.reward_purity(points, reward)
    assert found.value == 1.0 and found.chance == pytest.approx(1 / 3) and found.bins == 3
    shuffled = latents.reward_purity(points, np.random.default_rng(1).permutation(reward))
    assert shuffled.value == pytest.approx(shuffled.chance, abs=0.05)
    noise = np.random.default_rng(2).normal(size=(600, 20))
    absent = latents.reward_purity(noise, np.random.default_rng(3).normal(size=600))
    assert absent.bins == 5 and absent.value == pytest.approx(0.2, abs=0.03)


def test_purity_can_leave_out_neighbours_in_time():
    """Two episodes wander far apart, with rewards that only neighbours in time share."""
    rng = np.random.default_rng(0)
    points = np.cumsum(rng.normal(size=(2, 300, 10)), axis=1).reshape(600, 10)
    reward = np.repeat(rng.normal(size=60), 10)
    episode = np.repeat([0, 1], 300)
    near, other = latents.reward_purity(points, reward), latents.reward_purity(points, reward, episode)
    assert near.value > near.chance + 0.15
    assert other.value == pytest.approx(other.chance, abs=0.12)


def test_constant_reward_has_no_purity(clusters):
    purity = latents.reward_purity(clusters[0], np.ones(180))
    assert np.isnan([purity.value, purity.chance]).all() and purity.bins == 1


def test_mostly_zero_reward_makes_two_bins(clusters):
    reward = np.where(np.arange(180) < 150, 0.0, 1.0)
    purity = latents.reward_purity(clusters[0], reward)
    assert purity.bins in (1, 2)
    reward = np.where(np.arange(180) < 120, 0.0, 1.0)  # the last cluster
    assert latents.reward_purity(clusters[0], reward) == latents.Purity(1.0, pytest.approx(5 / 9), 2)


def test_trustworthiness_of_a_faithful_and_of_a_random_picture():
    line = np.random.default_rng(0).normal(size=(200, 2)) @ np.random.default_rng(1).normal(size=(2, 30))
    assert latents.trustworthiness(line, latents.pca(line)[0]) > 0.99
    assert latents.trustworthiness(line, np.random.default_rng(2).normal(size=(200, 2))) == pytest.approx(0.5, abs=0.06)


def test_pca_by_hand():
    points = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 100
    scores, share = latents.pca(points)
    np.testing.assert_allclose(share, [0.9, 0.1])
    np.testing.assert_allclose(np.abs(scores), [[3, 0], [3, 0], [0, 1], [0, 1]], atol=1e-12)
    np.testing.assert_array_equal(latents.pca(points)[0], scores)
    assert latents.pca(np.ones((5, 3)))[1].tolist() == [0, 0]


def test_constant_latents_are_known_also_behind_rounding():
    rng = np.random.default_rng(0)
    one = np.full((300, 8), 0.3, np.float32)
    rounded = one + rng.normal(0, 3e-8, one.shape)
    assert latents.is_constant(one) and latents.is_constant(rounded)
    two = np.where(np.arange(300)[:, None] % 2 == 0, one, 5.0)
    assert latents.is_constant(two) and not latents.is_constant(np.concatenate([two, one[:1] + 1]))
    assert not latents.is_constant(one + rng.normal(0, 1e-4, one.shape))
    one[0] = np.nan  # does not count
    assert latents.is_constant(one) and not latents.is_constant(one * np.nan)


def test_selection_drops_what_is_not_finite_and_thins_at_random():
    points, reward = np.random.default_rng(0).normal(size=(100, 3)), np.zeros(100)
    points[3, 1], reward[5] = np.nan, np.inf
    chosen = latents.select(points, reward, 50, seed=1)
    assert len(chosen.index) == 50 == len(set(chosen.index)) and chosen.dropped == 2 and chosen.total == 100
    assert not {3, 5} & set(chosen.index)
    np.testing.assert_array_equal(chosen.index, latents.select(points, reward, 50, seed=1).index)
    assert (chosen.index != latents.select(points, reward, 50, seed=2).index).any()
    assert len(latents.select(points, reward, 1000).index) == 98
    with pytest.raises(AnalysisError, match="0 of 100 latents are finite"):
        latents.select(points * np.nan, reward, 50)
