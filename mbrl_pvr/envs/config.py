"""What an environment looks like from outside: the part of a run's configuration that belongs to `mbrl_pvr.envs`."""

import math
from dataclasses import dataclass

from mbrl_pvr.envs.factors import BANDS, check_factors, check_shifts

RENDER = ("standard", "fast")
BACKENDS = ("egl", "osmesa")
REWARDS = ("dense", "sparse")


@dataclass(frozen=True)
class EnvConfig:
    """One task and how it is shown. Part of a run's identity, apart from `backend`: both draw the same bits."""

    name: str = "dmc/cartpole-balance"  # `mbrl-pvr envs list` shows all; gym:ID is any of gymnasium's
    action_repeat: int = 2  # simulator steps per agent step; rewards are added up; a run on other families has 1
    camera: int = 0  # of dm_control: index of the task's camera; -1 is MuJoCo's free camera
    size: int = 64  # height and width of a frame in pixels
    render: str = "standard"  # of MuJoCo; "fast": no shadows, reflections, multisampling; 4 to 10 times the frames
    backend: str = "egl"  # of MuJoCo: OpenGL through EGL (GPU or software) or OSMesa (software)
    num: int = 1  # environments, each in a process of its own
    time_limit: float | None = None  # of dm_control: seconds of simulated time; None: the task's own
    max_steps: int | None = None  # at most this many agent steps per episode; reaching it is truncation
    reward: str = "dense"  # of ManiSkill; "sparse": 1 in each step in which the task is solved, else 0
    proprio: bool = False  # also observe the task's own state vector
    pixels: bool = True  # False: no frame is ever rendered, except by `render()`; in a run it follows from the encoder
    shifts: str = "none"  # what differs from episode to episode: a preset, or factors joined by +; docs/shifts.md
    severity: float = 1.0  # of the shift: 0 the simulator's own look, 1 all of the shift's range
    factors: tuple[str, ...] | None = None  # of the shift, only these; null: all
    bands: str = "interleaved"  # which values of ranges are held out: every fifth band, or the outer ones
    video: str | None = None  # of shifts with `video`: a folder of videos or pictures; null: procedural clips

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"env.name must be the name of an environment, got {self.name!r}")
        _check_int("action_repeat", self.action_repeat, 1, 100)
        _check_int("camera", self.camera, -1, 1000)
        _check_int("size", self.size, 8, 1024)
        _check_int("num", self.num, 1, 1024)
        if self.max_steps is not None:
            _check_int("max_steps", self.max_steps, 1, 10**9)
        _check_choice("render", self.render, RENDER)
        _check_choice("backend", self.backend, BACKENDS)
        _check_choice("reward", self.reward, REWARDS)
        _check_choice("bands", self.bands, BANDS)
        check_shifts(self.shifts)
        check_factors(self.factors)
        if self.video is not None and (not isinstance(self.video, str) or not self.video):
            raise ValueError(f"env.video must be null or the path of a folder, got {self.video!r}")
        for name in ("proprio", "pixels"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"env.{name} must be true or false, got {getattr(self, name)!r}")
        if self.time_limit is not None and not (_is_real(self.time_limit) and 0 < self.time_limit < math.inf):
            raise ValueError(f"env.time_limit must be a positive number of seconds, got {self.time_limit!r}")
        if not (_is_real(self.severity) and 0 <= self.severity <= 1):
            raise ValueError(f"env.severity must lie in 0..1, got {self.severity!r}")


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"env.{name} must be a whole number in {low}..{high}, got {value!r}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"env.{name} must be one of {', '.join(choices)}, got {value!r}")
