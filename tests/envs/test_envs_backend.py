"""What a user reads where nothing can draw: the backend, the missing library, its Debian package."""

import re
import sys

import pytest

from mbrl_pvr.envs import backend, probe_backend
from mbrl_pvr.errors import EnvError


@pytest.mark.parametrize(
    ("name", "hidden", "library", "package"),
    [
        ("egl", ("libEGL", "libGL.so"), "libEGL.so.1 and libGL.so.1 not found", "libegl1 libgl1"),
        ("egl", ("libEGL",), "libEGL.so.1 not found", "libegl1"),
        ("osmesa", ("libOSMesa", "libGL.so"), "libOSMesa.so.8 and libGL.so.1 not found", "libosmesa6 libgl1"),
    ],
)
def test_a_missing_library_is_named_with_its_package(start, hide, name, hidden, library, package) -> None:
    hide(*hidden)
    with pytest.raises(EnvError) as caught:
        start("dmc/cartpole-balance", backend=name)
    assert caught.value.what == f"rendering backend '{name}' does not work: {library}"
    assert re.search(rf"apt-get install -y --no-install-recommends {package}[;.]", caught.value.hint)
    assert caught.value.exit_code == 7


def test_without_pixels_no_library_is_needed_until_a_picture_is_asked_for(start, hide) -> None:
    hide("libEGL", "libGL.so")
    envs = start("dmc/cartpole-balance", pixels=False)
    envs.reset()
    assert envs.step([[0.5]]).reward[0] > 0
    with pytest.raises(EnvError, match=r"libraries were missing[\s\S]*apt-get install"):
        envs.render()


def test_a_driver_that_offers_no_display_is_reported(start, egl, monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    with pytest.raises(EnvError, match=r"backend 'egl' does not work: .*MUJOCO_EGL_DEVICE_ID[\s\S]*Debian"):
        start("dmc/cartpole-balance")


def test_probe_says_that_it_works(egl) -> None:
    assert probe_backend("egl") == (True, "egl draws dm_control frames")


def test_probe_says_why_not(hide) -> None:
    hide("libEGL")
    works, message = probe_backend("egl")
    assert not works
    assert "libEGL.so.1 not found" in message and "libegl1" in message


def test_probe_has_a_time_limit() -> None:
    works, message = probe_backend("egl", timeout=0.01)
    assert not works and "no answer within 0 s" in message and "backend egl" in message


def test_a_backend_cannot_change_once_mujoco_is_there(egl, monkeypatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setitem(sys.modules, "mujoco", sys)
    with pytest.raises(EnvError, match=r"already imported in this process with MUJOCO_GL='glfw'; backend 'egl'"):
        backend.select("egl", required=False)
