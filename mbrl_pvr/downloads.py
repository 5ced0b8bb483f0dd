"""Which weights a study needs, and fetching them: for this machine, or into a folder for machines without a network."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl_pvr.errors import ConfigError, IntegrityError, Unavailable
from mbrl_pvr.yamlfile import read_yaml

if TYPE_CHECKING:
    from pvr_zoo import EncoderSpec
    from pvr_zoo.specs import WeightsSource

Progress = Callable[[str, int, int | None], None]  # encoder and file, bytes there, of how many where that is known
WITHOUT_WEIGHTS = {"scratch": "pixels, trained along", "state": "no pictures"}
OWN = "a file of your own: copy it along"


@dataclass(frozen=True)
class Fetched:
    """A file that an encoder needs. `note` says where it is from; `file` is None where none is needed."""

    encoder: str
    note: str
    file: Path | None = None
    bytes: int = 0
    sha256: str = ""


def names_in(study: Path | str) -> list[str | Path]:
    """Encoders that a YAML file names under `encoder` or `encoder.name`, at any depth, one or many.

    A path stands for a file of the user's own. Raises ConfigError where no encoder is named.
    """
    found = list(dict.fromkeys(_names(read_yaml(study), str(study))))
    if not found:
        raise ConfigError("this file names no encoder", str(study), "Name one, or a list, under `encoder`")
    return found


def _names(tree: Any, where: str) -> Iterator[str | Path]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _values(value, where) if key in ("encoder", "encoder.name") else _names(value, where)
    elif isinstance(tree, list):
        for value in tree:
            yield from _names(value, where)


def _values(value: Any, where: str) -> Iterator[str | Path]:
    """What stands under `encoder`: a name, a mapping with a name, or a list of these."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _values(one, where)
    elif isinstance(value, dict):
        given = value.get("weights")
        files = given if isinstance(given, list) else [given]
        yield from (Path(str(file)) for file in files if file is not None)
        if None in files:  # else they replace what is published
            yield from _values(value.get("name"), where)
    elif value is not None:
        raise ConfigError(f"encoder is {value!r}, where a name is expected", where)


def fetch(
    names: Iterable[str | Path],
    to: Path | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> list[Fetched]:
    """Fetch what the named encoders need into the folder `to`, or into this machine's cache.

    All names are looked up first: UnknownEncoder, and SpecError where one is not of the `licence` asked for. An encoder
    that cannot be had does not stop the others; what failed is told at the end, as Unavailable, or as IntegrityError
    where files are not what they should be.
    """
    if to is None:
        return _fetch_all(names, licence, progress)
    from pvr_zoo import weights

    with weights.gathering(to):  # also for what is read to look a name up, such as the hub's description of a model
        return _fetch_all(names, licence, progress)


def _fetch_all(names: Iterable[str | Path], licence: str | None, progress: Progress | None) -> list[Fetched]:
    import pvr_zoo
    from pvr_zoo import catalogue
    from pvr_zoo.registry import is_file_name

    notes = {name: WITHOUT_WEIGHTS.get(str(name), OWN if is_file_name(name) else "") for name in names}
    specs = {name: pvr_zoo.spec(name) for name, note in notes.items() if not note}
    for spec in specs.values():
        catalogue.require_licence(spec, licence)
    done: list[Fetched] = []
    failed = {}
    for name, note in notes.items():
        try:
            done += [Fetched(str(name), note)] if note else _fetch(specs[name], progress)
        except pvr_zoo.ZooError as error:
            failed[name] = error
    if failed:
        damaged = any(not isinstance(error, pvr_zoo.WeightsUnavailable) for error in failed.values())
        what = "; ".join(f"{name}: {error.what}" for name, error in failed.items())
        counted = f"{len(notes) - len(failed)} of {len(notes)} encoders are there, the same command goes on."
        first = next(iter(failed.values()))
        raise (IntegrityError if damaged else Unavailable)(what, hint=f"{counted} {first.hint}".rstrip())
    return done


def _fetch(spec: "EncoderSpec", progress: Progress | None) -> list[Fetched]:
    """One for each file; a fused encoder has several."""
    from pvr_zoo import WeightsUnavailable

    if spec.seed is not None:
        return [Fetched(spec.name, "drawn from a seed")]
    if not spec.sources:
        raise WeightsUnavailable(f"{spec.name} has no published weights", hint="Give a file with encoder.weights=PATH.")
    return [_fetch_file(spec.name, source, progress) for source in spec.sources]


def _fetch_file(encoder: str, source: "WeightsSource", progress: Progress | None) -> Fetched:
    from pvr_zoo import WeightsError, weights
    from pvr_zoo.checkpoint import file_sha256

    told = None if progress is None else partial(progress, f"{encoder} {source.filename}")
    path, origin, expected = weights.locate(source, told)
    sha256 = file_sha256(path)  # also of files that were there before: where they are used, none can be fetched
    if expected and sha256 != expected:
        raise WeightsError(f"{path} hashes to {sha256}, expected is {expected}", hint="Remove it and fetch it again.")
    if origin == "package":
        return Fetched(encoder, "part of the package")
    return Fetched(encoder, origin, path, path.stat().st_size, sha256)
