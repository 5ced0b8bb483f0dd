"""Numbers as a LaTeX table: what LaTeX would stumble over is escaped, and intervals are joined."""

import numpy as np
import pandas as pd

from analysis.figures import latex


def test_a_table_to_the_letter():
    numbers = pd.DataFrame(
        {
            "series": ["vc1_vitb", r"50 % & $x^2$ \ {~}", "two\nlines"],
            "error": [0.25, -1.5, np.nan],
            "error_low": [0.2, np.nan, np.nan],
            "error_high": [0.3, np.nan, np.nan],
            "seeds": [3, 1, 2],
            "steps": [12345.6, 2e-6, np.inf],
        }
    )
    assert latex.table(numbers, "What is\ndrawn.", ["runs: a_b", ""]) == (
        "% What is drawn.\n% runs: a_b\n\\begin{tabular}{llrr}\n\\toprule\n"
        "series & error & seeds & steps \\\\\n\\midrule\n"
        "vc1\\_vitb & 0.25 [0.2, 0.3] & 3 & 12346 \\\\\n"
        "50 \\% \\& \\$x\\textasciicircum{}2\\$ \\textbackslash{} \\{\\textasciitilde{}\\} "
        "& $-1.5$ & 1 & $2\\cdot10^{-6}$ \\\\\n"
        "two lines & -- & 2 & -- \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_plain_ends_belong_to_the_mean():
    numbers = pd.DataFrame({"step": [10], "mean": [0.5], "low": [-0.1], "high": [1.0]})
    assert "10 & 0.5 [$-0.1$, 1] \\\\" in latex.table(numbers, "")
