"""Whether beginning episodes leaks memory or file handles: python benchmarks/resets.py [--env dmc/walker-walk …]

A worker process begins 1,000 episodes under the shifts named and draws one frame of each. A row has its memory
(resident, MB) and open file handles after 100, 400, 700 and 1,000 of them: the first hundred load what is loaded once,
and what grows afterwards leaks.
"""

import argparse
import os
from pathlib import Path

from mbrl_pvr import envs
from mbrl_pvr.envs import EnvConfig

MARKS = (100, 400, 700, 1000)
TASKS = {  # with shifts that are drawn in different ways
    "dmc/walker-walk": "study",
    "dmc/cheetah-run": "distracting_hard",
    "miniworld/PickupObjects": "study",
    "miniworld/OneRoom": "distracting_hard",
    "maniskill/StackCube-v1": "tint+physical_size+distractors",
    "gym:gymnasium_robotics:AdroitHandDoor-v1": "noise",
}


def held(pid: int) -> str:
    """Resident memory of a process in MB, and its number of open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f} / {len(os.listdir(f'/proc/{pid}/fd'))}"


def row(name: str, shifts: str, resets: int) -> str:
    """Begin episodes in a worker and say what it holds."""
    found = []
    config = EnvConfig(name, action_repeat=2 if name.startswith("dmc") else 1, shifts=shifts)
    with envs.make(config, num=1, seed=0, stream="resets") as env:
        for episode in range(1, resets + 1):
            env.reset(episode=episode)
            if episode in MARKS or episode == resets:
                found.append(held(env.pids[0]))
    return f"| {name} | {shifts} | {' | '.join(found)} |"


def main() -> None:
    """One task after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", default=list(TASKS), metavar="NAME")
    parser.add_argument("--resets", type=int, default=MARKS[-1])
    args = parser.parse_args()
    marks = [m for m in MARKS if m < args.resets] + [args.resets]
    print(f"| task | shifts | {' | '.join(f'{m:,}: MB / handles' for m in marks)} |")
    print("|---" * (2 + len(marks)) + "|", flush=True)
    for name in args.env:
        print(row(name, TASKS.get(name, "none"), args.resets), flush=True)


if __name__ == "__main__":
    main()
