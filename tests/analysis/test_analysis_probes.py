"""Ridge probes: planted variables are read, absent ones are not, and scikit-learn finds the same weights."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from analysis import AnalysisError, probes


@pytest.fixture
def planted():
    """Features of 40 episodes of 50 steps that hold an angle, and half of a speed beside noise, but no charge."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(2000, 3))
    features = np.hstack([state[:, :2] * [1.0, 0.5], rng.normal(size=(2000, 18))]) @ rng.normal(size=(20, 30))
    targets = {
        "angle": 7 + 3 * state[:, 0],
        "speed": state[:, 1] + rng.normal(size=2000),
        "charge": state[:, 2],
    }
    return features.astype(np.float32), targets, np.arange(2000) // 50


def test_what_is_there_is_read_and_what_is_absent_is_not(planted):
    found = probes.probe(*planted)
    assert found["angle"].r2.point > 0.999 and found["angle"].r2.low > 0.99
    assert found["speed"].r2.point == pytest.approx(0.5, abs=0.1)
    assert found["speed"].r2.low < 0.5 < found["speed"].r2.high
    assert abs(found["charge"].r2.point) < 0.05
    assert found["charge"].penalty > found["speed"].penalty >= found["angle"].penalty
    assert found["angle"].r2.runs == 10  # of 40 episodes


def test_scikit_learn_agrees(planted, monkeypatch):
    features, targets, episode = planted
    monkeypatch.setattr(probes, "PENALTIES", np.array([0.3]))
    found = probes.probe(features, targets, episode)
    train = np.isin(episode, probes.split_episodes(episode).train)
    x = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    for name, values in targets.items():
        ridge = Ridge(alpha=0.3 * train.sum()).fit(x[train], values[train])
        assert found[name].r2.point == pytest.approx(r2_score(values[~train], ridge.predict(x[~train])), abs=1e-5)


def test_errors_from_sums_are_those_of_points(planted):
    features, targets, _ = planted
    y = targets["speed"][:, None]
    centre, scale = probes._standard(features)
    a, b = (probes._gram(features[part], y[part], centre, scale) for part in (slice(0, 1500), slice(1500, None)))
    weights, bias = probes._solve(a)
    x = probes._standardised(features[1500:], centre, scale)
    wanted = [np.sum((y[1500:] - x @ w - c) ** 2) for w, c in zip(weights, bias, strict=True)]
    np.testing.assert_allclose(probes._errors(a, b)[:, 0], wanted, rtol=1e-6)
    np.testing.assert_allclose((a + b - b).xx, a.xx, atol=1e-6)


def test_more_entries_than_points():
    """A wide feature is not read by heart: the penalty comes from other episodes."""
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(120, 400)), rng.normal(size=120)
    found = probes.probe(features, {"noise": noise}, np.arange(120) // 6)
    assert found["noise"].r2.point < 0.1 and found["noise"].penalty >= 1


def test_episodes_are_not_split():
    """Features that name their episode tell its level, which a split by steps would take for knowledge."""
    rng = np.random.default_rng(0)
    episode = np.arange(1000) // 50
    features = np.eye(20)[episode] + rng.normal(0, 0.01, (1000, 20))
    level = rng.normal(size=20)[episode] + rng.normal(0, 0.1, 1000)
    assert probes.probe(features, {"level": level}, episode)["level"].r2.point < 0.2
    split = probes.split_episodes(episode)
    assert len(split.test) == 5 and len(split.train) == 15 and not set(split.test) & set(split.train)
    assert (probes.split_episodes(episode, seed=1).test != split.test).any()


def test_what_cannot_be_scored(planted):
    features, targets, episode = planted
    found = probes.probe(features, {"still": np.full(2000, 3.3), **targets}, episode)
    assert np.isnan(found["still"].r2.point) and "does not vary" in found["still"].r2.note
    assert found["angle"].r2.point > 0.999
    four = episode < 4
    few = probes.probe(features[four], {"angle": targets["angle"][four]}, episode[four])["angle"]
    assert few.r2.note == "1 episode held out: no interval" and np.isnan(few.r2.low)
    broken = features.copy()
    broken[:50] = np.nan
    assert probes.probe(broken, targets, episode)["angle"].r2.point > 0.999
    with pytest.raises(AnalysisError, match="2 episodes: a probe needs"):
        probes.probe(features[:100], {"angle": targets["angle"][:100]}, episode[:100])
    with pytest.raises(AnalysisError, match="a probe needs"):
        probes.probe(features[:10], targets, episode)


def test_constant_entries_do_no_harm(planted):
    features, targets, episode = planted
    dead = np.hstack([features, np.full((2000, 3), 12.0), np.zeros((2000, 2))])
    plain, more = probes.probe(features, targets, episode), probes.probe(dead, targets, episode)
    assert more["speed"].r2.point == pytest.approx(plain["speed"].r2.point, abs=1e-6)
