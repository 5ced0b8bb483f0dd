"""Arrays and run folders in; numbers and figures out. Knows no torch, no simulator and none of our other packages.

`load_runs` reads run folders, `analyze` makes every figure whose inputs exist, `write_report` puts all of them into one
HTML page. The parts work on plain arrays and
tables from any code base: `analysis.stats`, `analysis.dynamics`, `analysis.rewards`, `analysis.latents`,
`analysis.figures.*` (see README.md).
"""

from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.pipeline import Report, analyze
    from analysis.records import Latents
    from analysis.report.page import Made, write_report
    from analysis.runs import Run, load_runs

__all__ = ["AnalysisError", "Latents", "Made", "Report", "Run", "analyze", "load_runs", "write_report"]

_HOME = {
    "analyze": "analysis.pipeline",
    "Report": "analysis.pipeline",
    "write_report": "analysis.report.page",
    "Made": "analysis.report.page",
    "load_runs": "analysis.runs",
    "Run": "analysis.runs",
    "Latents": "analysis.records",
}


def __getattr__(name: str) -> Any:
    """Import pandas and matplotlib only when something that needs them is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
