"""Reading and writing single files: everything read is distrusted, everything written appears whole or not at all."""

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from numpy.lib import format as npy

from analysis.errors import NOT_WRITTEN, AnalysisError, damaged

if TYPE_CHECKING:
    import pyarrow as pa

MAX_YAML_BYTES = 1_000_000
MAX_YAML_ALIASES = 20  # merged aliases multiply: a few dozen can fill the memory
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where libyaml is there: ten times faster
_SEED = re.compile(rb"^seed: (\d+)\n", re.MULTILINE)  # of the run: those below are indented
LARGE, RATIO = 64 * 2**20, 500  # arrays of more bytes must not come out of a file so many times smaller

TEXT, INTEGER, NUMBER, OPTIONAL = "text", "whole number", "number", "number or null"
_INFERRED = {
    TEXT: {"string"},
    INTEGER: {"integer"},
    NUMBER: {"integer", "floating", "mixed-integer-float"},
    OPTIONAL: {"integer", "floating", "mixed-integer-float", "empty"},
}
# what flipped bytes raise: in the pandas part of a parquet file, and in zip archives (encryption flag, compressed data)
_BAD_PARQUET = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)
_BAD_NPZ = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises AnalysisError where the file is missing, cut or something else."""
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise damaged(f"{path.name} is not valid JSON: {error}", path) from error
    if not isinstance(value, dict):
        raise damaged(f"{path.name} holds a {type(value).__name__} instead of an object", path)
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of plain data, no tags; raises AnalysisError where the file is missing, cut or something else."""
    return _with_place(read_bytes(path), path)


def read_settings(path: Path) -> dict[str, Any]:
    """As `read_yaml`, for the configuration of a run: many differ in the line of their seed alone, and are parsed once.
    Not to be changed.
    """
    data = read_bytes(path)
    seeds = _SEED.findall(data)
    if len(seeds) != 1:
        return _with_place(data, path)
    return {**_with_place(_SEED.sub(b"", data), path), "seed": int(seeds[0])}


def _with_place(data: bytes, path: Path) -> dict[str, Any]:
    try:
        return _parse_yaml(data)
    except ValueError as error:
        raise damaged(f"{path.name} {error}", path) from error


def _aliases(data: bytes) -> int:
    return sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=_Loader))


@lru_cache(maxsize=64)
def _parse_yaml(data: bytes) -> dict[str, Any]:
    """Raises ValueError for what is not a mapping of plain data."""
    if len(data) > MAX_YAML_BYTES:
        raise ValueError(f"has {len(data)} bytes, more than {MAX_YAML_BYTES}")
    try:
        aliases = _aliases(data) if b"*" in data else 0
        value = _Loader(data).get_single_data() if aliases <= MAX_YAML_ALIASES else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"is not plain YAML: {' '.join(str(error).split())}") from error
    if aliases > MAX_YAML_ALIASES:
        raise ValueError(f"uses {aliases} aliases, more than {MAX_YAML_ALIASES}")
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__} instead of a mapping")
    return value


def read_jsonl(path: Path, torn_tail: bool) -> pd.DataFrame:
    """One row per line. `torn_tail`: a last line without its end is being written right now and is left out."""
    *lines, tail = read_bytes(path).split(b"\n")
    try:
        rows = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        rows = [_line(path, number, line) for number, line in enumerate(lines, 1)]
    if tail.strip():
        try:
            rows.append(_line(path, len(lines) + 1, tail))
        except AnalysisError:
            if not torn_tail:
                raise
    if wrong := [number for number, row in enumerate(rows, 1) if not isinstance(row, dict)]:
        raise damaged(f"{path.name} line {wrong[0]} is not a JSON object", path)
    return pd.DataFrame.from_records(rows)


def _line(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise damaged(f"{path.name} line {number} is not valid JSON: {error}", path) from error


def read_parquet(path: Path) -> pd.DataFrame:
    """All rows, page checksums verified where the file has them."""
    try:
        return _open_parquet(path).to_pandas()
    except _BAD_PARQUET as error:
        raise damaged(f"{path.name} cannot be read: {_one_line(error)}", path) from error


def read_arrow(path: Path) -> "pa.Table":
    """As `read_parquet`, without what pandas adds."""
    return _open_parquet(path).replace_schema_metadata(None)


def _open_parquet(path: Path) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import parquet

    try:
        data = pa.BufferReader(read_bytes(path))
        return parquet.ParquetFile(data, page_checksum_verification=True).read(use_threads=False)
    except (pa.ArrowException, *_BAD_PARQUET) as error:
        raise damaged(f"{path.name} cannot be read: {_one_line(error)}", path) from error


def check_columns(rows: pd.DataFrame, columns: Mapping[str, str], file: Path | str) -> pd.DataFrame:
    """The rows with numeric columns as numbers; raises AnalysisError naming file and column."""
    name = Path(file).name
    for column, kind in columns.items():
        if column not in rows:
            raise damaged(f"{name} has no column {column!r}", file, f"It has: {', '.join(map(str, rows.columns))}")
        seen = pd.api.types.infer_dtype(rows[column], skipna=kind == OPTIONAL)
        if seen not in _INFERRED[kind]:
            raise damaged(f"column {column!r} of {name} should hold one {kind} per row, but is {seen}", file)
        if kind in (NUMBER, OPTIONAL):
            values = rows[column].astype(float)
            bad = np.isinf(values) if kind == OPTIONAL else ~np.isfinite(values)
            if bad.any():
                raise damaged(f"column {column!r} of {name} is not finite in row {int(np.argmax(bad)) + 1}", file)
            rows = rows.assign(**{column: values})
    return rows


def read_npz_shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array, from the headers alone; refuses objects, false sizes and compression bombs."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): _npy_header(archive, info) for info in archive.infolist()}
    except _BAD_NPZ as error:
        raise damaged(f"{path.name} cannot be read: {_one_line(error)}", path) from error


def _npy_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(info) as file:
        read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        header = file.tell()
    if dtype.hasobject:
        raise ValueError(f"array {info.filename!r} holds Python objects, which may hold code")
    size = dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
    if size + header != info.file_size:
        raise ValueError(f"array {info.filename!r} says {size} bytes and has {info.file_size - header}")
    if size > LARGE and size > RATIO * info.compress_size:
        raise ValueError(f"array {info.filename!r} unpacks to {size} bytes from {info.compress_size}")
    return shape, dtype


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays (checksums of the zip format verified)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except _BAD_NPZ as error:
        raise damaged(f"{path.name} cannot be read: {_one_line(error)}", path) from error


def read_npz_rows(path: Path, name: str) -> Iterator[np.ndarray]:
    """The parts of one array along its first axis, one in memory at a time; headers as of `read_npz_shapes`."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
            (count, *shape), column_major, dtype = read(file)
            if column_major:
                raise ValueError(f"array {name!r} is stored by columns")
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            for _ in range(count):
                if len(data := file.read(size)) != size:
                    raise ValueError(f"array {name!r} ends too early")
                yield np.frombuffer(data, dtype).reshape(shape)
    except _BAD_NPZ as error:
        raise damaged(f"{path.name} cannot be read: {_one_line(error)}", path) from error


def _one_line(error: Exception) -> str:
    """What the error says, or its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def read_bytes(path: Path) -> bytes:
    """What a file holds; raises AnalysisError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(f"{path.name} cannot be read: {error.strerror}", path) from error


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write all files of one result, then rename them into place: a full disk or a kill leaves the old ones whole."""
    waiting: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            waiting.append((temporary, folder / name))
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for temporary, final in waiting:
            os.replace(temporary, final)
    except OSError as error:
        raise AnalysisError(
            f"cannot write: {error.strerror}", str(error.filename or folder), exit_code=NOT_WRITTEN
        ) from error
    finally:
        for temporary, _ in waiting:
            temporary.unlink(missing_ok=True)
    return [final for _, final in waiting]
