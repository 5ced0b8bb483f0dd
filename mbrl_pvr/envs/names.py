"""Which environments exist: stored tables, so that lists and errors need no simulator.

Tests compare the tables with the simulators. To add a family of the package: its names here, its constructor in
`registry.py`, what it lacks in `offers.py`. Environments of yours need none of these: docs/extending/environment.md.
"""

import difflib
import re
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version

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
MINIWORLD_TASKS = (  # miniworld 2.1.0, which calls them MiniWorld-NAME-v0
    *("CollectHealth", "FourRooms", "Hallway", "Maze", "MazeS2", "MazeS3", "MazeS3Fast", "OneRoom", "OneRoomS6"),
    *("OneRoomS6Fast", "PickupObjects", "PutNext", "RoomObjects", "Sidewalk", "Sign", "TMaze", "TMazeLeft"),
    *("TMazeRight", "ThreeRooms", "WallGap", "YMaze", "YMazeLeft", "YMazeRight"),
)
MANISKILL_TASKS = (  # mani_skill 3.0.1: what one Panda arm does on a table; scenes and other robots are left out
    *("AssemblingKits-v1", "FMBAssembly1Easy-v1", "LiftPegUpright-v1", "PegInsertionSide-v1", "PickClutterYCB-v1"),
    *("PickCube-v1", "PickSingleYCB-v1", "PlaceSphere-v1", "PlugCharger-v1", "PokeCube-v1", "PullCube-v1"),
    *("PullCubeTool-v1", "PushCube-v1", "RollBall-v1", "StackCube-v1", "StackPyramid-v1", "TurnFaucet-v1"),
)
MANISKILL_SPARSE = ("FMBAssembly1Easy-v1", "StackPyramid-v1", "TurnFaucet-v1")  # neither it nor we have a dense reward
MANISKILL_SIZED = (  # of cubes or a charger, whose lengths `maniskill_scene.py` can change
    *("PickCube-v1", "PlugCharger-v1", "PokeCube-v1", "PullCube-v1", "PullCubeTool-v1", "PushCube-v1"),
    *("StackCube-v1", "StackPyramid-v1"),
)
MANISKILL_STORED = ("AssemblingKits-v1", "PickClutterYCB-v1")  # whose scenes come from stored lists
_SIMULATORS = {  # packages that decide what an environment does and looks like
    "dmc": ("dm_control", "mujoco"),
    "miniworld": ("miniworld",),
    "maniskill": ("mani_skill", "sapien"),
}
COUNTING = ("default", "discrete")  # for tests: counters instead of a simulator
PLUGINS = "mbrl_pvr.envs"  # the entry points of packages that bring environments: FAMILY/TASK = module:class
GYM = "gym:"  # begins the names of gymnasium's environments: gym:ID, or gym:MODULE:ID where a module registers them
FAMILIES = ("dmc", "maniskill", "miniworld", "gym", "counting")
ENDLESS = ("RoomObjects", "ThreeRooms")  # Miniworld's tasks without a goal, which only a time limit ends

_DMC = tuple(f"dmc/{domain}-{task}" for domain, tasks in DMC_TASKS.items() for task in tasks)
_MINIWORLD = tuple(f"miniworld/{task}" for task in MINIWORLD_TASKS)
_MANISKILL = tuple(f"maniskill/{task}" for task in MANISKILL_TASKS)
DISCRETE = ("counting/discrete", *_MINIWORLD)  # tasks whose actions are choices
TERMINATING = (  # whose episodes can end before the time limit
    *(f"dmc/lqr-{task}" for task in DMC_TASKS["lqr"]),
    *(f"miniworld/{task}" for task in MINIWORLD_TASKS if task not in ENDLESS),
)
_LISTED = (*sorted(_DMC), *sorted(_MANISKILL), *sorted(_MINIWORLD))
_ALL = (*_LISTED, *(f"counting/{name}" for name in COUNTING))
_ALIASES = {name.replace("/", "_").replace("-", "_"): name for name in _ALL} | {
    "counting": "counting/default",
    "dmc/cup-catch": "dmc/ball_in_cup-catch",
    "dmc_cup_catch": "dmc/ball_in_cup-catch",
    **{task: f"maniskill/{task}" for task in MANISKILL_TASKS},
    **{f"MiniWorld-{task}-v0": f"miniworld/{task}" for task in MINIWORLD_TASKS},
}


def list_envs(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, all of them with "*", those of installed plugins last.

    `make` also accepts aliases, the tests' counters, and gym:ID for any environment that gymnasium knows.
    """
    return [name for name in (*_LISTED, *sorted(plugins())) if fnmatchcase(name, pattern)]


@cache
def plugins() -> dict[str, EntryPoint]:
    """Environments of installed packages by name; names of our own families are not for taking."""
    found = {point.name: point for point in entry_points(group=PLUGINS)}
    taken = {name: point.value for name, point in found.items() if family(name) in FAMILIES or "/" not in name}
    if taken:
        name, value = next(iter(taken.items()))
        hint = "Its name must be FAMILY/TASK with a family of its own; change it in the package, or uninstall that."
        raise ConfigError(f"an installed package calls an environment {name!r} ({value})", hint=hint)
    return found


def spelled(name: str) -> str:
    """The table's own spelling of an alias; any other name, known or not, as it is."""
    return _ALIASES.get(name, name)


def family(name: str) -> str:
    """The part of a name or alias that says whose environment it is: "dmc", "maniskill", "gym", …"""
    return "gym" if name.startswith(GYM) else spelled(name).partition("/")[0]


def simulator_versions(name: str) -> dict[str, str]:
    """Versions of the packages that simulate and draw an environment; empty for those of gymnasium and of plugins."""
    return {package: version(package) for package in _SIMULATORS.get(family(name), ())}


def resolve(name: str) -> str:
    """The table's own spelling of a name or alias (`dmc_walker_walk` -> `dmc/walker-walk`), or ConfigError.

    Of gymnasium's environments only the form of the name is checked: what is registered, its modules decide.
    """
    if name.startswith(GYM):
        if re.fullmatch(r"gym:([\w.]+:)?([\w-]+/)?[\w.-]+", name) is None:
            raise ConfigError(f"{name!r} is not gym:ID or gym:MODULE:ID", "env", "Example: env=gym:CartPole-v1")
        return name
    if name in _ALL or name in plugins():
        return name
    if name in _ALIASES:
        return _ALIASES[name]
    listed = list_envs()
    close = difflib.get_close_matches(name, (*_ALL, *_ALIASES, *listed[len(_LISTED) :]), n=5, cutoff=0.6)
    near = dict.fromkeys(_ALIASES.get(n, n) for n in close)
    meant = f"Did you mean {' or '.join(repr(n) for n in list(near)[:3])}? " if near else ""
    every = f"`mbrl-pvr envs list` shows all {len(listed)}, gym:ID is any of gymnasium's."
    raise ConfigError(f"unknown environment {name!r}", hint=f"{meant}{every}")
