"""What a look builds differently in ManiSkill: lengths of cubes and chargers, and which stored scene an episode has.

Classes of ours are mixed into the simulator's own task, whose scene then follows from its attribute `built`:

    sim = type("Task", (*mixins("StackCube-v1"), StackCubeEnv), {})(...)
    sim.built = Scene(seed=5, size=1.2)
    sim.reset(seed=5, options={"reconfigure": True})

A size of 1 leaves everything as the simulator has it, bit for bit. Density stays, so that masses follow from volumes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbrl_pvr.envs.names import MANISKILL_SIZED, MANISKILL_STORED
from mbrl_pvr.envs.shifts import Look, changed

_OWN = -1  # the stored scene that the simulator draws itself
_STACKED = ("StackCube-v1", "StackPyramid-v1")  # whose lengths are numbers in their code
_CUBES = ("cubeA", "cubeB", "cubeC")
_HALF = 0.02  # metres: half a side of these cubes


class Scene(NamedTuple):
    """All that a scene follows from, as it stands in a state of the simulator."""

    seed: int = 0
    size: float = 1.0
    shape: float = 1.0  # width over height of charger and receptacle, which keep their areas
    number: int = _OWN  # of the stored scene


def scene_of(seed: int, look: Look) -> Scene:
    """The scene of an episode. Stored ones cannot be mixed: at any severity above 0 it is the look's."""
    number = look.draws["configurations"].index if look.has("configurations") else _OWN
    size, shape = look.numbers("physical_size")
    return Scene(seed, size, shape, number)


def mixins(task: str) -> tuple[type, ...]:
    """What must be mixed into a task, so that it builds the scene that it is told."""
    if task in _STACKED:
        return (_Stacked,)
    if task in MANISKILL_SIZED:
        return (_Charger,) if task == "PlugCharger-v1" else (_Cube,)
    return (_Stored,) if task in MANISKILL_STORED else ()


class _Cube:
    """A task that reads its cube's half side, everywhere, from an attribute."""

    built = Scene()

    def _load_scene(self: Any, options: dict) -> None:
        own = self.__dict__.setdefault("_own_half", self.cube_half_size)
        self.cube_half_size = own * self.built.size
        super()._load_scene(options)  # type: ignore[misc]


class _Stacked:
    """Cubes are built larger or smaller, moved up or down to lie on the table, and kept as far apart as they need."""

    built = Scene()

    def _load_scene(self: Any, options: dict) -> None:
        from mani_skill.utils.building import actors

        build = actors.build_cube
        larger = lambda scene, half_size, **rest: build(scene, half_size=half_size * self.built.size, **rest)  # noqa: E731
        with changed([(actors, "build_cube", larger)]):
            super()._load_scene(options)  # type: ignore[misc]
        self.cube_half_size = self.cube_half_size * self.built.size

    def _initialize_episode(self: Any, env_idx: Any, options: dict) -> None:
        from mani_skill.envs.utils.randomization import UniformPlacementSampler
        from mani_skill.utils.structs.pose import Pose

        own, gain = UniformPlacementSampler.sample, self.built.size
        wider = lambda sampler, radius, *rest, **named: own(sampler, radius * gain, *rest, **named)  # noqa: E731
        with changed([(UniformPlacementSampler, "sample", wider)]):
            super()._initialize_episode(env_idx, options)  # type: ignore[misc]
        for cube in (getattr(self, name) for name in _CUBES if hasattr(self, name) and gain != 1):
            place = cube.pose.p.clone()
            place[:, 2] += _HALF * (gain - 1)
            cube.set_pose(Pose.create_from_pq(place, cube.pose.q))


class _Charger:
    """Charger and receptacle, pegs and slots. The clearance of a peg stays half a millimetre."""

    built = Scene()

    def _load_scene(self: Any, options: dict) -> None:
        kind, size, wide = type(self), self.built.size, self.built.shape**0.5
        self._peg_size, self._peg_gap = _times(kind._peg_size, size), kind._peg_gap * size
        self._base_size, self._receptacle_size = (
            _times(own, (size, size * wide, size / wide)) for own in (kind._base_size, kind._receptacle_size)
        )
        super()._load_scene(options)  # type: ignore[misc]


class _Stored:
    """A task that draws one of its list of scenes: told a number, it has the choice of that one alone."""

    built = Scene()

    def _load_scene(self: Any, options: dict) -> None:
        number, every = self.built.number, self._episodes
        with changed([(self, "_episodes", every if number == _OWN else [every[number]])]):
            super()._load_scene(options)  # type: ignore[misc]


def _times(lengths: list[float], gain: float | tuple[float, ...]) -> list[float]:
    scaled: NDArray = np.array(lengths) * gain
    return [float(length) for length in scaled]
