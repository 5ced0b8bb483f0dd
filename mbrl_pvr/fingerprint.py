"""Whether two runs ended the same: hashes of everything in a run folder that equal runs must share, bit for bit."""

import hashlib
import json
from pathlib import Path
from typing import Any

_IGNORED = {".lock", "tensorboard"}  # says who ran; drawn from the journals
_OWN = {"journals", "sha256"}  # of MANIFEST.json: lengths of logs, which count time/ fields too, and its seal


def fingerprint(path: Path | str) -> dict[str, str]:
    """sha256 by file name, without `time/` fields (DESIGN section 7)."""
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.relative_to(path).parts[0] not in _IGNORED)
    return {p.relative_to(path).as_posix(): hashlib.sha256(_lasting(p)).hexdigest() for p in files}


def _lasting(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".jsonl":
        return _dump([json.loads(line) for line in data.splitlines()])
    if path.suffix == ".json":
        value = json.loads(data)
        return _dump({k: v for k, v in value.items() if k not in _OWN})
    return data


def _dump(value: Any) -> bytes:
    return json.dumps(_without_time(value), sort_keys=True).encode()


def _without_time(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_time(v) for v in value]
    if isinstance(value, dict):
        return {k: _without_time(v) for k, v in value.items() if not k.startswith("time/")}
    return value
