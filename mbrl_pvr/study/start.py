"""`study run`: from a study file to finished runs, or to a list of those that failed."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from mbrl_pvr.api import STUDIES
from mbrl_pvr.display import Display
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.names import did_you_mean
from mbrl_pvr.study.cells import Study, load_study
from mbrl_pvr.study.engine import Engine, Failure, drive, jobs_of
from mbrl_pvr.study.folder import open_study
from mbrl_pvr.study.local import Local

ENGINES = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Ended:
    """What a study came to."""

    path: Path
    runs: int
    finished: int
    failures: list[Failure] = field(default_factory=list)


def check_engine(name: str) -> None:
    """ConfigError for an engine that there is not."""
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES, f"Engines: {', '.join(ENGINES)}")
        raise ConfigError(f"unknown engine {name!r}", "--engine", hint)


def open_engine(
    name: str, workers: int | None = None, address: str | None = None, slurm: Sequence[str] = ()
) -> AbstractContextManager[Engine]:
    """An engine by its name; ConfigError for one that there is not, or for an option of another one."""
    check_engine(name)
    if address is not None and name != "ray":
        raise ConfigError(f"--address is for --engine ray, not {name}", "--address")
    if slurm and name != "slurm":
        raise ConfigError(f"--slurm is for --engine slurm, not {name}", "--slurm")
    if name == "ray":
        from mbrl_pvr.study.ray_engine import open_ray

        return open_ray(workers, address)
    if name == "slurm":
        from mbrl_pvr.study.slurm_engine import open_slurm

        return open_slurm(workers, slurm)
    return nullcontext(Local(workers))


def start(
    source: str | Path,
    path: Path | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    slurm: Sequence[str] = (),
    parts: Sequence[str] = (),
    extend: bool = False,
    debug: bool = False,
    yes: bool = False,
) -> Ended:
    """Do what is left of a study in the folder `path`, by default studies/<name>.

    Raises what `load_study` and `open_study` do, ConfigError where a run does not fit into the machine, and Stopped.
    """
    opened = open_engine(engine, workers, address, slurm)
    study = load_study(source, parts, debug=debug, yes=yes)
    path = STUDIES / study.name if path is None else path
    with Display() as display, opened as chosen:
        require_fit(study, chosen)
        with open_study(path, study, parts=parts, extend=extend) as whole:
            chosen.prepare(path.absolute())
            runs = [run for run in whole.runs if not parts or whole.kind(run).part in parts]
            jobs = jobs_of(path, replace(whole, runs=runs))
            before = len(runs) - len(jobs)
            display.say(f"study {whole.name} in {path}: {len(runs)} runs, {before} finished, {len(jobs)} to do")
            failures = drive(path, jobs, chosen, retries=whole.retries, say=display.say)
    return Ended(path, len(runs), len(runs) - len(failures), failures)


def require_fit(study: Study, engine: Engine) -> None:
    """ConfigError, naming the part, where a run asks for more than there is."""
    for kind in study.kinds:
        try:
            engine.capacity(kind.resources)
        except ConfigError as error:
            raise ConfigError(error.what, f"part {kind.part}, resources", error.hint) from error
