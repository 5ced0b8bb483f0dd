"""Pictures of what an agent will see."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.shifts import Look, split_indices
from mbrl_pvr.envs.vector import make


def contact_sheet(
    config: EnvConfig,
    families: tuple[str, ...] = ("color_easy", "color_hard"),
    severities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    *,
    split: str = "held_out",
    columns: int = 6,
    seed: int = 0,
    steps: int = 10,
) -> NDArray:
    """One state of a task under many looks: a row per (family, severity), a column per palette of `split`.

    (rows·size, columns·size, 3) uint8; the state is `steps` random actions after a reset.
    """
    indices = split_indices(split)[:columns]
    looks = [Look(family, i, s, config.factors) for family in families for s in severities for i in indices]
    with make(replace(config, pixels=True), num=1, seed=seed, stream="preview") as envs:
        envs.reset()
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            envs.step(rng.uniform(-1, 1, (1, envs.action_spec.dim)))
        frames = envs.call("frames_of", looks)[0]
    rows = frames.reshape(-1, len(indices), *frames.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
