"""Studies on a disk that is full or read-only: what fails says so, the rest goes on, and later all is complete."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.study.cells import load_study
from mbrl_pvr.study.folder import run_folder

HEAD = """
study="%(python)s -m mbrl_pvr.cli.main study run %(file)s --debug --part more --workers 1 --engine %(engine)s"
run() { $study --dir "$1"; }
cd %(place)s && mkdir disk
"""
READ_ONLY = """
mkdir -p seen/runs/%(first)s && mount --bind seen/runs/%(first)s seen/runs/%(first)s
mount -o remount,bind,ro seen/runs/%(first)s
run seen; echo "status $?"
umount seen/runs/%(first)s
run seen; echo "status $?"
"""
FULL = """
mount -t tmpfs -o size=20m none disk
run disk/dir & driver=$!
until grep -qs '"checkpoint": [0-9]' disk/dir/runs/%(first)s/status.json; do sleep 0.05; done
cat /dev/zero > disk/fill 2>/dev/null
wait $driver; echo "status $?"
rm disk/fill
run disk/dir; echo "status $?"
cp -r disk/dir seen
"""


def in_namespace(script: str, **names: Any) -> str:
    """What a script prints that may mount, seen by nobody else."""
    apart = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make mount namespaces")
    command = [*apart, "bash", "-c", (HEAD + script) % {"python": sys.executable, **names}]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500, check=True
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "script", "says"),
    [
        ("local", READ_ONLY, "the file system is read-only"),
        ("local", FULL, "no space left on the device"),
        ("ray", FULL, "no space left on the device"),
    ],
    ids=["read-only", "full", "full, on Ray"],
)
def test_a_disk_that_refuses_costs_only_the_runs_that_need_it(
    tiny: Path, tmp_path: Path, results: Any, undisturbed: Any, engine: str, script: str, says: str
) -> None:
    study = load_study(tiny, ["more"], debug=True)
    first = study.runs[0]
    told = in_namespace(script, engine=engine, file=tiny, place=tmp_path, first=first.name)
    assert "status 7" in told and told.rstrip().endswith("2 of 2 runs finished\nstatus 0"), told
    failed, _, after = told.partition("status 7")
    assert says in failed and f"{first.name} failed 2 times" in failed and "2 of 2" in after, told
    assert results(study, lambda run: run_folder(tmp_path / "seen", run)) == undisturbed(study, tmp_path / "alone")
