"""TD-MPC2: Scalable, Robust World Models for Continuous Control (Hansen, Su, Wang 2024, arXiv 2310.16828)."""
