"""The registry: names to specs. No torch here, so that listing and looking up are instant.

A new encoder is one `register(EncoderSpec(...))`; see docs/add_encoder.md. Names with a colon are not in the table:
`random:NAME` is the random control of any encoder, `timm:`, `openclip:` and `hf:` pass on to these libraries.
"""

import difflib
import fnmatch
import importlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pvr_zoo.errors import SpecError, UnknownEncoder
from pvr_zoo.specs import EncoderSpec

_SPECS: dict[str, EncoderSpec] = {}
_BUILT_IN = "pvr_zoo.rows"  # imported on first use: it registers the encoders that come with the zoo
_RANDOM = "random:"
_PASS_THROUGH = ("timm:", "openclip:", "hf:")
_plugins_asked = False


def register(spec: EncoderSpec) -> EncoderSpec:
    """Add an encoder; a name that is taken, or that would mean a file or another library, is an error."""
    importlib.import_module(_BUILT_IN)  # so that no name of the zoo can be taken before it
    if ":" in spec.name or is_file_name(spec.name):
        what = f"{spec.name!r} cannot be the name of an encoder"
        raise SpecError(what, hint="Use letters, digits, dots, dashes and underscores.")
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
    _load()
    return sorted(fnmatch.filter(_SPECS, pattern))


def _load() -> None:
    """The zoo's own rows, then those of plugins, on first use."""
    global _plugins_asked
    importlib.import_module(_BUILT_IN)
    if not _plugins_asked:
        _plugins_asked = True  # before they are asked: a plugin may look rows up itself
        from pvr_zoo import plugins

        plugins.load(_SPECS)


def spec(
    name: str | os.PathLike[str],
    *,
    truncate: int | Sequence[int] | None = None,
    feature: str | None = None,
    norm: str | None = None,
    input_size: int | None = None,
    seed: int | None = None,
) -> EncoderSpec:
    """The spec of a registered encoder, or of an encoder file, used as asked.

    Raises UnknownEncoder, SpecError, and WeightsError for a file that is no encoder file.
    """
    return _row(name).request(truncate=truncate, feature=feature, norm=norm, input_size=input_size, seed=seed)


def is_file_name(name: str | os.PathLike[str]) -> bool:
    """Whether `name` means an encoder file rather than a registered encoder."""
    text = os.fspath(name)
    if isinstance(name, str) and text.startswith((_RANDOM, *_PASS_THROUGH)):
        return False
    return not isinstance(name, str) or os.sep in text or text.endswith(".safetensors")


def _row(name: str | os.PathLike[str]) -> EncoderSpec:
    names = list_encoders()
    if isinstance(name, str) and name in _SPECS:
        return _SPECS[name]
    if isinstance(name, str) and name.startswith(_RANDOM):
        return _control(_row(name.removeprefix(_RANDOM)))
    if isinstance(name, str) and name.startswith(_PASS_THROUGH):
        from pvr_zoo.passthrough import spec_of

        return spec_of(name)
    if is_file_name(name):
        from pvr_zoo.cards import spec_of_file

        return spec_of_file(Path(name))
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UnknownEncoder(
        f"unknown encoder {name!r}.{guess}", hint="List the names: mbrl-pvr encoders list, or pvr_zoo.list_encoders()."
    )


def _control(row: EncoderSpec) -> EncoderSpec:
    """The same architecture and transform with weights that were never trained; SpecError where none are."""
    if row.seed is not None:
        raise SpecError(f"{row.name} is random already", hint=f"Leave out {_RANDOM!r}.")
    groups = replace(
        row.groups, objective="none (random weights)", data="none", language=False, sequential=False, diverse=False
    )
    parts = tuple(replace(part, weights=None) for part in row.parts)
    return replace(row, name=_RANDOM + row.name, seed=0, weights=None, parts=parts, licence="MIT", groups=groups)
