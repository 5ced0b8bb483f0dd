"""Groups of encoders by property: a planted advantage out of distribution is found there and nowhere else."""

import numpy as np
import pytest

from analysis import AnalysisError, stats
from analysis.properties import by_property


@pytest.fixture
def planted():
    """Six encoders with five runs on three tasks; ViTs lose 0.1 out of distribution and the others 0.4."""
    rng = np.random.default_rng(0)
    encoder = [name for name in "abcdef" for _ in range(5)]
    vit = np.array([name in "abc" for name in encoder])
    language = np.array([name in "ad" for name in encoder])
    inside = 0.7 + rng.normal(0, 0.05, (30, 3))
    outside = inside - np.where(vit, 0.1, 0.4)[:, None]
    return inside, outside, encoder, {"vit": vit, "language": language}


def test_a_planted_property_is_found(planted):
    found = by_property(*planted)
    assert list(found) == ["vit", "language"]
    vit, language = found["vit"], found["language"]
    assert vit.inside.point == stats.iqm(planted[0][:15]) and vit.inside.low < 0.7 < vit.inside.high
    assert vit.outside.point == pytest.approx(0.6, abs=0.02) and vit.encoders == 3 and vit.outside.runs == 15
    assert vit.better_outside.point > 0.99 and vit.better_inside.point == pytest.approx(0.5, abs=0.1)
    assert language.better_outside.low < 0.5 < language.better_outside.high and language.encoders == 2


def test_properties_of_all_and_of_none(planted):
    *scores, _ = planted
    found = by_property(*scores, {"all": np.ones(30, bool), "none": np.zeros(30, bool)})
    assert list(found) == ["all"] and np.isnan(found["all"].better_inside.point)
    assert found["all"].better_inside.note == "all runs have it"


def test_properties_that_do_not_fit(planted):
    inside, outside, encoder, properties = planted
    with pytest.raises(AnalysisError, match="one bool per run"):
        by_property(inside, outside, encoder, {"vit": np.ones(30)})
    torn = properties["vit"].copy()
    torn[0] = False
    with pytest.raises(AnalysisError, match="encoder 'a' differ in the property 'vit'"):
        by_property(inside, outside, encoder, {"vit": torn})
    with pytest.raises(AnalysisError, match=r"\(30, 2\)"):
        by_property(inside, outside[:, :2], encoder, properties)
