"""The registry: names to specs. No torch here, so that listing and looking up are instant.

A new encoder is one `register(EncoderSpec(...))`; see README.md beside this file.
"""

import difflib
import fnmatch
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from pvr_zoo.errors import SpecError, UnknownEncoder
from pvr_zoo.specs import EncoderSpec

_SPECS: dict[str, EncoderSpec] = {}
_BUILT_IN = "pvr_zoo.rows"  # imported on first use: it registers the encoders that come with the zoo


def register(spec: EncoderSpec) -> EncoderSpec:
    """Add an encoder; a name that is taken is an error."""
    if spec.name in _SPECS:
        raise SpecError(
            f"an encoder named {spec.name!r} is registered already",
            where=f"{_SPECS[spec.name].builder} and {spec.builder}",
            hint="Choose another name.",
        )
    _SPECS[spec.name] = spec
    return spec


def unregister(name: str) -> None:
    """Remove an encoder that was registered, for plugins and tests."""
    del _SPECS[name]


def list_encoders(pattern: str = "*") -> list[str]:
    """Names that match the shell-style pattern, sorted."""
    importlib.import_module(_BUILT_IN)
    return sorted(fnmatch.filter(_SPECS, pattern))


def spec(
    name: str | os.PathLike[str],
    *,
    truncate: int | Sequence[int] | None = None,
    feature: str | None = None,
    norm: str | None = None,
    input_size: int | None = None,
) -> EncoderSpec:
    """The spec of a registered encoder, or of an encoder file, used as asked.

    Raises UnknownEncoder, SpecError, and WeightsError for a file that is no encoder file.
    """
    return _row(name).request(truncate=truncate, feature=feature, norm=norm, input_size=input_size)


def is_file_name(name: str | os.PathLike[str]) -> bool:
    """Whether `name` means an encoder file rather than a registered encoder."""
    text = os.fspath(name)
    return not isinstance(name, str) or os.sep in text or text.endswith(".safetensors")


def _row(name: str | os.PathLike[str]) -> EncoderSpec:
    names = list_encoders()
    if isinstance(name, str) and name in _SPECS:
        return _SPECS[name]
    if is_file_name(name):
        from pvr_zoo.cards import spec_of_file

        return spec_of_file(Path(name))
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UnknownEncoder(f"unknown encoder {name!r}.{guess}", hint=f"Available: {', '.join(names)}.")
