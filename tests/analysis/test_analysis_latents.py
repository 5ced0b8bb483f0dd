"""Numbers of latent spaces: planted structure is found, absent structure is not."""

import tracemalloc

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


def test_more_points_than_are_compared(clusters, monkeypatch):
    """Numbers of a random part of the points are those of all, roughly, and the search in blocks changes nothing."""
    points, reward = clusters
    noise = np.random.default_rng(0).normal(size=(600, 5))
    mixed = noise[:, 0] + np.random.default_rng(1).normal(0, 0.5, 600)
    whole = latents.reward_purity(noise, mixed), latents.trustworthiness(noise, noise[:, :2])
    monkeypatch.setattr(latents, "BLOCK_MB", 0.01)
    assert latents.reward_purity(noise, mixed) == whole[0]
    monkeypatch.setattr(latents.thinned, "__defaults__", (200, 0))
    assert len(latents.thinned(600)) == 200 and len(latents.thinned(150)) == 150
    assert latents.reward_purity(noise, mixed).value == pytest.approx(whole[0].value, abs=0.05)
    assert latents.trustworthiness(noise, noise[:, :2]) == pytest.approx(whole[1], abs=0.05)
    assert latents.reward_purity(points, reward).value == 1.0


def test_neighbours_are_those_of_a_plain_search():
    points = np.random.default_rng(0).normal(size=(120, 4))
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distance, np.inf)
    queries = np.array([3, 50, 119])
    near = latents._neighbours(points, 6, queries, None)
    np.testing.assert_array_equal(np.sort(near), np.sort(np.argsort(distance)[queries, :6]))
    episode = np.arange(120) // 60
    other = latents._neighbours(points, 6, queries, episode)
    assert (episode[other] != episode[queries][:, None]).all()
    alone = latents._neighbours(points, 6, queries, np.zeros(120))
    assert (alone == -1).all()


def test_silhouette_of_clusters_and_of_noise(clusters):
    points, reward = clusters
    assert latents.silhouette(points, reward) > 0.9
    assert latents.silhouette(points, np.random.default_rng(0).permutation(reward)) == pytest.approx(0, abs=0.05)
    assert np.isnan(latents.silhouette(points, np.zeros(180)))


@pytest.mark.parametrize("count", [300, 20_000])  # by the points themselves, and by their Gram matrix
def test_ranks_of_planted_spaces(count):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    ball = rng.normal(size=(count, 12)).astype(np.float32)
    plane = ball[:, :3] @ basis[:3]
    assert latents.effective_rank(ball) == pytest.approx(12, rel=0.02)
    assert latents.effective_rank(plane) == pytest.approx(3, rel=0.02)
    assert latents.effective_rank(plane[:, :1] * np.ones(12)) == pytest.approx(1, abs=1e-3)
    assert latents.rankme(ball) == pytest.approx(12, rel=0.02)
    far = plane + 1000 * basis[5]  # RankMe sees where the space lies
    assert latents.effective_rank(far) == pytest.approx(3, rel=0.02) and latents.rankme(far) < 1.1
    assert np.isnan([latents.effective_rank(ball * 0), latents.rankme(ball * 0)]).all()
    shares = np.array([0.5, 0.25, 0.25])  # by hand: exp(0.5 ln 2 + 0.5 ln 4)
    exact = np.vstack([np.diag(shares), -np.diag(shares)])
    assert latents.effective_rank(exact) == pytest.approx(2**1.5)
    assert latents.rankme(exact) == pytest.approx(2**1.5, rel=1e-5)


def test_both_ways_to_the_principal_axes_agree(monkeypatch):
    points = np.random.default_rng(0).normal(size=(3000, 6)) * [5, 4, 3, 2, 1, 0.5] + 100
    plain = latents.principal_axes(points)
    monkeypatch.setattr(latents, "ROWS", 700)
    gram = latents.principal_axes(points)
    np.testing.assert_allclose(gram.axes, plain.axes, atol=1e-9)
    np.testing.assert_allclose(gram.share, plain.share)
    np.testing.assert_allclose(gram.scores(points), plain.scores(points), atol=1e-6)


def test_pairs_share_their_axes():
    """Points out of distribution lie along a direction that those inside do not have: only a joint fit shows it."""
    rng = np.random.default_rng(0)
    inside = rng.normal(size=(400, 6)) * [3, 2, 0.1, 0.1, 0.1, 0.1]
    outside = inside + np.array([0, 0, 0, 20, 0, 0])
    on_inside, joint = latents.pca_pair(inside, outside), latents.pca_pair(inside, outside, joint=True)
    assert (on_inside.fit, joint.fit) == ("inside", "joint")
    assert np.abs(on_inside.inside - on_inside.outside).max() < 1.5
    gap = np.abs(joint.inside.mean(axis=0) - joint.outside.mean(axis=0))
    assert gap.max() == pytest.approx(20, abs=0.5)
    np.testing.assert_allclose(on_inside.inside, latents.pca(inside)[0])
    for pair in (on_inside, joint):
        both = np.concatenate([pair.inside, pair.outside])
        for (low, high), values in zip(pair.limits, both.T, strict=True):
            assert low < values.min() and values.max() < high


@pytest.mark.slow
def test_umap_of_pairs(clusters):
    """Slow for compiling `transform`."""
    points, reward = clusters
    away = points + np.where(reward[:, None] == 0, 200.0, 0.0)  # the first cluster goes where none was
    on_inside, joint = latents.umap_pair(points, away), latents.umap_pair(points, away, joint=True)
    np.testing.assert_array_equal(on_inside.inside, latents.umap(points))
    assert on_inside.outside.shape == (180, 2) and np.isfinite(on_inside.outside).all()
    (left, right), (low, high) = on_inside.limits
    size = np.ptp(on_inside.inside, axis=0)
    assert right - left < 1.5 * size[0] and high - low < 1.5 * size[1]  # transform pulls them onto what it knows

    def apart(pair, label):
        """Distance of a cluster's two looks, in widths of the cluster inside."""
        a, b = pair.inside[reward == label], pair.outside[reward == label]
        return np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) / a.std(axis=0).mean()

    assert apart(joint, 0) > 4 and apart(joint, 1) < 1 and apart(on_inside, 1) < 1


def test_description_of_a_space(clusters):
    points, reward = clusters
    episode = np.arange(180) % 6
    points = np.vstack([points, np.full((1, 20), np.nan)])
    found = latents.describe(points, np.append(reward, 0.0), np.append(episode, 0))
    assert found.points == found.queries == 180
    assert found.purity.value == found.purity_other_episodes.value == 1.0
    assert found.silhouette > 0.9 and 1 < found.effective_rank < 20 and 1 < found.rankme < 20


@pytest.mark.slow
def test_100_000_points():
    """The numbers of a large space in bounded memory; slow for the search of neighbours."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(100_000, 64)).astype(np.float32)
    reward = points[:, 0] + 0
    points[:, 0] *= 30
    tracemalloc.start()
    found = latents.describe(points, reward, np.arange(100_000) // 500)
    scores, share = latents.pca(points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.points == 100_000 and found.queries == latents.MAX_QUERIES
    assert found.purity.value > 0.6 > 0.3 > found.purity.chance and share[0] > 0.9
    assert latents.trustworthiness(points, scores) > 0.6
    assert peak < 2**30  # all pairs would be 75 GiB
