"""Which weights a study needs, and fetching them: for this machine, or into a folder for machines without a network."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mbrl_pvr.display import PLAIN_EVERY
from mbrl_pvr.errors import ConfigError, IntegrityError, Unavailable
from mbrl_pvr.presets import available, read
from mbrl_pvr.yamlfile import read_yaml

if TYPE_CHECKING:
    from pvr_zoo import EncoderSpec
    from pvr_zoo.specs import WeightsSource
    from pvr_zoo.weights import Progress

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
    """Encoders that a study of the package, or a YAML file, names under `encoder` or `encoder.name`, at any depth.

    A path stands for a file of the user's own. Raises ConfigError where no encoder is named.
    """
    tree = read(str(study), "studies") if str(study) in available("studies") else read_yaml(study)
    found = list(dict.fromkeys(_names(tree, str(study))))
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
    progress: "Progress | None" = None,
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


def _fetch_all(names: Iterable[str | Path], licence: str | None, progress: "Progress | None") -> list[Fetched]:
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


def _fetch(spec: "EncoderSpec", progress: "Progress | None") -> list[Fetched]:
    """One for each file; a fused encoder has several."""
    from pvr_zoo import WeightsUnavailable

    if spec.seed is not None:
        return [Fetched(spec.name, "drawn from a seed")]
    if not spec.sources:
        raise WeightsUnavailable(f"{spec.name} has no published weights", hint="Give a file with encoder.weights=PATH.")
    return [_fetch_file(spec.name, source, progress) for source in spec.sources]


def _fetch_file(encoder: str, source: "WeightsSource", progress: "Progress | None") -> Fetched:
    from pvr_zoo import WeightsError, weights
    from pvr_zoo.checkpoint import file_sha256

    path, origin, expected = weights.locate(source, progress)
    sha256 = file_sha256(path)  # also of files that were there before: where they are used, none can be fetched
    if expected and sha256 != expected:
        raise WeightsError(f"{path} hashes to {sha256}, expected is {expected}", hint="Remove it and fetch it again.")
    if origin == "package":
        return Fetched(encoder, "part of the package")
    return Fetched(encoder, origin, path, path.stat().st_size, sha256)


class Bars:
    """What is fetched from where to where, and how far it is, on standard error.

    Bars in a terminal, a plain line now and then elsewhere; nothing at all where every file is there.
    """

    def __init__(self) -> None:
        self._progress: Any = None
        self._tasks: dict[WeightsSource, Any] = {}
        self._printed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None and self._progress.console.is_terminal:
            self._progress.stop()  # elsewhere it was never started, and would print an empty line

    def show(self, source: "WeightsSource", done: int, total: int | None) -> None:
        """`done` bytes of `total`, if known, are there."""
        if source not in self._tasks:
            self._begin(source, total)
        console = self._progress.console
        if console.is_terminal:
            self._progress.update(self._tasks[source], completed=done, total=total)
        elif time.monotonic() - self._printed >= PLAIN_EVERY or done == total:
            self._printed = time.monotonic()
            of = "" if total is None else f" of {total / 1e6:,.1f}"
            console.print(f"{source.filename}: {done / 1e6:,.1f}{of} MB", soft_wrap=True, highlight=False)

    def _begin(self, source: "WeightsSource", total: int | None) -> None:
        """Say what is fetched, and make a bar for it."""
        from pvr_zoo.weights import place

        if self._progress is None:
            self._progress = _bars()
        size = "" if total is None else f" ({total / 1e6:,.1f} MB)"
        line = f"fetching {source.address}{size} to {place(source)}"
        self._progress.console.print(line, soft_wrap=True, highlight=False)
        self._tasks[source] = self._progress.add_task(source.filename, total=total)
        self._printed = time.monotonic()


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), refresh_per_second=2)
    if progress.console.is_terminal:
        progress.start()
    return progress
