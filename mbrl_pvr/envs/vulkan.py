"""Which Vulkan driver draws ManiSkill, chosen before the simulator is imported, and what to do where there is none.

In this order: what the user's VK_DRIVER_FILES names, a GPU of NVIDIA whose driver brings Vulkan, the software driver
that `make setup-maniskill` unpacks beside the environment, the system's own. Debian 12's Mesa 22.3 cannot draw it.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import NamedTuple

from mbrl_pvr.errors import EnvError

SETUP = "make setup-maniskill"
_OWN = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")  # of the Vulkan loader, which knows the second from older days
_SYSTEM = ("/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d")
_GPU = Path("/dev/nvidiactl")
_loaded: list[ctypes.CDLL] = []  # kept, so that nothing is unloaded


class Driver(NamedTuple):
    """`device` is SAPIEN's name for what draws: cuda or cpu; `folder` holds an unpacked driver, if it is one."""

    device: str
    where: str
    folder: Path | None = None


def unpacked() -> Path:
    """Where `make setup-maniskill` puts the driver; MBRL_PVR_MESA names another folder."""
    return Path(os.environ.get("MBRL_PVR_MESA") or Path(sys.prefix) / "mesa")


def _unpacked_file() -> Path:
    return unpacked() / "lvp_icd.json"


def find() -> Driver | None:
    """The driver that would be used; None where this machine has none."""
    device = "cuda" if _GPU.exists() else "cpu"
    own = next((os.environ[name] for name in _OWN if os.environ.get(name)), None)
    if own and Path(own) != _unpacked_file():  # that one `select` has set, in the process above this one
        return Driver(device if "nvidia" in own else "cpu", own)
    listed = [file for folder in _SYSTEM for file in sorted(Path(folder).glob("*.json"))]
    nvidia = [file for file in listed if "nvidia" in file.name]
    if nvidia and device == "cuda":
        return Driver("cuda", str(nvidia[0]))
    if _unpacked_file().is_file():
        return Driver("cpu", str(_unpacked_file()), unpacked())
    software = [file for file in listed if file.name.startswith("lvp_icd")]
    return Driver("cpu", str(software[0])) if software else None


def select() -> Driver:
    """Make this process draw with the driver that is found; EnvError where there is none or it does not load."""
    driver = find()
    if driver is None:
        raise no_driver("no Vulkan driver found")
    if driver.folder is not None:
        _load(driver.folder / "lib")
        os.environ.update(dict.fromkeys(_OWN, driver.where))
    return driver


def no_driver(cause: str) -> EnvError:
    """The error for a driver that cannot draw: what happened, and how to get one that can."""
    hint = f"Run: {SETUP}   (unpacks Mesa's software driver beside the environment; a GPU needs its own driver)."
    if named := _named():
        hint = f"{named} names the driver: unset it, or name one that works. {hint}"
    return EnvError(f"ManiSkill cannot draw: {cause}", hint=hint)


def remedy() -> str:
    """What gets another driver than the one that would be used."""
    named = _named()
    return f"unset {named}, which names it, then {SETUP}" if named else SETUP


def _named() -> str:
    """The user's variables that name a driver."""
    return " and ".join(n for n in _OWN if os.environ.get(n) and Path(os.environ[n]) != _unpacked_file())


def _load(folder: Path) -> None:
    """Load every library of an unpacked driver, so that the loader meets these whatever the system has."""
    waiting = sorted(file for file in folder.iterdir() if not file.is_symlink())
    while waiting:
        failed: list[Path] = []
        why = ""
        for file in waiting:
            try:
                _loaded.append(ctypes.CDLL(str(file)))
            except OSError as error:  # of a library that is yet to come
                failed.append(file)
                why = str(error)
        if len(failed) == len(waiting):
            raise no_driver(why)
        waiting = failed
