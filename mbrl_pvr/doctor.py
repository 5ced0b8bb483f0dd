"""What works on this machine, and what to install for the rest. Every check gives a `Finding`; none raises.

To add a check, write a function that yields findings and name it in `CHECKS`. Imports that may be slow, hang or crash
run in a process of their own.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mbrl_pvr.envs import vulkan
from mbrl_pvr.envs.backend import missing
from mbrl_pvr.errors import EnvError, Unavailable

OK, MISSING, NOTE = "ok", "missing", "note"
TIMED_OUT = 124  # exit status that stands for no answer in time
DISK_FLOOR, RAM_FLOOR = 5.0, 4.0  # GB that one run with a pooled feature and 1 M steps needs
MAX_MUJOCO = 4  # dm_control 1.0.50 does not load tasks with mujoco 4.0.0
APT = "apt-get update && apt-get install -y --no-install-recommends"
RENDERERS = {"egl": "libegl1 libgl1", "osmesa": "libosmesa6 libgl1"}  # Debian packages
SIMULATORS = {  # import name: (distribution, needed for the main job)
    "dm_control.suite": ("dm_control", True),
    "mani_skill.envs": ("mani_skill", False),
    "miniworld": ("miniworld", False),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `exit_code` is not 0 where training on dm_control cannot run without it."""

    check: str
    status: str  # ok, missing, or note: nothing to do
    detail: str
    fix: str = ""
    exit_code: int = 0


def examine(timeout: float = 60.0) -> list[Finding]:
    """Run every check; `timeout` is in seconds and holds for each process that a check starts."""
    return [finding for check in CHECKS for finding in check(timeout)]


def exit_status(findings: list[Finding]) -> int:
    """0 where the main job can run, else the status of the first finding that stands in its way."""
    return next((f.exit_code for f in findings if f.status == MISSING and f.exit_code), 0)


def to_text(findings: list[Finding]) -> str:
    """One line per finding, and below it what to do."""
    marks = {OK: "[ok]     ", MISSING: "[missing]", NOTE: "[note]   "}
    lines = []
    for f in findings:
        lines.append(f"{marks[f.status]} {f.check}: {f.detail}")
        lines += [f"            {f.fix}"] if f.fix else []
    status = exit_status(findings)
    lines += ["", "The main job, training on dm_control, " + ("cannot run yet." if status else "can run here.")]
    return "\n".join(lines)


def versions(timeout: float) -> Iterator[Finding]:
    """Python, and our own packages: `torchwm` on the package index also installs a `world_models`."""
    system = f"{platform.system()} {platform.release()}"
    yield Finding("python", OK, f"{platform.python_version()} at {sys.executable}, {system}")
    home = Path(__file__).resolve().parent.parent
    for name in ("world_models", "pvr_zoo", "analysis"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is not None and home in origin.parents:
            continue
        place = f"imported from {origin.parent}" if origin else "not found"
        fix = "pip uninstall torchwm && pip install --force-reinstall --no-deps mbrl-pvr"
        yield Finding(name, MISSING, f"{place}, not ours in {home}", fix, Unavailable.exit_code)
    if _version("torchwm"):
        fix = "pip uninstall torchwm, or keep it in an environment of its own"
        yield Finding("torchwm", NOTE, "is installed and brings a package named world_models too", fix)


def renderers(timeout: float) -> Iterator[Finding]:
    """Render one frame with each backend, in a process of its own."""
    from mbrl_pvr.envs import probe_backend

    results = {backend: probe_backend(backend, timeout) for backend in RENDERERS}
    any_works = any(works for works, _ in results.values())
    for backend, (works, message) in results.items():
        if works:
            yield Finding(f"renderer {backend}", OK, message or "drew a frame")
        else:
            fix = f"{APT} {RENDERERS[backend]}"
            code = 0 if any_works else EnvError.exit_code
            yield Finding(f"renderer {backend}", NOTE if any_works else MISSING, _one_line(message), fix, code)
    if any_works and not results["egl"][0]:
        yield Finding("default renderer", MISSING, "egl, the default, does not work", "Give env.backend=osmesa")


def simulators(timeout: float) -> Iterator[Finding]:
    """Whether each simulator can be imported, and the versions of physics."""
    mujoco = _version("mujoco")
    if mujoco and int(mujoco.split(".")[0]) >= MAX_MUJOCO:
        fix = "pip install 'mujoco>=3.17,<4'"
        yield Finding("mujoco", MISSING, f"{mujoco} breaks dm_control", fix, EnvError.exit_code)
    elif mujoco:
        yield Finding("mujoco", OK, mujoco)
    for module, (distribution, needed) in SIMULATORS.items():
        version, code = _version(distribution), Unavailable.exit_code if needed else 0
        if version is None:
            yield Finding(distribution, MISSING, "not installed", f"pip install {distribution}", code)
            continue
        done = _python(f"import {module}", timeout)
        if done.returncode:
            error, fix = _failure(done, timeout, _fix(distribution))
            yield Finding(distribution, MISSING, f"{version} does not import: {error}", fix, code)
        else:
            yield Finding(distribution, OK, f"{version} imports")


def miniworld(timeout: float) -> Iterator[Finding]:
    """Whether Miniworld draws; nothing is said where it is not installed, which `simulators` tells."""
    from mbrl_pvr.envs import probe_miniworld

    if _version("miniworld") is None:
        return
    works, message = probe_miniworld(timeout)
    fix = "" if works else _fix("miniworld")
    yield Finding("renderer miniworld", OK if works else NOTE, _one_line(message), fix)


def maniskill(timeout: float) -> Iterator[Finding]:
    """Whether ManiSkill draws; its first frame takes long in software, so slowness is told apart."""
    from mbrl_pvr.envs import probe_maniskill

    if _version("mani_skill") is None:
        return
    works, message = probe_maniskill(timeout)
    slow = "no answer within" in message
    fix = "" if works else f"mbrl-pvr doctor --timeout {5 * timeout:g}" if slow else _fix("mani_skill")
    yield Finding("renderer maniskill", OK if works else NOTE, _one_line(message), fix)


def devices(timeout: float) -> Iterator[Finding]:
    """torch, torchvision beside it, processor and GPU."""
    torch_version = _version("torch")
    if torch_version is None:
        yield Finding("torch", MISSING, "not installed", "pip install torch", Unavailable.exit_code)
        return
    code = "import torch; c = torch.cuda; print(torch.__version__, torch.backends.cpu.get_cpu_capability(), sep='|');"
    code += "[print(c.get_device_name(i)) for i in range(c.device_count())]"
    done = _python(code, timeout)
    if done.returncode:
        error, fix = _failure(done, timeout, "pip install --force-reinstall torch")
        yield Finding("torch", MISSING, error, fix, Unavailable.exit_code)
        return
    first, *gpus = done.stdout.splitlines()
    version, capability = first.split("|")
    yield Finding("torch", OK, version)
    yield _torchvision(timeout)
    yield Finding("cpu", OK, f"{os.cpu_count()} cores, {capability}, {_usable_cores()} usable by this process")
    yield Finding("gpu", OK if gpus else NOTE, ", ".join(gpus) or "torch sees none; device=auto means cpu")


def _torchvision(timeout: float) -> Finding:
    if _version("torchvision") is None:
        return Finding("torchvision", MISSING, "not installed", "pip install torchvision", Unavailable.exit_code)
    code = "from pvr_zoo.torchvision_guard import ensure_torchvision as e; s = e(); import torchvision as t;"
    done = _python(code + "print(t.__version__, s, sep='|')", timeout)
    if done.returncode:
        fix = "Install the torchvision that belongs to your torch, for example torch==2.13.0 torchvision==0.28.0"
        return Finding("torchvision", MISSING, *_failure(done, timeout, fix), Unavailable.exit_code)
    version, guarded = done.stdout.strip().split("|")
    note = (
        ", compiled operators do not load beside this torch and are stubbed (not needed)" if guarded == "True" else ""
    )
    return Finding("torchvision", OK, version + note)


def compiler_lacks() -> list[str]:
    """Debian packages without which torch.compile cannot work here."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return ([] if _find_compiler() else ["gcc", "g++"]) + ([] if header.is_file() else ["python3-dev"])


def _find_compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def compiler(timeout: float) -> Iterator[Finding]:
    """What torch.compile needs."""
    if lacking := compiler_lacks():
        yield Finding(
            "compiler", NOTE, "torch.compile cannot work; everything runs eager", f"{APT} {' '.join(lacking)}"
        )
    else:
        yield Finding("compiler", OK, f"{_find_compiler()}, Python.h")


def encoders(timeout: float) -> Iterator[Finding]:
    """Which encoders have their weights on this machine, and whether others may be fetched."""
    import pvr_zoo
    from pvr_zoo.weights import cache_root, offline, place

    specs = [pvr_zoo.spec(name) for name in pvr_zoo.list_encoders()]
    here = [s.name for s in specs if all(place(source).is_file() for source in s.sources)]
    yield Finding("weights cache", OK, str(cache_root()))
    if "embedded" in here:
        yield Finding("encoders at hand", OK, ", ".join(here))
    else:
        fix = "Reinstall mbrl-pvr, or choose another: encoder=random_resnet18"
        yield Finding("embedded encoder", MISSING, "the default encoder's weights are not shipped with this copy", fix)
        yield Finding("encoders at hand", OK, ", ".join(here) or "none")
    rest = len(specs) - len(here)
    if offline():
        yield Finding(
            "downloads", NOTE, f"HF_HUB_OFFLINE is set; {rest} encoders need a file put into the cache by hand"
        )
    else:
        yield Finding("downloads", NOTE, f"{rest} encoders are fetched when first used; HF_HUB_OFFLINE=1 forbids it")


def room(timeout: float) -> Iterator[Finding]:
    """Disk where runs go, and memory."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    status, fix = (OK, "") if free >= DISK_FLOOR else (MISSING, "Make room, or train elsewhere: --dir")
    yield Finding("disk", status, f"{free:.1f} GB free at {Path.cwd()}", fix)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    fix = "" if memory >= RAM_FLOOR else "Keep replay small: replay.capacity=100_000"
    yield Finding("memory", OK if memory >= RAM_FLOOR else NOTE, f"{memory:.1f} GB", fix)
    threads = os.environ.get("OMP_NUM_THREADS")
    detail = f"OMP_NUM_THREADS={threads}" if threads else f"all {_usable_cores()} cores for the learner"
    yield Finding("threads", NOTE, f"{detail}; a run sets its own with threads=N, simulator workers use one each")


CHECKS: tuple[Callable[[float], Iterator[Finding]], ...] = (
    versions,
    renderers,
    simulators,
    miniworld,
    maniskill,
    devices,
    compiler,
    encoders,
    room,
)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _python(code: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own; where that takes too long its status is TIMED_OUT."""
    environment = os.environ | {"PYGLET_HEADLESS": "1"}
    environment.setdefault("MUJOCO_GL", "egl")
    command = [sys.executable, "-c", code]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, TIMED_OUT, "", f"no answer within {timeout:g} s")


def _failure(done: subprocess.CompletedProcess[str], timeout: float, fix: str) -> tuple[str, str]:
    """The last words of a process that failed, and what to do: `fix`, unless it was only slow."""
    slow = done.returncode == TIMED_OUT
    return _last_line(done.stderr), f"mbrl-pvr doctor --timeout {5 * timeout:g}" if slow else fix


def _fix(distribution: str) -> str:
    if distribution == "mani_skill":
        lacking = [package for _, package in missing("maniskill")]
        return f"{APT} {' '.join(lacking)}" if lacking else vulkan.SETUP
    packages = {
        "dm_control": RENDERERS["egl"],
        "miniworld": "libegl1 libgl1 libglu1-mesa libfreetype6 libfontconfig1",
    }
    return f"{APT} {packages[distribution]}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else "it failed without a word"
