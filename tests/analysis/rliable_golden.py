"""Writes the numbers of rliable 1.2.0 that `test_analysis_stats_rliable.py` compares with:

    $RLIABLE/bin/python tests/analysis/rliable_golden.py OUT.json

$RLIABLE is a virtual environment of its own with `pip install rliable==1.2.0`, an archived package (Apache-2.0) that
must not sit beside ours. The scores are drawn here and written along, so that both sides see the same.
"""

import json
import sys

import numpy as np
from rliable import library, metrics

REPETITIONS = 2000
THRESHOLDS = np.linspace(0.0, 1.2, 7)


def interval(scores, statistic):
    """Point and percentile interval of one statistic; `scores` is an array, or a pair of them."""
    np.random.seed(0)
    points, ends = library.get_interval_estimates(
        {"it": scores}, lambda *args: np.array([statistic(*args)]), reps=REPETITIONS
    )
    return {"point": float(points["it"][0]), "low": float(ends["it"][0, 0]), "high": float(ends["it"][1, 0])}


def case(x, y):
    """Everything that rliable and `analysis.stats` both compute, of two algorithms."""
    np.random.seed(0)
    profiles, bands = library.create_performance_profile({"it": x}, THRESHOLDS, reps=REPETITIONS)
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "mean": interval(x, metrics.aggregate_mean),
        "median": interval(x, metrics.aggregate_median),
        "iqm": interval(x, metrics.aggregate_iqm),
        "optimality_gap": interval(x, metrics.aggregate_optimality_gap),
        "probability_of_improvement": interval((x, y), metrics.probability_of_improvement),
        "profile": {
            "thresholds": THRESHOLDS.tolist(),
            "mean": profiles["it"].tolist(),
            "low": bands["it"][0].tolist(),
            "high": bands["it"][1].tolist(),
        },
    }


def main(path):
    """Two cases: even numbers of runs with scores up to above 1, and uneven ones with many ties."""
    rng = np.random.default_rng(0)
    smooth = rng.beta(2, 2, (10, 6)) * 1.2, rng.beta(2, 3, (8, 6))
    tied = np.round(rng.uniform(0, 1, (7, 3)), 1), np.round(rng.uniform(0, 1, (5, 3)), 1)
    cases = {"smooth": case(*(a.round(6) for a in smooth)), "tied": case(*tied)}
    with open(path, "w") as file:
        file.write(json.dumps({"rliable": "1.2.0", "repetitions": REPETITIONS, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
