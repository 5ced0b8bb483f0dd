"""Make the encoder that ships with pvr_zoo: python tools/make_embedded.py

The study's five dm_control tasks and Pendulum-Swingup, each under its original look and under the training looks of the
two colour families; all frames are rendered by dm_control.
"""

import argparse
from pathlib import Path

from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.pretraining import autoencoder
from mbrl_pvr.process import keep_freed_memory, set_threads

TASKS = (
    "dmc/cartpole-swingup",
    "dmc/cheetah-run",
    "dmc/ball_in_cup-catch",
    "dmc/finger-spin",
    "dmc/walker-walk",
    "dmc/pendulum-swingup",
)
LOOKS = ("none", "color_easy", "color_hard")


def main() -> None:
    """Parse, train, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1600, help="per task and look")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("pvr_zoo/data/embedded.safetensors"))
    args = parser.parse_args()
    set_threads(args.threads)
    keep_freed_memory()
    tasks = [EnvConfig(name=name, render="fast", shifts=look) for name in TASKS for look in LOOKS]

    def progress(done: int, total: int, what: str) -> None:
        print(f"{done}/{total} {what}", flush=True)

    path = autoencoder(
        tasks, args.out, frames=args.frames, steps=args.steps, seed=args.seed, replace=True, progress=progress
    )
    print(path)


if __name__ == "__main__":
    main()
