"""Which environments exist: a stored table, so that lists and errors need no simulator.

A test compares the table with dm_control. To add a family: its names here, its constructor in `registry.py`.
"""

import difflib
from fnmatch import fnmatchcase

from mbrl_pvr.errors import ConfigError

# dm_control 1.0.50; domain -> tasks
DMC_TASKS = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "three_poles", "two_poles"),
    "cheetah": ("run",),
    "dog": ("fetch", "run", "stand", "trot", "walk"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("swim", "upright"),
    "hopper": ("hop", "stand"),
    "humanoid": ("run", "run_pure_state", "stand", "walk"),
    "humanoid_CMU": ("run", "stand", "walk"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("escape", "fetch", "run", "walk"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer15", "swimmer6"),
    "walker": ("run", "stand", "walk"),
}
COUNTING = ("default", "discrete")  # for tests: counters instead of a simulator
DISCRETE = ("counting/discrete",)  # tasks whose actions are choices
TERMINATING = tuple(f"dmc/lqr-{task}" for task in DMC_TASKS["lqr"])  # whose episodes can end before the time limit

_DMC = tuple(f"dmc/{domain}-{task}" for domain, tasks in DMC_TASKS.items() for task in tasks)
_LISTED = tuple(sorted(_DMC))
_ALL = (*_LISTED, *(f"counting/{name}" for name in COUNTING))
_ALIASES = {name.replace("/", "_").replace("-", "_"): name for name in _ALL} | {
    "counting": "counting/default",
    "dmc/cup-catch": "dmc/ball_in_cup-catch",
    "dmc_cup_catch": "dmc/ball_in_cup-catch",
}


def list_envs(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, all of them with "*"; `make` also accepts aliases and the tests' counters."""
    return [name for name in _LISTED if fnmatchcase(name, pattern)]


def resolve(name: str) -> str:
    """The table's own spelling of a name or alias (`dmc_walker_walk` -> `dmc/walker-walk`), or ConfigError."""
    if name in _ALL:
        return name
    if name in _ALIASES:
        return _ALIASES[name]
    close = difflib.get_close_matches(name, (*_ALL, *_ALIASES), n=5, cutoff=0.6)
    near = dict.fromkeys(_ALIASES.get(n, n) for n in close)
    meant = f"Did you mean {' or '.join(repr(n) for n in list(near)[:3])}? " if near else ""
    raise ConfigError(f"unknown environment {name!r}", hint=f"{meant}`mbrl-pvr envs list` shows all {len(_LISTED)}.")
