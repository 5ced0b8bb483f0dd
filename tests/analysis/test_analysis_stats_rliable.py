"""Our statistics beside those of rliable: against stored numbers, and against the package where RLIABLE names a virtual
environment that has it (see `rliable_golden.py`, which made the stored numbers).
"""

import json
import os
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from analysis import stats

HERE = Path(__file__).parent
STORED = HERE / "golden" / "rliable.json"
PYTHON = Path(os.environ.get("RLIABLE", "")) / "bin" / "python"
CASES = ("smooth", "tied")
STATISTICS = {
    "mean": stats.mean,
    "median": stats.median,
    "iqm": stats.iqm,
    "optimality_gap": stats.optimality_gap,
}


def live():
    if "RLIABLE" not in os.environ:
        pytest.skip("RLIABLE does not name a virtual environment with rliable 1.2.0")
    return PYTHON


@pytest.fixture(scope="module", params=["stored", "live"])
def theirs(request, tmp_path_factory):
    if request.param == "stored":
        return json.loads(STORED.read_text())["cases"]
    out = tmp_path_factory.mktemp("rliable") / "made.json"
    subprocess.run([live(), HERE / "rliable_golden.py", out], check=True, env={"PATH": os.environ["PATH"]})
    assert json.loads(out.read_text())["cases"] == json.loads(STORED.read_text())["cases"]
    return json.loads(out.read_text())["cases"]


def agree(ours: stats.Interval, theirs: dict) -> None:
    """Points to rounding; ends of intervals to the noise of 2000 draws on their side, a tenth of the width."""
    assert ours.point == pytest.approx(theirs["point"], abs=1e-12)
    width = theirs["high"] - theirs["low"]
    assert width > 0
    assert ours.low == pytest.approx(theirs["low"], abs=0.1 * width)
    assert ours.high == pytest.approx(theirs["high"], abs=0.1 * width)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_intervals(theirs, name, statistic):
    case = theirs[name]
    agree(stats.bootstrap(np.array(case["x"]), STATISTICS[statistic], repetitions=10_000), case[statistic])


@pytest.mark.parametrize("name", CASES)
def test_probability_of_improvement(theirs, name):
    case = theirs[name]
    ours = stats.bootstrap_improvement(np.array(case["x"]), np.array(case["y"]), repetitions=10_000)
    agree(ours, case["probability_of_improvement"])


@pytest.mark.parametrize("name", CASES)
def test_performance_profile(theirs, name):
    case = theirs[name]
    profile = case["profile"]
    ours = stats.performance_profile(np.array(case["x"]), np.array(profile["thresholds"]), repetitions=10_000)
    np.testing.assert_allclose(ours.mean, profile["mean"], atol=1e-12)
    near = partial(np.testing.assert_allclose, atol=1.01 / np.size(case["x"]))  # shares move in steps of one score
    near(ours.low, profile["low"])
    near(ours.high, profile["high"])
