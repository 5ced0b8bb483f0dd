"""F2, F4, F5 of the fault catalogue: every system call of a run killed or failed in turn, then resumed."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mbrl_pvr import checkpoint, storage
from mbrl_pvr.errors import StorageError
from mbrl_pvr.fingerprint import fingerprint


@pytest.fixture(scope="module")
def calls(toy, tmp_path_factory):
    """The names of the system calls of one undisturbed run, in order."""
    counting = toy.Faulty()
    with storage.using(counting):
        toy.train(tmp_path_factory.mktemp("counted") / "run")
    return counting.names


def disturbed(toy, path: Path, faulty) -> list[int]:
    """One session under faults; returns the steps whose commit had returned."""
    saved: list[int] = []
    try:
        with storage.using(faulty):
            toy.train(path, saved)
    except (toy.Killed, StorageError):
        pass
    return saved


def newest(path: Path) -> int:
    found = checkpoint.latest(path) if (path / "manifest.json").exists() else None
    return 0 if found is None else found.step


def finish(toy, path: Path) -> None:
    with storage.using(toy.Faulty()):
        toy.train(path)


@pytest.mark.parametrize("how", ["before", "middle"])  # after call k is before call k + 1
def test_a_kill_at_any_system_call_leaves_newest_or_previous_and_resumes_to_the_same_end(
    toy, whole, calls, how, tmp_path
):
    wanted = fingerprint(whole)
    at = [k for k, name in enumerate(calls) if how != "middle" or name == "write"]
    for k in at:
        path = tmp_path / str(k)
        saved = disturbed(toy, path, toy.Faulty(k, how))
        committed = max(saved, default=0)
        assert newest(path) in (committed, committed + toy.EVERY), f"call {k}, {calls[k]}"
        finish(toy, path)
        assert fingerprint(path) == wanted, f"call {k}, {calls[k]}"
    assert len(at) > 20


def test_the_run_commits_through_every_kind_of_call(calls):
    assert {"open", "write", "fsync", "close", "rename", "unlink", "rmdir", "mkdir", "ftruncate", "statvfs"} <= set(
        calls
    )


def test_a_kill_during_the_recovery_from_a_kill_changes_nothing(toy, whole, calls, tmp_path):
    wanted = fingerprint(whole)
    for k in range(5, len(calls), 11):
        for again in range(k % 4, 60, 13):
            path = tmp_path / f"{k}-{again}"
            disturbed(toy, path, toy.Faulty(k))
            before = newest(path)
            disturbed(toy, path, toy.Faulty(again))
            assert newest(path) >= before
            finish(toy, path)
            assert fingerprint(path) == wanted, (k, again)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failing_call_is_a_storage_error_in_one_line_and_costs_no_checkpoint(toy, whole, calls, error, tmp_path):
    wanted = fingerprint(whole)
    raised = 0
    for k in range(error == errno.EIO, len(calls), 2):  # every call fails once, half of them in each way
        path, saved, faulty = tmp_path / str(k), [], toy.Faulty(k, error=error)
        try:
            with storage.using(faulty):
                toy.train(path, saved)
        except StorageError as caught:
            raised += 1
            assert caught.exit_code == 5
            assert "\n" not in str(caught)
            assert str(path.parent) in str(caught)
        assert newest(path) >= max(saved, default=0), f"call {k}, {calls[k]}"
        leftovers = [p for p in path.rglob("*") if storage.TEMPORARY in p.name and p.is_file()]
        assert not leftovers or calls[k] in ("unlink", "close", "rename", "rmdir"), (calls[k], leftovers)
        finish(toy, path)
        assert fingerprint(path) == wanted, f"call {k}, {calls[k]}"
    assert raised > 0.9 * len(calls) / 2


def test_what_a_checkpoint_needs_is_on_the_disk_before_it_appears_and_older_ones_go_after(toy, tmp_path):
    """Against power loss: nothing unsynced at the rename that commits, its folder synced before a removal."""
    step = re.compile(r"/checkpoints/step_\d{9}\Z")
    commits = removals = 0

    class Careful(toy.Faulty):
        unsynced, folders, open = set(), set(), {}  # unsynced files and folders; paths of open files

        def __call__(self, name, *args):
            nonlocal commits, removals
            path = str(args[0])
            if name == "rename" and step.search(str(args[1])):
                commits += 1
                assert not self.unsynced
                assert self.folders <= {str(Path(args[1]).parent)}
            elif (name == "rename" and step.search(path)) or (name == "unlink" and "segment" in path):
                removals += 1
                assert not {f for f in self.folders if "replay" not in f}
            elif name == "rename":
                assert path not in self.unsynced
            result = super().__call__(name, *args)
            if name == "open":
                self.open[result] = path
                if args[1] & os.O_CREAT and ".lock" not in path:
                    self.folders.add(str(Path(path).parent))
            elif name in ("write", "ftruncate") and ".lock" not in self.open[args[0]]:
                self.unsynced.add(self.open[args[0]])
            elif name == "fsync":
                self.unsynced.discard(self.open[args[0]])
                self.folders.discard(self.open[args[0]])
            elif name in ("rename", "unlink", "mkdir", "rmdir"):
                self.folders.add(str(Path(args[-1] if name == "rename" else args[0]).parent))
                self.folders.discard(path)
            return result

    with storage.using(Careful()):
        toy.train(tmp_path / "run")
    assert commits == 3
    assert removals >= 1


def test_no_space_names_both_numbers(toy, tmp_path):
    with storage.using(toy.Faulty(1, error=errno.ENOSPC)), pytest.raises(StorageError) as caught:
        storage.write_atomic(tmp_path / "file", b"x" * 12345)
    assert "no space left" in str(caught.value)
    assert "12,345 bytes needed" in str(caught.value)
    assert "free" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_space_is_checked_before_anything_is_written(toy, whole, tmp_path):
    class Full(toy.Faulty):
        def __call__(self, name, *args):
            result = super().__call__(name, *args)
            if name == "statvfs":
                return type("stat", (), {"f_bavail": 10, "f_frsize": 100})
            return result

    with storage.using(Full()), pytest.raises(StorageError, match=r"a checkpoint needs [\d,]+ bytes, 1,000 are free"):
        toy.train(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "replay").exists()


def test_real_kills_of_real_processes_at_every_call(toy, tmp_path):
    script = Path(toy.__file__)
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "surprise" not in done.stdout, done.stdout
    assert int(done.stdout.split("kills: ")[1]) > 100
