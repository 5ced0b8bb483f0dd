"""TD-MPC2: Scalable, Robust World Models for Continuous Control (Hansen, Su, Wang 2024, arXiv 2310.16828).

`TDMPC2Config` imports without torch; the agent is in `world_models.tdmpc2.agent`.
"""

from world_models.tdmpc2.config import TDMPC2Config

__all__ = ["TDMPC2Config"]
