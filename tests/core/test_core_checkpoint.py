"""Damage to a finished run: noticed, reported, stepped back from; never loaded and never a silent restart."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors

from mbrl_pvr import checkpoint, storage
from mbrl_pvr.errors import IntegrityError, StorageError
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.runfolder import RunFolder
from mbrl_pvr.tensorfile import pieces

NEWEST, OLDER = "checkpoints/step_000000009", "checkpoints/step_000000006"


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the finished run, to damage."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def newest_segment(run):
    return json.loads((run / NEWEST / "MANIFEST.json").read_text())["replay"]["segments"][-1]["file"]


def damaged(data: bytes, count: int):
    """`count` single flipped bits and some truncations."""
    rng = np.random.default_rng(1)
    for position, bit in zip(rng.integers(0, len(data), count), rng.integers(0, 8, count), strict=True):
        yield data[:position] + bytes([data[position] ^ (1 << int(bit))]) + data[position + 1 :]
    for length in {0, 1, len(data) // 2, len(data) - 1, len(data) // 512 * 512}:
        yield data[:length]


def test_the_whole_run_keeps_two_checkpoints_and_what_they_need(whole):
    found = checkpoint.latest(whole)
    assert (found.step, found.manifest["sequence"]) == (9, 2)
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == ["step_000000006", "step_000000009"]
    assert [p.name for p in sorted((whole / "replay").iterdir())] == [f"segment_00000{k}.safetensors" for k in range(3)]
    assert found.environment["threads"] == torch.get_num_threads()
    assert checkpoint.inexact(found, "cpu") == []


@pytest.mark.parametrize("name", ["agent.safetensors", "meta.json", "MANIFEST.json", "segment"])
def test_flips_and_truncations_of_every_file_lead_to_the_one_before(run, name):
    path = run / (newest_segment(run) if name == "segment" else f"{NEWEST}/{name}")
    data = path.read_bytes()
    for bad in damaged(data, 100):
        path.write_bytes(bad)
        lines = []
        assert checkpoint.latest(run, lines.append).step == 6
        assert "checkpoint 9 is damaged" in lines[0]
        assert path.name in lines[0]
        assert "continuing from checkpoint 6; 3 steps are lost" in lines[1]
    path.unlink()
    assert checkpoint.latest(run, lines.append).step == 6
    assert "missing" in lines[-2]


def test_after_stepping_back_the_run_ends_the_same(toy, whole, run):
    path = run / NEWEST / "agent.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    lines = []
    toy.train(run, warn=lines.append)
    assert len(lines) == 2
    assert fingerprint(run) == fingerprint(whole)


def test_a_damaged_checkpoint_cannot_come_to_life_after_stepping_back(toy, whole, run):
    """The logs have been cut for the older one by then."""
    path = run / NEWEST / "agent.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with RunFolder.attach(run) as opened:
        assert checkpoint.restore(opened, lambda line: None).step == 6
    assert (run / f"{NEWEST}.damaged").is_dir()
    (run / f"{NEWEST}.damaged" / "agent.safetensors").write_bytes(data)
    toy.train(run)
    assert fingerprint(run) == fingerprint(whole)


@pytest.mark.parametrize("cut", [False, True], ids=["flipped", "cut"])
@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "metrics.jsonl", "replay/segment_000001.safetensors"])
def test_damage_that_nothing_makes_up_for_comes_with_what_to_do(toy, run, name, cut):
    data = (run / name).read_bytes()
    middle = len(data) // 2
    (run / name).write_bytes(data[:middle] if cut else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    with pytest.raises(IntegrityError) as caught:
        toy.train(run)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and name in lines[0]
    assert lines[1] == "Restore it from a copy, or start again with another --dir."


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_all_damaged_or_gone_is_an_error_and_no_restart(toy, run, what):
    for folder in (NEWEST, OLDER):
        if what == "missing":
            shutil.rmtree(run / folder)
        else:
            (run / folder / "MANIFEST.json").write_bytes(b"{}")
    before = fingerprint(run)
    with pytest.raises(IntegrityError, match="no checkpoint of this run is whole") as caught:
        toy.train(run)
    assert "checkpoint 9 is" in str(caught.value)
    assert caught.value.exit_code == 3
    assert fingerprint(run) == before


def test_a_newest_checkpoint_that_was_deleted_is_reported(run):
    shutil.rmtree(run / NEWEST)
    lines = []
    assert checkpoint.latest(run, lines.append).step == 6
    assert lines == ["checkpoint 9 is missing", "continuing from checkpoint 6; 3 steps are lost and will be done again"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "episodes.jsonl"])
def test_logs_that_lost_committed_rows_are_named(toy, run, name):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: data.rfind(b"\n", 0, -1) + 1])
    with pytest.raises(IntegrityError, match=rf"committed \(.*{name}"):
        toy.train(run)


def test_checkpoints_of_another_run_or_a_newer_version_are_not_taken(toy, run, monkeypatch, tmp_path):
    monkeypatch.setattr(toy, "CONFIG", {**toy.CONFIG, "seed": 4})
    toy.train(tmp_path / "other")
    monkeypatch.undo()
    shutil.rmtree(run / NEWEST)
    shutil.copytree(tmp_path / "other" / NEWEST, run / NEWEST)
    lines = []
    assert checkpoint.latest(run, lines.append).step == 6
    assert "belongs to another run" in lines[0]
    manifest = storage.read_sealed(run / NEWEST / "MANIFEST.json")
    storage.write_atomic(run / NEWEST / "MANIFEST.json", storage.sealed_json({**manifest, "format": 99}))
    with pytest.raises(IntegrityError, match="newer version"):
        checkpoint.latest(run)


@pytest.mark.parametrize(
    "change", [{"files": None}, {"replay": {"segments": [{"file": "../../etc/passwd"}]}}, {"step": 8}]
)
def test_strange_manifests_are_damage(run, change):
    manifest = storage.read_sealed(run / NEWEST / "MANIFEST.json")
    storage.write_atomic(run / NEWEST / "MANIFEST.json", storage.sealed_json({**manifest, **change}))
    assert checkpoint.latest(run, lambda line: None).step == 6


def test_a_disk_that_does_not_keep_what_was_written_is_noticed_at_once(toy, run, tmp_path):
    class Lying(toy.Faulty):
        def __call__(self, name, *args):
            if name == "write" and b"weights" in bytes(args[1]):
                args = (args[0], bytes(args[1]).replace(b"weights", b"weighty"))
            return super().__call__(name, *args)

    with storage.using(Lying()), pytest.raises(StorageError, match="did not keep what was written"):
        toy.train(tmp_path / "fresh")
    assert list((tmp_path / "fresh" / "checkpoints").iterdir()) == []


def test_a_copied_and_moved_folder_resumes(toy, whole, tmp_path):
    toy.train(tmp_path / "short", steps=6)
    shutil.copytree(tmp_path / "short", tmp_path / "elsewhere")
    toy.train(tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == fingerprint(whole)


def test_tensors_come_back_bit_for_bit():
    tensors = {
        "half": torch.randn(3, 2).half(),
        "brain": torch.randn(5).bfloat16(),
        "double": torch.randn(2, 2, dtype=torch.float64).T,
        "nan": torch.tensor([float("nan"), -0.0]),
        "flags": torch.tensor([True, False, True]),
        "count": torch.tensor(2**40),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "array": np.arange(6, dtype=np.float32)[::2],
    }
    data = b"".join(pieces(tensors, {"note": "x"}))
    back = load_safetensors(data)
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        value = torch.as_tensor(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape
        assert (
            value.contiguous().numpy(force=True).tobytes() == back[name].numpy().tobytes() if name != "brain" else True
        )
        assert torch.equal(back[name].nan_to_num(7), value.nan_to_num(7))
    assert b"".join(pieces(dict(reversed(tensors.items())), {"note": "x"})) == data


def test_at_least_two_are_kept(run):
    with RunFolder.attach(run) as opened, pytest.raises(ValueError, match="keep=1"):
        checkpoint.save(opened, 12, {}, {}, replay=None, device="cpu", keep=1)


def test_an_agent_is_looked_at_without_its_replay(run):
    """Who only evaluates needs the weights; who goes on needs all."""
    (run / newest_segment(run)).unlink()
    assert checkpoint.latest(run, to_continue=False).step == 9
    (run / NEWEST / "agent.safetensors").unlink()
    lines = []
    assert checkpoint.latest(run, lines.append, to_continue=False).step == 6
    assert "taking checkpoint 6 instead, 3 steps earlier" in lines[1]
