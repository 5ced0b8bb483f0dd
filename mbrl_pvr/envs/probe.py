"""Does drawing work here? Answered by drawing one real frame in a process of its own."""

from mbrl_pvr.envs import vulkan
from mbrl_pvr.envs.config import EnvConfig
from mbrl_pvr.envs.vector import make
from mbrl_pvr.errors import EnvError, Unavailable


def probe_backend(backend: str, timeout: float = 60.0) -> tuple[bool, str]:
    """(works, what was drawn or why not and what to install). Building and drawing may take `timeout` seconds each."""
    config = EnvConfig(name="dmc/pendulum-swingup", size=64, render="fast", backend=backend)
    return _probe(config, backend, "dm_control", timeout)


def probe_miniworld(timeout: float = 60.0) -> tuple[bool, str]:
    """The same of Miniworld, which draws in a way of its own."""
    return _probe(EnvConfig(name="miniworld/Hallway", size=64), "egl", "Miniworld", timeout)


def probe_maniskill(timeout: float = 60.0) -> tuple[bool, str]:
    """The same of ManiSkill, whose first frame may take a minute where Vulkan draws in software."""
    if vulkan.find() is None:  # known at once
        return False, str(vulkan.no_driver("no Vulkan driver found"))
    return _probe(EnvConfig(name="maniskill/PickCube-v1", size=64), "Vulkan", "ManiSkill", timeout)


def _probe(config: EnvConfig, backend: str, simulator: str, timeout: float) -> tuple[bool, str]:
    try:
        with make(config, num=1, seed=0, stream="probe", start_timeout=timeout) as envs:
            frame = envs.reset().frame
    except (EnvError, Unavailable) as error:
        return False, str(error)
    assert frame is not None
    if frame.std() < 1:
        return False, f"{backend} drew a blank frame (every pixel about {frame.mean():.0f}); the driver does not work"
    return True, f"{backend} draws {simulator} frames"
