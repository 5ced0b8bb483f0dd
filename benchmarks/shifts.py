"""What a shift costs over rendering, measured side by side: `python benchmarks/shifts.py [--size 64] [--render fast]`.

One dm_control scene in this process; a round draws every variant once, in turn, so that other load falls on all alike.
The first frame of an episode, which paints textures, is timed apart. Medians; ratios are what may be quoted.
"""

import argparse
import time

import numpy as np
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.registry import build_env

SHIFTS = ("study", "color_hard", "distracting_hard", "size", "light_color", "camera_pose", "distractors", "video")
SHIFTS += ("noise", "blur", "compression", "brightness")
ROUNDS = 40


def main() -> None:
    """Print a row for each shift."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="dmc/walker-walk")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--render", default="standard")
    args = parser.parse_args()
    made = {}
    for shift in ("none", *SHIFTS):
        made[shift] = build_env(EnvConfig(name=args.env, size=args.size, render=args.render, shifts=shift))
        made[shift].begin(SeedSequence(1))
        made[shift].picture()  # compiles, makes textures
    first, later = ({shift: [] for shift in made} for _ in range(2))
    for episode in range(ROUNDS // 10):
        for shift, env in made.items():
            env.begin(SeedSequence((2, episode)))
            first[shift].append(_seconds(env))
        for _ in range(10):
            for shift, env in made.items():
                env.act(np.zeros(env.action_spec.dim, np.float32))
                later[shift].append(_seconds(env))
    print(f"{args.env}, {args.size} pixels, {args.render}: median ms of a frame, and over no shift")
    plain = float(np.median(later["none"]))
    for shift in made:
        ms, once = float(np.median(later[shift])), float(np.median(first[shift]))
        print(f"{shift:20s} {1e3 * ms:7.2f}  x{ms / plain:4.2f}   first of an episode {1e3 * once:7.1f}")


def _seconds(env) -> float:
    start = time.perf_counter()
    env.picture()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
