"""What a shift costs over drawing a frame: `python benchmarks/shifts.py [--env dmc/walker-walk] [--size 64]`.

One environment in this process takes on one look after the other: every preset and factor that it can draw, and none,
in turns, so that other load falls on all alike. Of each turn the first frame, for which textures are painted and sent,
is timed apart: it comes once an episode. Processor time of this process, software renderers' threads included; medians
over turns; ratios are what may be quoted.
"""

import argparse
import os
import time

import numpy as np
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.base import FrameEnv
from mbrl_pvr.envs.offers import physical, presets, shifted
from mbrl_pvr.envs.registry import build_env
from mbrl_pvr.envs.shifts import Look, draw_look

ROUNDS, FRAMES = 12, 12  # turns of each look, and later frames in one
os.environ |= {"LP_NUM_THREADS": "1", "PYGLET_HEADLESS": "1"}  # as in the workers


def main() -> None:
    """Print a row for each shift."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="dmc/walker-walk")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--render", default="standard")
    args = parser.parse_args()
    repeat = 2 if args.env.startswith("dmc") else 1
    env = build_env(EnvConfig(args.env, action_repeat=repeat, size=args.size, render=args.render))
    able = (*presets(args.env), *shifted(args.env))
    shifts = [s for s in able if not physical(s, args.env) and not (s == "shadows" and args.render == "fast")]
    first, later = ({shift: [] for shift in ("none", *shifts)} for _ in range(2))
    for number in range(1 + ROUNDS):
        env.begin(SeedSequence((1, number)))
        for shift in first:
            look = Look() if shift == "none" else draw_look(SeedSequence((2, number)), shift, env=args.env)
            once, others = turn(env, look)
            if number:  # the first round compiles shaders and makes textures
                first[shift].append(once)
                later[shift] += others
    plain = float(np.median(later["none"]))
    print(f"{args.env}, {args.size} pixels{f', {args.render}' * (repeat == 2)}: {1e3 * plain:.1f} ms a frame\n")
    print("| shift | of a frame without shifts | first frame of an episode |\n|---|---|---|")
    for shift in shifts:
        ratios = [float(np.median(found[shift])) / plain for found in (later, first)]
        print(f"| `{shift}` | {ratios[0]:.2f} | {ratios[1]:.1f} |")


def turn(env: FrameEnv, look: Look) -> tuple[float, list[float]]:
    """Seconds of the first frame under a look, and of each later one; a step is made before each."""
    seconds = []
    env.look = look
    rest = np.zeros(env.action_spec.dim, np.float32)
    if env.action_spec.discrete:
        rest[0] = 1
    for _ in range(1 + FRAMES):
        if env._over:
            env.begin(SeedSequence(0))
            env.look = look
        env.act(rest)
        start = time.process_time()
        env.picture()
        seconds.append(time.process_time() - start)
    return seconds[0], seconds[1:]


if __name__ == "__main__":
    main()
