"""Atomic files, journals, sealed JSON, the lock, and what a run folder refuses."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl_pvr import runfolder, storage
from mbrl_pvr.errors import ConfigError, IntegrityError, RunLocked, StorageError
from mbrl_pvr.lock import lock
from mbrl_pvr.runfolder import RunFolder, read_run, read_status
from mbrl_pvr.storage import Journal, digest, plain, read_sealed, sealed_json, write_atomic

CONFIG = {"seed": 1, "agent": {"name": "tdmpc2", "lr": 3e-4}, "list": [1, 2]}


def differences(old, new):
    return [f"{k}: {old[k]} -> {new[k]}" for k in old if old[k] != new[k]]


def open_run(path, config=CONFIG):
    return RunFolder.open(path, config, identity=config, diff=differences)


# ---- files ---------------------------------------------------------------------------------------------------------


def test_write_atomic_replaces_and_says_what_it_wrote(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    entry = write_atomic(path, iter([b"ne", memoryview(b"w")]))
    assert path.read_bytes() == b"new"
    assert entry == storage.hash_file(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_atomic_goes_on_after_short_writes(tmp_path):
    class Short(storage.Syscalls):
        def __call__(self, name, *args):
            return super().__call__(name, args[0], args[1][:3]) if name == "write" else super().__call__(name, *args)

    with storage.using(Short()):
        write_atomic(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_replace_atomic_for_libraries_keeps_the_ending_and_forgets_failures(tmp_path):
    path = tmp_path / "latents.npz"
    with storage.replace_atomic(path) as temporary:
        np.savez(temporary, a=np.arange(3))
        assert not path.exists()
    with np.load(path, allow_pickle=False) as stored:
        assert stored["a"].tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError), storage.replace_atomic(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["latents.npz"]


def test_plain_turns_what_json_lacks_into_null_and_numbers():
    value = {
        "a": float("nan"),
        "b": [np.float32(np.inf), np.int64(3)],
        "c": torch.tensor([1.0, float("nan")]),
        4: Path("/x"),
    }
    assert plain(value) == {"a": None, "b": [None, 3], "c": [1.0, None], "4": "/x"}
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_every_flip_and_cut_of_sealed_json_is_noticed(tmp_path):
    path, data = tmp_path / "m.json", sealed_json({"x": 1e-05, "text": 'é"sha256": ""', "list": [None, True]})
    path.write_bytes(data)
    assert read_sealed(path) == {"x": 1e-05, "text": 'é"sha256": ""', "list": [None, True]}
    changed = [data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(len(data)) for bit in range(8)]
    for bad in [*changed, *(data[:n] for n in range(len(data))), data + b"\n", b""]:
        path.write_bytes(bad)
        with pytest.raises(IntegrityError, match=r"m\.json"):
            read_sealed(path)


def test_a_disk_that_refuses_a_library_is_told_with_the_path_and_other_errors_pass(tmp_path):
    for number, expected in ((errno.ENOSPC, StorageError), (errno.EPIPE, BrokenPipeError)):
        with pytest.raises(expected) as caught, storage.replace_atomic(tmp_path / "film.mp4"):
            raise OSError(number, os.strerror(number))
        if expected is StorageError:
            assert (caught.value.where, caught.value.what[:10]) == (str(tmp_path / "film.mp4"), "no space l")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_told_and_stays_as_it_is(toy, tmp_path):
    storage.require_writable(tmp_path / "deep" / "folder")
    with storage.using(toy.Faulty(0, error=errno.EROFS)), pytest.raises(StorageError, match="read-only") as caught:
        storage.require_writable(tmp_path / "deep")
    assert (caught.value.where, caught.value.hint) == (str(tmp_path), "Choose a folder that you may write to.")
    assert list(tmp_path.iterdir()) == []


# ---- journals ------------------------------------------------------------------------------------------------------


def test_a_journal_is_cut_back_to_what_was_committed(tmp_path):
    path = tmp_path / "log.jsonl"
    with Journal(path) as journal:
        journal.append({"step": 1, "loss": float("nan")})
        committed = journal.commit()
        journal.append({"step": 2, "loss": -float("inf")})
    assert path.read_text() == '{"step": 1, "loss": null}\n{"step": 2, "loss": null}\n'
    with Journal(path) as journal:
        journal.cut(**committed)
        assert journal.commit() == committed
        journal.append({"step": 3})
        assert journal.rows() == [{"step": 1, "loss": None}, {"step": 3}]


def test_a_torn_line_is_dropped_on_opening(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    with Journal(path) as journal:
        journal.append({"a": 3})
        assert journal.rows() == [{"a": 1}, {"a": 3}]


def test_a_journal_that_lost_or_changed_committed_rows_is_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    with Journal(path) as journal:
        for k in range(20):
            journal.append({"k": k})
        committed = journal.commit()
    data = path.read_bytes()
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with Journal(path) as journal, pytest.raises(IntegrityError, match=r"committed \(.*log.jsonl"):
            journal.cut(**committed)
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        with Journal(path) as journal, pytest.raises(IntegrityError, match=r"log.jsonl"):
            journal.cut(**committed)


# ---- the lock ------------------------------------------------------------------------------------------------------


def test_the_second_is_told_who_holds_the_folder(tmp_path):
    held = lock(tmp_path)
    with pytest.raises(RunLocked, match=rf"in use by process {os.getpid()} on .+ since \d{{4}}-") as caught:
        lock(tmp_path)
    assert caught.value.exit_code == 4
    held.release()
    lock(tmp_path).release()


def test_one_of_many_starters_wins_and_no_kill_leaves_a_stale_lock(tmp_path):
    script = Path(__file__).with_name("lock_race.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["winners 1 named True"] * 12 + ["orphan free"]


def test_programs_that_we_start_do_not_inherit_the_lock(tmp_path):
    held = lock(tmp_path)
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        held.release()
        lock(tmp_path).release()
    finally:
        child.kill()
        child.wait()


# ---- the run folder ------------------------------------------------------------------------------------------------


def test_create_then_continue(tmp_path):
    path = tmp_path / "deep" / "ünï ço'de" / "run"
    with open_run(path) as run:
        run.set_manifest({"device": "cpu", "seed": 1})
        run.set_status("running", 5)
    with open_run(path, {**CONFIG}) as run:
        run.set_manifest({"device": "cuda"})  # measured once, then read
        assert (run.config, run.manifest["device"]) == (CONFIG, "cpu")
        assert (run.status["state"], run.status["step"]) == ("running", 5)
    with RunFolder.attach(path) as run:
        assert run.config == CONFIG
    assert json.loads((path / "manifest.json").read_text())["device"] == "cpu"
    assert {k for k in read_status(path) if k.startswith("time/")} == {"time/pid", "time/host", "time/heartbeat"}


def test_another_config_is_refused_with_the_difference(tmp_path):
    open_run(tmp_path / "run").close()
    with pytest.raises(ConfigError, match=r"configuration \(/.*\)\n  seed: 1 -> 2\nGive another --dir\.") as caught:
        open_run(tmp_path / "run", {**CONFIG, "seed": 2})
    assert caught.value.exit_code == 2
    open_run(tmp_path / "run").close()  # and the lock is free again


def test_a_folder_in_use_is_refused(tmp_path):
    with open_run(tmp_path / "run"):
        for again in (open_run, RunFolder.attach):
            with pytest.raises(RunLocked, match="in use by process"):
                again(tmp_path / "run")


def test_foreign_places_are_refused_and_stay_as_they_are(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.yaml").write_text("a: 1")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    for path, message in [
        (tmp_path / "file", "this is a file"),
        (tmp_path / "file" / "below", "this is a file"),
        (tmp_path / "full", "not empty and holds no run"),
        (tmp_path / ("x" * 256), "path is too long"),
        (tmp_path / "/".join(["y" * 200] * 20), "path is too long"),
    ]:
        with pytest.raises(StorageError, match=message):
            open_run(path)
    with pytest.raises(StorageError, match="no run here"):
        RunFolder.attach(tmp_path / "nothing")
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before


def test_an_empty_folder_may_become_a_run(tmp_path):
    open_run(tmp_path).close()
    assert read_run(tmp_path)[0] == CONFIG


@pytest.mark.parametrize(
    ("error", "words"), [(errno.EACCES, "no permission"), (errno.EROFS, "read-only"), (errno.EDQUOT, "quota used up")]
)
def test_a_refusal_of_the_disk_is_put_into_words(toy, tmp_path, error, words):
    with storage.using(toy.Faulty(0, error=error)), pytest.raises(StorageError, match=words) as caught:
        open_run(tmp_path)
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="no permission"):
        open_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_changed_files_of_a_run_are_noticed(tmp_path, name):
    open_run(tmp_path).close()
    data, rng = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    flips = [
        (int(i), 1 << int(b)) for i, b in zip(rng.integers(0, len(data), 100), rng.integers(0, 8, 100), strict=True)
    ]
    for bad in [data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :] for i, bit in flips] + [data[:-1], b""]:
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(IntegrityError, match=name):
            open_run(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(IntegrityError, match="missing"):
        open_run(tmp_path)


def test_a_damaged_status_costs_a_warning_and_no_run(tmp_path, caplog):
    with open_run(tmp_path) as run:
        run.set_status("running", 5)
    status = tmp_path / "status.json"
    data = status.read_bytes()
    for bad in (bytes([data[0] ^ 1]) + data[1:], data[:-2], b"\xff", b"[1]", b""):
        status.write_bytes(bad)
        assert read_status(tmp_path)["state"] == "new"
        caplog.clear()
        with open_run(tmp_path) as run:
            assert run.status == {"state": "new", "step": 0, "checkpoint": None}
        assert [r.getMessage() for r in caplog.records] == [
            f"{status} is damaged and removed; it only reports progress"
        ]
    with RunFolder.attach(tmp_path) as run:
        run.set_status("finished", 9)
    assert read_status(tmp_path)["step"] == 9


def test_a_run_of_a_newer_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runfolder, "FORMAT", 2)
    monkeypatch.setattr(runfolder, "__version__", "9.0")
    open_run(tmp_path).close()
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match=r"newer version: needs mbrl-pvr >= 9\.0"):
        open_run(tmp_path)


# ---- a start that fails ----------------------------------------------------------------------------------------------


def failing_start(path, config=CONFIG):
    with pytest.raises(RuntimeError, match="no weights"), open_run(path, config) as run, run.abandoned_on_error():
        run.set_manifest({"device": "cpu"})
        run.journal("metrics.jsonl")
        raise RuntimeError("no weights")


def test_a_start_that_fails_leaves_what_was_there(tmp_path):
    failing_start(tmp_path / "a" / "b" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    failing_start(tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    with open_run(tmp_path / "mine", {"seed": 2}):  # another configuration may follow
        pass


def test_a_failed_start_keeps_foreign_files_and_runs_that_have_begun(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(RuntimeError), open_run(path) as run, run.abandoned_on_error():
        (path / "notes.txt").write_text("mine")
        raise RuntimeError
    assert sorted(p.name for p in path.iterdir()) == [".lock", "notes.txt"]
    for name, begin in (
        ("row", lambda run: run.journal("metrics.jsonl").append({"step": 1})),
        ("checkpoint", lambda run: (run.path / "checkpoints").mkdir()),
    ):
        with pytest.raises(RuntimeError), open_run(tmp_path / name) as run, run.abandoned_on_error():
            begin(run)
            raise RuntimeError
        assert read_run(tmp_path / name)[0] == CONFIG
    with open_run(tmp_path / "begun") as run:
        run.set_manifest({})
    failing_start(tmp_path / "begun")
    assert read_run(tmp_path / "begun")[0] == CONFIG


def test_a_lock_on_a_file_that_was_removed_is_not_taken_for_one(tmp_path, monkeypatch):
    """Another start opened `.lock`, failed, and removed it before we had locked it."""
    path, real, taken = tmp_path / "run", runfolder.lock, []

    def slow(folder):
        held = real(folder)
        if not taken:
            (folder / ".lock").unlink()
            folder.rmdir()
        taken.append(held)
        return held

    monkeypatch.setattr(runfolder, "lock", slow)
    with open_run(path):
        assert len(taken) == 2
        monkeypatch.undo()
        with pytest.raises(RunLocked):
            lock(path)


def test_a_place_where_no_folder_can_be_made_comes_with_a_hint(tmp_path):
    with pytest.raises(StorageError, match=r"mkdir(.|\n)*Give another --dir"):
        open_run("/proc/no/run")
