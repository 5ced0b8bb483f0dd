"""mbrl_pvr: what do pretrained visual representations do for model-based reinforcement learning?

Every command is also a call that returns data: `mbrl_pvr.train(["encoder=embedded", "seed=1"])`, `evaluate`, `ood`,
`record`, `analyze`, `resume`, `pretrain`. They import torch and simulators only when called.
"""

from mbrl_pvr.api import analyze, evaluate, ood, pretrain, record, resume, train

__version__ = "0.1.0"
__all__ = ["__version__", "analyze", "evaluate", "ood", "pretrain", "record", "resume", "train"]
