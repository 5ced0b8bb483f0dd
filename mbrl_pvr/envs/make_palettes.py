"""Draw the stored colour palettes anew: `python -m mbrl_pvr.envs.make_palettes > mbrl_pvr/envs/palettes.json`.

The ranges of the agent's colour are those of the DMControl Generalization Benchmark's easy and hard palettes, the
second floor colour is the first plus 0.1 as there; floor and background ranges and all values are our own.
"""

import json
from typing import Any

import numpy as np

COUNT = 100
SEED = 20261121
_CONTRAST = 0.25  # least distance in RGB between agent and floor, so that the agent can be seen
# family -> part -> (low, high) per channel
RANGES = {
    "color_easy": {
        "agent": ((0.42, 0.26, 0.08), (0.96, 0.68, 0.56)),
        "floor": ((0.0, 0.05, 0.1), (0.35, 0.45, 0.55)),
        "background": ((0.15, 0.35, 0.5), (0.65, 0.85, 1.0)),
    },
    "color_hard": {
        "agent": ((0.27, 0.0, 0.0), (1.0, 0.96, 0.76)),
        "floor": ((0.0, 0.0, 0.0), (0.9, 0.9, 0.9)),
        "background": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    },
}


def draw_palettes() -> dict[str, list[dict[str, Any]]]:
    """Every family's palettes, rounded to three digits."""
    rng = np.random.default_rng(SEED)
    return {family: [_draw(rng, ranges) for _ in range(COUNT)] for family, ranges in RANGES.items()}


def _draw(rng: np.random.Generator, ranges: dict) -> dict[str, Any]:
    while True:
        part = {name: rng.uniform(low, high).round(3) for name, (low, high) in ranges.items()}
        if np.linalg.norm(part["agent"] - part["floor"] - 0.05) >= _CONTRAST:
            break
    floor2 = (part["floor"] + 0.1).round(3)
    return {
        "agent": part["agent"].tolist(),
        "floor": [part["floor"].tolist(), floor2.tolist()],
        "background": part["background"].tolist(),
    }


if __name__ == "__main__":
    families = draw_palettes()
    rows = {family: ",\n".join("  " + json.dumps(row) for row in drawn) for family, drawn in families.items()}
    print("{\n" + ",\n".join(f' "{family}": [\n{text}\n ]' for family, text in rows.items()) + "\n}")
