"""Read a weights file without ever running code from it.

safetensors, or a torch file whose pickle names nothing but tensors and containers: its names are listed and checked
before anything is built. Archives are then read by our own unpickler (archive.py), also TorchScript's, whose program is
left alone; older files by torch with `weights_only=True`. The file is hashed before it is parsed.
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

from pvr_zoo import archive
from pvr_zoo.errors import UnsafeWeights, WeightsError, WeightsUnavailable
from pvr_zoo.specs import Layout

_ALLOWED = {*archive.NAMES, *archive.REBUILT}
_ANOTHER = "They belong to another architecture or layout."
_FRESH_COPY = "Fetch the file again and compare its checksum."
_DAMAGE = (  # what flipped bytes raise in zipfile, pickletools and torch: senseless lengths, flags, names and keys
    *(AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError),
    *(TypeError, ValueError, zipfile.BadZipFile, zlib.error),
)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path, expected_sha256: str = "") -> tuple[dict[str, Any], str]:
    """The contents of a weights file and the file's SHA-256; tensors may be `archive.Stored`, which `unwrap` loads.

    Raises WeightsUnavailable (no file), WeightsError (damaged, or another checksum) or UnsafeWeights (code).
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsUnavailable(f"the weights file {kind}", where=str(path))
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

    Weights need not be nested, since safetensors cannot do that, but every key that is left must have the prefix:
    without it files of other encoders would fit. Only what is left is read from the file.
    """
    for key, text in layout.says:
        if key in state and state[key] != text:
            raise WeightsError(f"the weights file is of {state[key]!r}, expected is {text!r}", where=str(path))
    for top in layout.top:
        if isinstance(state.get(top), Mapping):
            state = state[top]
    kept = _without(state, layout.drop)
    for prefix in layout.prefix:
        if other := [key for key in kept if not str(key).startswith(prefix)]:
            what = f"the weights file holds {other[0]!r} where every name begins with {prefix!r} in the published file"
            raise WeightsError(what, where=str(path), hint=_ANOTHER)
        kept = _stripped(kept, prefix, layout.drop)
    for prefix in layout.optional:
        if kept and all(str(key).startswith(prefix) for key in kept):
            kept = _stripped(kept, prefix, layout.drop)
    for key, value in kept.items():
        if not isinstance(key, str) or not isinstance(value, Tensor | archive.Stored):
            what = f"the weights file holds {key!r} of type {type(value).__name__} where tensors are expected"
            raise WeightsError(what, where=str(path), hint="It is a checkpoint of another kind.")
    try:
        return {key: _loaded(value) for key, value in kept.items()}
    except _DAMAGE as error:
        raise _damaged(error, path) from error


def _loaded(value: "Tensor | archive.Stored") -> Tensor:
    """The tensor, of half precision as float32 at once: so both are never there of the whole file."""
    tensor = value.load() if isinstance(value, archive.Stored) else value
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _damaged(error: Exception, path: Path) -> WeightsError:
    return WeightsError(f"the weights file is cut short or damaged: {_first_line(error)}", str(path), _FRESH_COPY)


def _without(state: Mapping[str, Any], drop: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if not (isinstance(key, str) and key.startswith(drop))}


def _stripped(state: Mapping[str, Any], prefix: str, drop: tuple[str, ...]) -> dict[str, Any]:
    return _without({key.removeprefix(prefix): value for key, value in state.items()}, drop)


def load_strictly(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Give the network (built on the meta device) exactly these weights, as float32.

    Raises WeightsError with the first missing and the first unexpected key, or the first tensor of a wrong shape or
    kind, that is not finite, or is a variance below zero. Batch counters, which older files lack, are set to zero.
    """
    expected = network.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - state.keys() - counters)
    extra = sorted(state.keys() - expected.keys())
    if missing or extra:
        kinds = ((missing, "missing"), (extra, "extra"))
        parts = [f"{len(keys)} key{'s' * (len(keys) > 1)} {word} (first: {keys[0]})" for keys, word in kinds if keys]
        raise WeightsError(f"the weights do not fit {name}: {', '.join(parts)}", hint=_ANOTHER)
    for key, value in state.items():
        if value.shape != expected[key].shape:
            shapes = f"{tuple(value.shape)}, expected is {tuple(expected[key].shape)}"
            raise WeightsError(f"the weights do not fit {name}: {key} has shape {shapes}", hint=_ANOTHER)
        if value.is_floating_point() != expected[key].is_floating_point():
            dtypes = f"{_kind(value)}, expected is {_kind(expected[key])}"
            raise WeightsError(f"the weights do not fit {name}: {key} is of {dtypes}", hint=_ANOTHER)
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"the weights of {name} are damaged: {key} holds NaN or infinity", hint=_FRESH_COPY)
        if key.endswith("running_var") and (value < 0).any():
            raise WeightsError(f"the weights of {name} are damaged: {key} holds a variance below 0", hint=_FRESH_COPY)
    full = {key: torch.zeros((), dtype=torch.int64) for key in counters}
    full |= {key: value.to(expected[key].dtype).contiguous() for key, value in state.items() if key not in counters}
    network.load_state_dict(full, strict=True, assign=True)


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{")


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError

    try:
        return dict(archive.read_safetensors(path))
    except (SafetensorError, *_DAMAGE) as error:
        raise _damaged(error, path) from error


def _read_torch(path: Path) -> dict[str, Any]:
    zipped = zipfile.is_zipfile(path)
    names: set[str] = set()
    damage: Exception | None = None
    try:
        (_scan_zip if zipped else _scan_legacy)(path, names)
    except _DAMAGE as error:
        damage = error
    foreign = sorted(names - _ALLOWED)
    if foreign and all(name.startswith("torch ") and name.endswith("Storage") for name in foreign):
        kinds = ", ".join(name.removeprefix("torch ").removesuffix("Storage") for name in foreign)
        raise WeightsError(f"the weights file holds tensors of kind {kinds}, which no encoder has", str(path), _ANOTHER)
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
        state = archive.read_zip(path) if zipped else _load_legacy(path)
    except pickle.UnpicklingError as error:
        raise UnsafeWeights(f"the weights file holds more than tensors: {_first_line(error)}", str(path)) from error
    except _DAMAGE as error:
        raise _damaged(error, path) from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"the weights file holds a {type(state).__name__}, not named tensors", str(path), _ANOTHER)
    return dict(state)


def _load_legacy(path: Path) -> Any:
    with torch.serialization.safe_globals([defaultdict, dict, list, set]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200] or type(error).__name__


def _scan_legacy(path: Path, names: set[str]) -> None:
    """Collect every "module name" that unpickling the file would look up, without unpickling.

    This is for the message and as a first wall; the restricted unpickler is the second.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            raise ValueError("its end, where an archive lists its entries, is missing")
        file.seek(0)
        for _ in range(5):  # magic number, protocol, system, weights, storage keys
            _scan_pickle(file, names)


def _scan_zip(path: Path, names: set[str]) -> None:
    """The same for an archive; the names of a TorchScript archive's own classes are left out."""
    with zipfile.ZipFile(path) as file:
        pickles = [entry for entry in file.namelist() if entry.endswith(".pkl")]
        if not pickles:
            raise ValueError("the archive has no data.pkl")
        for entry in pickles:
            _scan_pickle(io.BytesIO(file.read(entry)), names)
        if archive.is_torchscript(file):
            names -= archive.LISTS | {name for name in names if archive.is_script_class(name)}


def _scan_pickle(stream: IO[bytes], names: set[str]) -> None:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(str(argument))
        elif opcode.name == "STACK_GLOBAL":
            names.add(" ".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
