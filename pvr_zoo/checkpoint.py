"""Read a weights file without ever running code from it.

safetensors, or a torch archive whose pickle names nothing but tensors and containers: its names are listed and checked
before torch sees it, and torch then reads it with `weights_only=True`. The file is hashed before it is parsed.
"""

import hashlib
import io
import pickle
import pickletools
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from pvr_zoo.errors import UnsafeWeights, WeightsError, WeightsUnavailable
from pvr_zoo.specs import Layout

_CONTAINERS = {"collections defaultdict"} | {  # R2D2's files hold them
    f"{module} {name}" for module in ("__builtin__", "builtins") for name in ("dict", "list", "set")
}
_HARMLESS = {"collections OrderedDict", "torch Size", "torch device", "torch.serialization _get_layout"} | {
    f"torch._utils {name}" for name in ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_tensor")
}
_STORAGES = {
    f"torch {kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
_DTYPES = {f"torch {name}" for name in ("float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool")}
_ALLOWED = _HARMLESS | _CONTAINERS | _STORAGES | _DTYPES
_FRESH_COPY = "Fetch the file again and compare its checksum."
_DAMAGE = (  # what flipped bytes raise in zipfile, pickletools and torch: senseless lengths, flags, names and keys
    *(AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError),
    *(TypeError, ValueError, zipfile.BadZipFile, zlib.error),
)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path, expected_sha256: str = "") -> tuple[dict[str, Any], str]:
    """The contents of a weights file and the file's SHA-256.

    Raises WeightsUnavailable (no file), WeightsError (damaged, or another checksum) or UnsafeWeights (code).
    """
    if not path.is_file():
        raise WeightsUnavailable("the weights file does not exist", where=str(path))
    check_looks(path)
    sha256 = file_sha256(path)
    if expected_sha256 and sha256 != expected_sha256:
        raise WeightsError(
            f"the weights file hashes to {sha256}, expected is {expected_sha256}", where=str(path), hint=_FRESH_COPY
        )
    state = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    return state, sha256


def check_looks(path: Path) -> None:
    """Raise WeightsError for what downloads turn into when they fail: nothing, a web page, a pointer."""
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    if not head:
        raise WeightsError("the weights file is empty (0 bytes)", where=str(path), hint=_FRESH_COPY)
    if head[:1] == b"<" and any(mark in head.lower() for mark in (b"<html", b"<!doctype", b"<head", b"<?xml")):
        hint = "The download was answered with a page: log in or accept its terms in a browser, then fetch it again."
        raise WeightsError("the weights file is a web page (it looks like HTML)", where=str(path), hint=hint)
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError("the weights file is a Git LFS pointer", where=str(path), hint="Run `git lfs pull`.")


def unwrap(state: Mapping[str, Any], layout: Layout, path: Path) -> dict[str, Tensor]:
    """The network's own keys and tensors: wrapping removed, and the keys that the layout drops.

    A prefix is stripped where every key that is left has it.
    """
    for top in layout.top:
        if isinstance(state.get(top), Mapping):
            state = state[top]
    kept = _without(state, layout.drop)
    for prefix in layout.prefix:
        if kept and all(isinstance(key, str) and key.startswith(prefix) for key in kept):
            kept = _without({key.removeprefix(prefix): value for key, value in kept.items()}, layout.drop)
    for key, value in kept.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            what = f"the weights file holds {key!r} of type {type(value).__name__} where tensors are expected"
            raise WeightsError(what, where=str(path), hint="It is a checkpoint of another kind.")
    return kept


def _without(state: Mapping[str, Any], drop: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if not (isinstance(key, str) and key.startswith(drop))}


def load_strictly(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Give the network (built on the meta device) exactly these weights, as float32.

    Raises WeightsError with the first missing and the first unexpected key, the first wrong shape, or the first tensor
    that is not finite. Batch counters, which older files lack, are set to zero.
    """
    expected = network.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - state.keys() - counters)
    extra = sorted(state.keys() - expected.keys())
    if missing or extra:
        kinds = ((missing, "missing"), (extra, "extra"))
        parts = [f"{len(keys)} keys {word} (first: {keys[0]})" for keys, word in kinds if keys]
        raise WeightsError(
            f"the weights do not fit {name}: {', '.join(parts)}", hint="They belong to another architecture or layout."
        )
    for key, value in state.items():
        if value.shape != expected[key].shape:
            shapes = f"{tuple(value.shape)}, expected is {tuple(expected[key].shape)}"
            raise WeightsError(f"the weights do not fit {name}: {key} has shape {shapes}")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"the weights of {name} are damaged: {key} holds NaN or infinity")
    full = {key: torch.zeros((), dtype=torch.int64) for key in counters}
    full |= {key: value.to(expected[key].dtype).contiguous() for key, value in state.items() if key not in counters}
    network.load_state_dict(full, strict=True, assign=True)


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{")


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"the weights file is cut short or damaged: {error}", str(path), _FRESH_COPY) from error


def _read_torch(path: Path) -> dict[str, Any]:
    names: set[str] = set()
    damage: Exception | None = None
    try:
        _scan(path, names)
    except _DAMAGE as error:
        damage = error
    foreign = sorted(names - _ALLOWED)
    if foreign:
        raise UnsafeWeights(
            f"the weights file may run code when it is opened: it names {', '.join(foreign[:5]).replace(' ', '.')}",
            where=str(path),
            hint="Only tensors are accepted. Convert it to safetensors on a machine where you trust the file.",
        )
    if damage is not None:
        what = f"the weights file is neither safetensors nor a whole torch file: {_first_line(damage)}"
        raise WeightsError(what, where=str(path), hint=_FRESH_COPY) from damage
    try:
        with torch.serialization.safe_globals([defaultdict, dict, list, set]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeWeights(f"torch refuses the weights file: {_first_line(error)}", str(path)) from error
    except _DAMAGE as error:
        what = f"the weights file is cut short or damaged: {_first_line(error)}"
        raise WeightsError(what, str(path), _FRESH_COPY) from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"the weights file holds a {type(state).__name__}, not named tensors", where=str(path))
    return dict(state)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200] or type(error).__name__


def _scan(path: Path, names: set[str]) -> None:
    """Collect every "module name" that unpickling the file would look up, without unpickling.

    This is for the message and as a first wall; torch's restricted unpickler is the second.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(5):  # the old format: magic number, protocol, system, weights, storage keys
                _scan_pickle(file, names)
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        if any(entry.split("/")[1:2] == ["code"] or entry.endswith("constants.pkl") for entry in entries):
            hint = "A TorchScript archive is a program. Save its state_dict as safetensors."
            raise UnsafeWeights("the weights file is a TorchScript archive", where=str(path), hint=hint)
        pickles = [entry for entry in entries if entry.endswith(".pkl")]
        if not pickles:
            raise ValueError("the archive has no data.pkl")
        for entry in pickles:
            _scan_pickle(io.BytesIO(archive.read(entry)), names)


def _scan_pickle(stream: IO[bytes], names: set[str]) -> None:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(str(argument))
        elif opcode.name == "STACK_GLOBAL":
            names.add(" ".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
