"""Tensors as safetensors files, piece by piece, so that saving needs no second copy of all weights."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mbrl_pvr.errors import IntegrityError

_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def nbytes(tensors: Mapping[str, Tensor | np.ndarray]) -> int:
    """Bytes of the tensors' data."""
    return sum(t.nbytes for t in tensors.values())


def pieces(
    tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str] | None = None
) -> Iterator[memoryview]:
    """The bytes of a safetensors file: header, then each tensor. The same tensors always give the same bytes."""
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # wide types first keeps data aligned
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        t = tensors[name]
        dtype = _DTYPES[str(t.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in order:
        if tensors[name].nbytes:
            yield _bytes(tensors[name])


def _bytes(t: Tensor | np.ndarray) -> memoryview:
    if isinstance(t, Tensor):
        return t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return np.ascontiguousarray(t).reshape(-1).view(np.uint8).data


def load(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file on the CPU. The caller has verified its checksum. IntegrityError."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"not a safetensors file: {error}", str(path)) from error
