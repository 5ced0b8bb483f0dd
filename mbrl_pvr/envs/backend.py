"""Which OpenGL backend draws, chosen before mujoco is imported, and what is missing where it cannot."""

import ctypes
import os
import sys

from mbrl_pvr.envs import vulkan
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.names import family
from mbrl_pvr.errors import EnvError

# backend, or the simulator that draws in its own way -> (shared library under any of these names, Debian package)
_LIBRARIES = {
    "egl": ((("libEGL.so.1",), "libegl1"), (("libGL.so.1",), "libgl1")),
    "osmesa": ((("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"), "libosmesa6"), (("libGL.so.1",), "libgl1")),
    "miniworld": (
        (("libEGL.so.1",), "libegl1"),
        (("libGL.so.1",), "libgl1"),
        (("libGLU.so.1",), "libglu1-mesa"),
        (("libfreetype.so.6",), "libfreetype6"),  # of pyglet, which draws a label
        (("libfontconfig.so.1",), "libfontconfig1"),
    ),
    "maniskill": ((("libgthread-2.0.so.0",), "libglib2.0-0"), (("libGL.so.1",), "libgl1")),  # of OpenCV, beside Vulkan
}


def missing(backend: str) -> list[tuple[str, str]]:
    """(library, Debian package) for each library of a backend that does not load here."""
    return [(names[0], package) for names, package in _LIBRARIES[backend] if not any(map(_loads, names))]


def packages(backend: str) -> list[str]:
    """Debian packages of the libraries that do not load here, or of all where the fault must be elsewhere."""
    return [package for _, package in missing(backend)] or [package for _, package in _LIBRARIES[backend]]


def no_renderer(backend: str, cause: str) -> EnvError:
    """The error for a backend that cannot draw: what was tried, what is missing, how to get it."""
    other = "osmesa" if backend == "egl" else "egl"
    hint = f"On Debian: apt-get install -y --no-install-recommends {' '.join(packages(backend))}"
    if not missing(other):
        hint += f"; or use env.backend={other}, whose libraries are here"
    return EnvError(f"rendering backend {backend!r} does not work: {cause}", hint=f"{hint}.")


def label(config: EnvConfig) -> str:
    """What draws an environment, for the error of one that does not answer in time."""
    if family(config.name) == "maniskill":
        return f"Vulkan (the first frame takes up to a minute; where a driver hangs: {vulkan.remedy()})"
    drawn_by = "miniworld" if family(config.name) == "miniworld" else config.backend
    apt = f"apt-get install -y --no-install-recommends {' '.join(packages(drawn_by))}"
    return f"backend {config.backend} (a graphics driver that hangs is passed by with LIBGL_ALWAYS_SOFTWARE=1; {apt})"


def select(backend: str, *, required: bool) -> bool:
    """Choose the backend for this process and say whether it can draw.

    Where libraries are missing: EnvError if frames are `required`, else mujoco is imported without any renderer.
    """
    lacking = missing(backend)
    if lacking and required:
        raise no_renderer(backend, f"{' and '.join(name for name, _ in lacking)} not found")
    chosen = "disabled" if lacking else backend
    current = os.environ.get("MUJOCO_GL")
    if current != chosen and ("mujoco" in sys.modules or "dm_control" in sys.modules):
        raise EnvError(
            f"mujoco is already imported in this process with MUJOCO_GL={current!r}; backend {chosen!r} comes too late",
            hint="Environments made by mbrl_pvr.envs.make have processes of their own and can choose freely.",
        )
    os.environ["MUJOCO_GL"] = chosen
    return not lacking


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
