"""mbrl_pvr: what do pretrained visual representations do for model-based reinforcement learning?

Every command is also a call that returns data: `mbrl_pvr.train(["encoder=embedded", "seed=1"])`, `resume`, `evaluate`,
`ood`, `record`, `analyze`, `report`, `make_bank`, `pretrain`, `embed`, `download_encoders`, `preview_env`,
`study_plan`, `study_run`, `study_status`, `study_export`, `study_claims`, `query`, `load_study`, and `list_banks`,
`list_encoders`, `list_envs`, `random_score`, `examine`; they live in `mbrl_pvr.api`.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "analyze",
    "download_encoders",
    "embed",
    "evaluate",
    "examine",
    "list_banks",
    "list_encoders",
    "list_envs",
    "load_study",
    "make_bank",
    "ood",
    "pretrain",
    "preview_env",
    "query",
    "random_score",
    "record",
    "report",
    "resume",
    "study_claims",
    "study_export",
    "study_plan",
    "study_run",
    "study_status",
    "train",
]


def __getattr__(name: str) -> Any:
    """The calls, on first use: environment workers import this package too, and must not depend on the learner."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'mbrl_pvr' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("mbrl_pvr.api"), name)
