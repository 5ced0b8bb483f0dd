"""Weights files that are damaged, foreign or hostile: the right class, the file's name, and no code run."""

import os
import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import pvr_zoo
from pvr_zoo import UnsafeWeights, WeightsError, WeightsUnavailable, archive, checkpoint, verify
from pvr_zoo.network import bare
from pvr_zoo.specs import Layout

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.float16)}


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "safetensors under another name"])
def test_good_files_are_read_and_hashed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind.startswith("safetensors"):
        save_file(STATE, path)
    else:
        torch.save(OrderedDict(STATE), path, _use_new_zipfile_serialization=kind == "zip")
    read, sha256 = checkpoint.read(path)
    state = checkpoint.unwrap(read, Layout(), path)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)
    assert checkpoint.read(path, sha256)[1] == sha256


class Canary:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("wrapping", ["bare pickle", "torch zip", "torch legacy", "beside weights"])
def test_code_is_never_run(tmp_path: Path, protocol: int, wrapping: str) -> None:
    target, path = tmp_path / "owned", tmp_path / "evil.pth"
    canary: object = Canary(target)
    if wrapping == "bare pickle":
        path.write_bytes(pickle.dumps(canary, protocol))
    else:
        content = {**STATE, "x": canary} if wrapping == "beside weights" else canary
        zipped = wrapping != "torch legacy"
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeWeights, match=r"may run code.*mkdir") as caught:
        pvr_zoo.create("resnet18_in1k", weights=path)
    assert not target.exists()
    assert caught.value.exit_code == 6
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UnsafeWeights, match=r"torch\.nn\.modules\.linear\.Linear"):
        checkpoint.read(path)


class Net(torch.nn.Module):
    """What a TorchScript archive may hold: weights of two widths, buffers, a view, constants, modules in modules."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 2))
        self.norm = torch.nn.BatchNorm2d(3)
        self.proj = torch.nn.Parameter(torch.arange(4.0).half())
        self.register_buffer("resolution", torch.tensor(224))
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4)[1:, ::2].t())
        self.sizes, self.kind = [1, 2], "net"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def script(module: torch.nn.Module, path: Path) -> Path:
    """The module as a TorchScript archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is deprecated
        torch.jit.save(torch.jit.script(module), path)
    return path


def rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Put the archive together again with changed entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def test_the_tensors_of_a_torchscript_archive_are_read(tmp_path: Path) -> None:
    path = script(Net(), tmp_path / "net.pt")
    state = checkpoint.unwrap(checkpoint.read(path)[0], Layout(drop=("resolution",)), path)
    wanted = {key: value for key, value in Net().state_dict().items() if key != "resolution"}
    assert state.keys() == wanted.keys()
    for key in wanted.keys() - {"inner.1.weight", "inner.1.bias"}:  # drawn at random
        assert torch.equal(state[key], wanted[key].float() if wanted[key].is_floating_point() else wanted[key])


def test_the_program_in_a_torchscript_archive_is_not_even_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its code replaced by what would do harm, the archive reads as before: neither parsed nor run."""
    path = script(Net(), tmp_path / "net.pt")
    wanted = checkpoint.unwrap(checkpoint.read(path)[0], Layout(), path)
    harm = f"def forward(self, x):\n  ops.aten.save(x, '{tmp_path / 'owned'}')\n  while True:\n    pass\n".encode()
    rewrite(path, lambda name, content: harm if "/code/" in name else content)
    for function in ("torch.jit.load", "torch.load", "torch._C.import_ir_module"):
        monkeypatch.setattr(function, lambda *_, **__: pytest.fail("the archive was handed to torch"))
    state = checkpoint.unwrap(checkpoint.read(path)[0], Layout(), path)
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("entry", ["data.pkl", "constants.pkl"])
def test_code_in_the_pickle_of_a_torchscript_archive_is_never_run(tmp_path: Path, entry: str) -> None:
    target, path = tmp_path / "owned", script(Net(), tmp_path / "net.pt")
    evil = pickle.dumps(Canary(target), 2)
    rewrite(path, lambda name, content: evil if name.endswith(f"/{entry}") else content)
    with pytest.raises(UnsafeWeights, match=r"may run code.*mkdir"):
        checkpoint.read(path)
    system = b"c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00acos\nsystem\nX\x04\x00\x00\x00trueu\x85Rsb."
    rewrite(path, lambda name, content: system if name.endswith(f"/{entry}") else content)
    with pytest.raises(UnsafeWeights, match=r"may run code.*os\.system"):
        checkpoint.read(path)
    assert not target.exists()


def test_the_unpickler_alone_refuses_code(tmp_path: Path) -> None:
    """The second wall, without the listing of names that stands before it."""
    target, path = tmp_path / "owned", script(Net(), tmp_path / "net.pt")
    rewrite(path, lambda name, content: pickle.dumps(Canary(target)) if name.endswith("/data.pkl") else content)
    with pytest.raises(UnsafeWeights, match="mkdir"):
        archive.read_zip(path)
    assert not target.exists()


class Tensors(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = [torch.ones(2), torch.ones(3)]

    def forward(self) -> int:
        return len(self.parts)


def test_a_torchscript_module_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeWeights, match="TorchScript archive holds 'parts' of type list"):
        checkpoint.read(script(Tensors(), tmp_path / "tensors.pt"))


def test_a_tree_of_modules_without_end_is_refused(tmp_path: Path) -> None:
    path = script(Net(), tmp_path / "net.pt")
    holder = b"c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."  # a module that is its own attribute `a`
    rewrite(path, lambda name, content: holder if name.endswith("/data.pkl") else content)
    with pytest.raises(WeightsError, match="more than 100000 values"):
        checkpoint.read(path)


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_what_the_layout_drops_is_not_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    save_file(STATE, path) if kind == "safetensors" else torch.save(STATE, path)
    loaded: list[tuple[int, ...]] = []
    load = archive.Stored.load
    monkeypatch.setattr(archive.Stored, "load", lambda stored: loaded.append(stored.size) or load(stored))
    state = checkpoint.unwrap(checkpoint.read(path)[0], Layout(drop=("weight",)), path)
    assert loaded == [(2,)]
    assert state["half"].dtype == torch.float32  # half the memory of keeping both


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"  \n", "0 bytes"),
        (b"<!DOCTYPE html><html><head><title>Sign in</title>", "looks like HTML"),
        (b"\n<html>quota exceeded</html>", "looks like HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        (b"hello, I am no checkpoint", "neither safetensors nor"),
        (b"PK\x03\x04 and then nothing", "neither safetensors nor"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all}", "cut short or damaged"),
    ],
)
def test_files_that_hold_no_weights(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        pvr_zoo.create("resnet18_in1k", weights=path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)


def written(folder: Path, kind: str, state: dict[str, torch.Tensor]) -> Path:
    """A file of that format."""
    path = folder / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    path = written(tmp_path, kind, {f"layer{i}.weight": torch.randn(20, 30) for i in range(10)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"damaged|whole torch file"):
        checkpoint.read(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")  # torch's, on a byte that was flipped
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bytes_are_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    """Formats without checksums may be read with other numbers; no other error than the zoo's own gets out."""
    path = written(tmp_path, kind, {f"layer{i}.weight": torch.randn(3, 4) for i in range(4)})
    whole = path.read_bytes()
    noise = random.Random(4)
    refused = 0
    for _ in range(120):
        damaged = bytearray(whole)
        for _ in range(noise.choice((1, 4))):
            damaged[noise.randrange(len(damaged))] = noise.choice((0, 255, noise.randrange(256)))
        path.write_bytes(damaged)
        try:
            checkpoint.read(path)
        except (WeightsError, UnsafeWeights) as error:
            refused += 1
            assert str(path) in str(error) and len(str(error).splitlines()) <= 2
    assert refused > 30


# flipped bytes whose errors got out once
def _storage_key(data: bytes) -> bytes:
    place = data.rindex(b"]q\x00(X") + 9  # first digit in the list of keys at the end
    return data[:place] + b"7" + data[place + 1 :]


def _huge_string(data: bytes) -> bytes:
    return b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f" + data


def _encrypted(data: bytes) -> bytes:
    local, central = data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8
    changed = bytearray(data)
    changed[local] |= 1
    changed[central] |= 1
    return bytes(changed)


def _said_to_be_deflated(data: bytes) -> bytes:
    place = data.index(b"PK\x01\x02") + 10
    return data[:place] + b"\x08" + data[place + 1 :]


def _wrong_offset(data: bytes) -> bytes:
    place = data.rindex(b"PK\x06\x06") + 48  # where the directory of the archive begins
    return data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :]


@pytest.mark.parametrize(
    ("zipped", "damage"),
    [
        (False, _storage_key),
        (False, _huge_string),
        (True, _encrypted),
        (True, _wrong_offset),
        (True, _said_to_be_deflated),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damage_that_once_escaped(tmp_path: Path, zipped: bool, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"damaged|whole torch file"):
        checkpoint.read(path)


def test_missing_file_and_wrong_checksum(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"does not exist \(.*no\.pth\)") as caught:
        pvr_zoo.create("resnet18_in1k", weights=tmp_path / "no.pth")
    assert caught.value.exit_code == 8
    path = tmp_path / "x.safetensors"
    save_file(STATE, path)
    sha256 = checkpoint.file_sha256(path)
    with pytest.raises(WeightsError, match=f"hashes to {sha256}, expected is {'0' * 64}"):
        checkpoint.read(path, "0" * 64)


def test_checksum_is_compared_before_anything_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Canary(tmp_path / "owned")))
    with pytest.raises(WeightsError, match="hashes to"):
        checkpoint.read(path, "0" * 64)


def test_another_architecture_names_the_first_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7), "zz.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"do not fit resnet18_in1k.*first: bn1\.bias.*first: zz\.weight"):
        pvr_zoo.create("resnet18_in1k", weights=path)


def test_values_that_are_not_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"state_dict": STATE, "epoch": 3}, path)
    state, _ = checkpoint.read(path)
    with pytest.raises(WeightsError, match="'epoch' of type int"):
        checkpoint.unwrap({"epoch": 3, **STATE}, Layout(), path)
    assert checkpoint.unwrap(state, Layout(top=("state_dict",)), path).keys() == STATE.keys()
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds a list"):
        checkpoint.read(path)


def test_layouts_are_unwrapped_and_only_named_keys_dropped(tmp_path: Path) -> None:
    layout = Layout(top=("model",), prefix=("module.",), drop=("fc.", "decoder"))
    wrapped = {
        "model": {"module.fc.weight": STATE["weight"], "module.decoder_x": STATE["half"], "module.a": STATE["half"]}
    }
    assert checkpoint.unwrap(wrapped, layout, tmp_path).keys() == {"a"}
    for other in ("b", "fcx"):  # without the prefix it is a file of something else that has the same names
        with pytest.raises(WeightsError, match=f"holds '{other}' where every name begins with 'module.'"):
            checkpoint.unwrap({"module.a": STATE["half"], other: STATE["half"]}, layout, tmp_path)
    free = Layout(optional=("module.",), drop=("fc.",))
    assert checkpoint.unwrap({"module.a": STATE["half"], "fc.a": STATE["half"]}, free, tmp_path).keys() == {"a"}
    mixed = {"module.a": STATE["half"], "fcx": STATE["half"]}  # what only some keys have is part of the name
    assert checkpoint.unwrap(mixed, free, tmp_path).keys() == mixed.keys()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("bn1.running_var", torch.full((64,), -0.1), "bn1.running_var holds a variance below 0"),
        ("conv1.weight", torch.ones(64, 3, 7, 7, dtype=torch.int32), "conv1.weight is of int32, expected is float32"),
        ("conv1.weight", torch.ones(64, 3, 7, 7, dtype=torch.complex64), "of kind ComplexFloat, which no encoder has"),
    ],
)
def test_numbers_that_no_network_has(key: str, value: torch.Tensor, words: str, tmp_path: Path) -> None:
    state = verify.synthetic({k: list(v.shape) for k, v in bare(pvr_zoo.spec("resnet18_in1k")).state_dict().items()})
    torch.save(state | {key: value}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=words):
        pvr_zoo.create("resnet18_in1k", weights=tmp_path / "x.pth")
