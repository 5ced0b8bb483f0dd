"""Read torch's zip archives, those of torch.save and of TorchScript, without running anything, and safetensors.

An archive holds data.pkl, a pickle of the structure, and data/0, data/1, …, the storages. The unpickler here knows the
few names of `NAMES` and no others. A TorchScript archive is a program as well, in code/, which is never opened: its
classes become plain holders of attributes, and its modules' tensors are named as `state_dict` names them.

Tensors stay in the file until `Stored.load`, so that what an encoder does not use is not read.
"""

import io
import json
import math
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pvr_zoo.errors import UnsafeWeights

STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
NAMES: dict[str, Any] = {
    **STORAGES,
    **{f"torch {str(dtype).removeprefix('torch.')}": dtype for dtype in STORAGES.values()},
    **{f"{module} {kind.__name__}": kind for module in ("__builtin__", "builtins") for kind in (dict, list, set)},
    "collections OrderedDict": OrderedDict,
    "collections defaultdict": defaultdict,  # in R2D2's files
    "torch Size": torch.Size,
    "torch device": torch.device,
}
REBUILT = {f"torch._utils _rebuild_{kind}" for kind in ("tensor", "tensor_v2", "parameter")}
LISTS = {f"torch.jit._pickle build_{kind}list" for kind in ("int", "double", "bool", "tensor")}
_SAFETENSORS = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}
_MOST = 100_000  # modules and tensors; a few hundred bytes can describe a tree without end


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: `count` numbers from byte `start`, seen through size and stride."""

    path: Path
    start: int
    dtype: torch.dtype
    count: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> Tensor:
        """Read it; floating-point numbers of any width become float32."""
        flat = torch.empty(self.count, dtype=self.dtype)
        raw: Any = flat.view(torch.uint8).numpy()  # the same memory
        with self.path.open("rb") as file:
            file.seek(self.start)
            if file.readinto(raw) < flat.nbytes:
                raise EOFError("the file ends within a tensor")
        tensor = flat.as_strided(self.size, self.stride)
        return tensor.float() if tensor.is_floating_point() else tensor


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    names = archive.namelist()
    return any(name.split("/")[1:2] == ["code"] or name.endswith("/constants.pkl") for name in names)


def read_zip(path: Path) -> Any:
    """What torch.save saved, or a TorchScript module's tensors by name; `Stored` for each tensor.

    Raises UnsafeWeights for anything that is neither tensors nor containers, and whatever damage makes zipfile, pickle
    and torch raise.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        (entry,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
        root = entry.removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise ValueError("its numbers are in big-endian order")
        content = _Unpickler(path, root, archive, file).load()
        if is_torchscript(archive):
            return dict(_tensors(content, ""))
        return content


class Holder:
    """A TorchScript module: attributes without behaviour."""


class _Unpickler(pickle.Unpickler):
    """Of an archive's data.pkl."""

    def __init__(self, path: Path, root: str, archive: zipfile.ZipFile, file: BinaryIO) -> None:
        super().__init__(io.BytesIO(archive.read(root + "data.pkl")))
        self.path, self.root, self.archive, self.file = path, root, archive, file

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module} {name}"
        if is_script_class(full):
            return type(name, (Holder,), {})  # one for each use: what the pickle sets on it goes no further
        if full in REBUILT:
            return self.parameter if full.endswith("parameter") else self.tensor
        if full in LISTS:
            return list
        if full not in NAMES:
            raise UnsafeWeights(f"the weights file names {module}.{name}", where=str(self.path))
        return NAMES[full]

    def persistent_load(self, identity: Any) -> Stored:
        kind, dtype, key, _, count = identity
        entry = self.archive.getinfo(f"{self.root}data/{key}")
        if kind != "storage" or entry.compress_type or entry.flag_bits & 1 or entry.file_size != count * dtype.itemsize:
            raise ValueError(f"storage {key} is not what the archive says it is")
        self.file.seek(entry.header_offset + 26)
        lengths = self.file.read(4)  # of the name and of the padding that follow the header's 30 bytes
        start = entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        return Stored(self.path, start, dtype, count, (count,), (1,))

    def tensor(self, storage: Stored, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Stored:
        count = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if math.prod(size) else 0
        if min((offset, *size, *stride)) < 0 or offset + count > storage.count:
            raise ValueError("a tensor lies outside of its storage")
        start = storage.start + offset * storage.dtype.itemsize
        return Stored(self.path, start, storage.dtype, count, tuple(size), tuple(stride))

    def parameter(self, tensor: Stored, *_: Any) -> Stored:
        return tensor


def is_script_class(full: str) -> bool:
    """Whether a pickled name ("module name") is a class of the archive's own program."""
    return full.split(" ")[0].split(".")[0] == "__torch__"


def _tensors(content: Any, prefix: str) -> Iterator[tuple[str, Stored]]:
    """Name and tensor of every tensor in a tree of holders; constants are passed over."""
    waiting, seen = [(prefix, content)], 0
    while waiting:
        name, value = waiting.pop()
        seen += 1
        if seen > _MOST:
            raise ValueError(f"its modules hold more than {_MOST} values")
        if isinstance(value, Stored):
            yield name, value
        elif isinstance(value, Holder):
            waiting += [(f"{name}.{key}" if name else key, part) for key, part in reversed(vars(value).items())]
        elif not _constant(value):
            raise UnsafeWeights(f"the TorchScript archive holds {name!r} of type {type(value).__name__}")


def _constant(value: Any) -> bool:
    """Whether it is a number, a text, nothing, or a list of these."""
    if isinstance(value, list | tuple):
        return all(part is None or isinstance(part, bool | int | float | str) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def read_safetensors(path: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file; raises SafetensorError where the header does not fit the file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt"):
        pass  # checks that every tensor lies within the file and has the bytes that its shape needs
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        size = tuple(entry["shape"])
        stride = tuple(math.prod(size[place + 1 :]) for place in range(len(size)))
        start, dtype = 8 + length + entry["data_offsets"][0], _SAFETENSORS[entry["dtype"]]
        found[name] = Stored(path, start, dtype, math.prod(size), size, stride)
    return found
