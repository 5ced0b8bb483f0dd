"""The doctor's verdict follows its findings; what it finds is compared with machines that lack something."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr import doctor, envs
from mbrl_pvr.cli.main import main
from mbrl_pvr.doctor import MISSING, NOTE, OK, Finding, exit_status, to_text


def findings(check: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in check(1.0)}


def with_renderers(monkeypatch: pytest.MonkeyPatch, **works: bool) -> dict[str, Finding]:
    def probe(backend: str, timeout: float) -> tuple[bool, str]:
        return works[backend], "drew" if works[backend] else "libX.so.1\nnot found"

    monkeypatch.setattr(envs, "probe_backend", probe, raising=False)
    return findings(doctor.renderers)


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions[name] if name in versions else real(name))


def with_process(monkeypatch: pytest.MonkeyPatch, status: int, out: str = "", err: str = "") -> None:
    answer = subprocess.CompletedProcess([], status, out, err)
    monkeypatch.setattr(doctor, "_python", lambda code, timeout: answer)


def test_verdict_is_that_of_the_first_thing_in_the_way() -> None:
    fine, extra = Finding("a", OK, "x"), Finding("b", MISSING, "x", "Do")
    assert exit_status([fine, extra]) == 0
    assert exit_status([fine, extra, Finding("c", MISSING, "x", "Do", 7), Finding("d", MISSING, "x", "Do", 8)]) == 7
    assert "cannot run yet" in to_text([Finding("c", MISSING, "x", "Do", 7)])
    assert "can run here" in to_text([fine, extra])


def test_no_renderer_stops_the_main_job(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_renderers(monkeypatch, egl=False, osmesa=False)
    assert exit_status(list(found.values())) == 7
    assert found["renderer egl"].detail == "libX.so.1 not found"
    assert found["renderer egl"].fix.endswith("install -y --no-install-recommends libegl1 libgl1")
    assert found["renderer osmesa"].fix.endswith("libosmesa6 libgl1")


def test_one_renderer_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_status(list(with_renderers(monkeypatch, egl=True, osmesa=False).values())) == 0
    found = with_renderers(monkeypatch, egl=False, osmesa=True)
    assert exit_status(list(found.values())) == 0
    assert found["default renderer"].fix == "Give env.backend=osmesa"


def test_mujoco_4_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, mujoco="4.0.0")
    with_process(monkeypatch, 0)
    found = findings(doctor.simulators)
    assert (found["mujoco"].status, found["mujoco"].exit_code) == (MISSING, 7)
    assert "mujoco>=3.17,<4" in found["mujoco"].fix


def test_simulators_that_are_absent_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, dm_control=None, miniworld="2.1.0", mani_skill=None)
    with_process(monkeypatch, 1, err='Traceback …\nImportError: Library "GLU" not found.\n')
    found = findings(doctor.simulators)
    assert (found["dm_control"].fix, found["dm_control"].exit_code) == ("pip install dm_control", 8)
    assert found["miniworld"].detail.endswith('ImportError: Library "GLU" not found.')
    assert "libglu1-mesa" in found["miniworld"].fix
    assert exit_status([found["miniworld"], found["mani_skill"]]) == 0


@pytest.mark.parametrize("works", [True, False])
def test_miniworld_draws_or_the_packages_are_named(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, miniworld="2.1.0")
    monkeypatch.setattr(envs, "probe_miniworld", lambda timeout: (works, "libX.so.1\nnot found"), raising=False)
    (found,) = findings(doctor.miniworld).values()
    assert (found.status, found.detail) == (OK if works else NOTE, "libX.so.1 not found")
    assert found.fix.endswith("libegl1 libgl1 libglu1-mesa libfreetype6 libfontconfig1") != works
    assert exit_status([found]) == 0
    with_versions(monkeypatch, miniworld=None)
    assert findings(doctor.miniworld) == {}


def test_maniskill_draws_or_the_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, mani_skill="3.0.1")
    monkeypatch.setattr(doctor, "missing", lambda name: [])
    answers = {
        "Vulkan draws ManiSkill frames": (OK, ""),
        "ManiSkill cannot draw: no Vulkan driver found": (NOTE, "make setup-maniskill"),
        "no answer within 60 s while drawing": (NOTE, "mbrl-pvr doctor --timeout 5"),  # of `findings`: one second
    }
    for message, expected in answers.items():
        answer = (expected[0] == OK, message)
        monkeypatch.setattr(envs, "probe_maniskill", lambda timeout, answer=answer: answer, raising=False)
        (found,) = findings(doctor.maniskill).values()
        assert (found.status, found.fix) == expected and found.detail == message and exit_status([found]) == 0
    with_versions(monkeypatch, mani_skill=None)
    assert findings(doctor.maniskill) == {}


def test_what_maniskill_imports_is_named_before_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, mani_skill="3.0.1")
    monkeypatch.setattr(envs, "probe_maniskill", lambda timeout: (False, "it does not start"), raising=False)
    monkeypatch.setattr(doctor, "missing", lambda name: [("libX.so.1", "libx1")] if name == "maniskill" else [])
    (found,) = findings(doctor.maniskill).values()
    assert (found.status, found.fix.endswith("--no-install-recommends libx1")) == (NOTE, True)


def test_without_a_driver_maniskill_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbrl_pvr.envs.vulkan.find", lambda: None)
    monkeypatch.setattr("mbrl_pvr.envs.probe.make", None)
    works, message = envs.probe_maniskill(1.0)
    assert not works and "no Vulkan driver found" in message and "make setup-maniskill" in message


def test_torch_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, torch="2.13.0")
    with_process(monkeypatch, 1, err="ImportError: libtorch.so\n")
    assert exit_status(list(findings(doctor.devices).values())) == 8


def test_foreign_world_models_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    foreign = tmp_path / "world_models"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    real = doctor.importlib.util.find_spec
    spec = doctor.importlib.util.spec_from_file_location("world_models", foreign / "__init__.py")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: spec if name == "world_models" else real(name))
    found = findings(doctor.versions)
    assert str(foreign) in found["world_models"].detail and "torchwm" in found["world_models"].fix
    assert "analysis" not in found


def test_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = findings(doctor.compiler)["compiler"]
    assert found.status == NOTE and "gcc g++" in found.fix


def test_the_compiler_that_is_named_counts_and_a_run_asks_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    from mbrl_pvr.build import pick_compile
    from mbrl_pvr.config import load_config

    config, cpu = load_config(["compile=on"]), torch.device("cpu")
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda name: str(Path(__file__).parent))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name == "icpx" else None)
    assert not pick_compile(config, cpu) and "gcc g++ python3-dev" in caplog.text
    monkeypatch.setenv("CXX", "icpx")
    assert doctor.compiler_lacks() == ["python3-dev"] and not pick_compile(config, cpu)
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "compiler_lacks", list)
    monkeypatch.setattr("mbrl_pvr.build.compiler_lacks", list)
    assert pick_compile(config, cpu) and findings(doctor.compiler)["compiler"].status == OK
    choices = {text: pick_compile(load_config(text.split()), cpu) for text in ("steps=9999", "steps=10000")}
    assert choices == {"steps=9999": False, "steps=10000": True}
    assert not pick_compile(load_config(["steps=10000", "compile=off"]), cpu)
    dreamer = {text: load_config(["agent=dreamerv3", "steps=10000", f"compile={text}"]) for text in ("auto", "on")}
    assert [pick_compile(one, cpu) for one in dreamer.values()] == [False, True]  # it gains nothing there by itself
    assert pick_compile(dreamer["auto"], torch.device("cuda"))


def test_encoders_at_hand_follow_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = findings(doctor.encoders)
    at_hand = found["encoders at hand"].detail.split(", ")
    assert "random_resnet18" in at_hand and "resnet18_in1k" not in at_hand
    assert "by hand" in found["downloads"].detail


def test_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("U", (), {"free": 10**8})())
    found = findings(doctor.room)["disk"]
    assert found.status == MISSING and found.detail.startswith("0.1 GB")


def test_a_process_that_hangs_is_ended() -> None:
    done = doctor._python("import time; time.sleep(60)", 0.2)
    assert (done.returncode, done.stderr) == (doctor.TIMED_OUT, "no answer within 0.2 s")


@pytest.mark.parametrize("check", [doctor.simulators, doctor.devices])
def test_what_is_only_slow_needs_more_time_and_no_package(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, dm_control="1", mani_skill="3", miniworld="2", torch="2")
    with_process(monkeypatch, doctor.TIMED_OUT, err="no answer within 60 s")
    slow = [finding for finding in check(60.0) if finding.status == MISSING]
    assert len(slow) in (1, 3)
    for finding in slow:
        assert "no answer within 60 s" in finding.detail and finding.fix == "mbrl-pvr doctor --timeout 300"


@pytest.mark.parametrize("status", [0, 7])
def test_command_prints_and_exits(
    status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(
        "renderer egl", MISSING if status else OK, "words", "apt-get install libegl1" * bool(status), status
    )
    monkeypatch.setattr(doctor, "CHECKS", (lambda timeout: iter([finding]),))
    assert main(["doctor", "--json"]) == status
    assert json.loads(capsys.readouterr().out)[0]["exit_code"] == status
    assert main(["doctor"]) == status
    assert "renderer egl: words" in capsys.readouterr().out
