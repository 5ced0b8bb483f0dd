"""mbrl_pvr: what do pretrained visual representations do for model-based reinforcement learning?"""

__version__ = "0.1.0"
