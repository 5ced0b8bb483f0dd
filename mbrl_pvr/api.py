"""The commands as Python calls. Nothing heavy is imported before a call; the command line calls these same functions.

No module of the package may be named like one of them: importing it would replace the function. The file is longer
than others because it is the one place of all calls.
"""

import logging
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from analysis import Made, Report
    from analysis.claims import ClaimVerdict
    from analysis.query import Answer
    from analysis.results import Results
    from analysis.tables import Options
    from mbrl_pvr.bank import Bank
    from mbrl_pvr.doctor import Finding
    from mbrl_pvr.downloads import Fetched
    from mbrl_pvr.embedding import Embedding
    from mbrl_pvr.envs.random_score import RandomScore
    from mbrl_pvr.preview import Preview
    from mbrl_pvr.settings import RunConfig
    from mbrl_pvr.study.plan import Plan
    from mbrl_pvr.study.results import Exported
    from mbrl_pvr.study.start import Ended
    from mbrl_pvr.study.status import StudyStatus
    from mbrl_pvr.trainer import Result
    from pvr_zoo.weights import Progress

_log = logging.getLogger(__name__)

RUNS = Path("runs")  # where runs go that are given no folder
BANKS = Path("banks")  # and trajectory banks
STUDIES = Path("studies")  # and studies
DEBUG_EPISODES = 2
PRETRAIN_KEYS = (  # which frames it renders, and which numbers it draws
    *("env", "seed", "env.render", "env.shifts", "env.severity", "env.factors", "env.bands", "env.video"),
    *("env.camera", "env.action_repeat", "env.backend", "env.time_limit", "env.reward"),
)


def configure(
    overrides: Sequence[str] = (),
    *,
    config: "str | Path | RunConfig | None" = None,
    debug: bool = False,
    licence: str | None = None,
) -> "RunConfig":
    """The checked configuration of a run; `config` is a preset's name, a YAML file, or a finished RunConfig.

    `debug` shrinks it; overrides that are larger are replaced, which a warning says. `licence`, here and below, refuses
    encoders whose licence is of another class: permissive, non-commercial or other.
    """
    from mbrl_pvr.config import load_config, replaced, shrink
    from mbrl_pvr.errors import ConfigError
    from mbrl_pvr.fits import check_names, require_licence
    from mbrl_pvr.settings import RunConfig

    if isinstance(config, RunConfig):
        if overrides:
            raise ConfigError("overrides change a preset or a file, not a RunConfig", hint="Use dataclasses.replace")
        chosen = check_names(shrink(config) if debug else config)
        require_licence(chosen.encoder, licence)
        return chosen
    chosen = load_config(overrides, config, debug=debug)
    require_licence(chosen.encoder, licence)
    if debug and (other := replaced(overrides, chosen)):
        _log.warning("--debug replaces what was asked for: %s", ", ".join(other))
    return chosen


def default_folder(config: "RunConfig") -> Path:
    """runs/<agent>-<encoder>-<task>-seed<k>."""
    from mbrl_pvr.config import run_name

    return RUNS / run_name(config)


def train(
    overrides: Sequence[str] = (),
    dir: str | Path | None = None,
    *,
    config: "str | Path | RunConfig | None" = None,
    debug: bool = False,
    licence: str | None = None,
) -> "Result":
    """Train a world model and its agent in the run folder `dir`; a folder of the same configuration is continued."""
    chosen = configure(overrides, config=config, debug=debug, licence=licence)
    from mbrl_pvr import trainer

    return trainer.train(chosen, default_folder(chosen) if dir is None else Path(dir))


def resume(run: str | Path) -> "Result":
    """Continue an interrupted run with the configuration that it stores."""
    path = _run_folder(run)
    from mbrl_pvr import trainer

    return trainer.resume(path)


def evaluate(run: str | Path, *, episodes: int = 12, video: bool = False, debug: bool = False) -> "pd.DataFrame":
    """Play episodes in the training distribution with the newest checkpoint; one row per episode.

    `debug`, here and below: at most DEBUG_EPISODES of at most 20 steps; files of episodes that this cuts short go to
    the run's debug/.
    """
    _at_least(1, episodes=episodes)
    path = _run_folder(run)
    from mbrl_pvr import evaluation

    return evaluation.evaluate_run(path, episodes=_few(episodes, debug), video=video, debug=debug)


def ood(
    run: str | Path,
    *,
    episodes: int = 200,
    shifts: str | Sequence[str] = (),
    severities: float | Sequence[float] = (),
    each_factor: bool = False,
    video: bool = True,
    debug: bool = False,
) -> "pd.DataFrame":
    """Play episodes under the training looks and under the held-out looks of shifts; one row per episode.

    By default shift and severity are those of training; a shift that the run was not trained under has severity 1.
    Several shifts and severities are all combined. `each_factor` also holds out each factor of a shift alone.
    """
    _at_least(1, episodes=episodes)
    asked = (shifts,) if isinstance(shifts, str) else tuple(shifts)
    strengths = (severities,) if isinstance(severities, int | float) else tuple(severities)
    _check_shifts(asked, strengths)
    path = _run_folder(run)
    from mbrl_pvr import evaluation

    few = _few(episodes, debug)
    how = {"shifts": asked, "severities": strengths, "each_factor": each_factor}
    return evaluation.ood(path, episodes=few, **how, video=video, debug=debug)  # type: ignore[arg-type]


def record(
    run: str | Path,
    *,
    episodes: int = 10,
    context: int = 1,
    starts: int = 8,
    horizon: int = 33,
    bank: str | Path | None = None,
    shift: str = "",
    severity: float | None = None,
    frames: bool = True,
    debug: bool = False,
) -> list[Path]:
    """Store what the model predicts: of fresh episodes under the training looks, or of a bank's first trajectories.

    The first `context` observations are given, the rest is predicted open loop; so are `horizon` steps from each of
    `starts` points of an episode. One file, latents.npz; with a bank one for its own looks and one for each shift that
    it was drawn under. With `shift` fresh episodes are played with its looks held out, from the same states as without,
    into a file of its own. `frames` keeps a small picture of every step, for `report`; an environment that cannot draw
    needs False.
    """
    _at_least(1, episodes=episodes, context=context, starts=starts, horizon=horizon)
    _check_shifts([shift] if shift else [], [] if severity is None else [severity])
    path = _run_folder(run)
    from mbrl_pvr import recording

    points = recording.Points(context, starts, horizon)
    from analysis.window_errors import store_errors

    few = _few(episodes, debug)
    how = {"bank": bank, "shift": shift, "severity": severity, "frames": frames, "debug": debug}
    written = recording.record(path, episodes=few, points=points, **how)  # type: ignore[arg-type]
    for record in written:
        store_errors(record, path)
    return written


def analyze(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    figures: Sequence[str] | None = None,
    unfinished: bool = False,
    formats: Sequence[str] = ("pdf", "png"),
    **options: Any,
) -> "Report":
    """Draw every figure, or those named, whose inputs the runs hold; unfinished runs are left out unless asked for.

    `options` are fields of `analysis.tables.Options`: windows, max_points, …; the encoders' property groups are the
    zoo's.
    """
    paths = _some_runs(runs)
    import analysis

    single = {f"--{name}": (options[name],) for name in ("colour", "latent") if name in options}
    asked = {"--figure": figures or (), "--window": options.get("windows", ()), "--format": formats, **single}
    flags = [word for flag, values in asked.items() for value in values for word in (flag, str(value))]
    command = shlex.join(["mbrl-pvr", "analyze", *map(str, paths), "--out", str(out), *flags])
    chosen = _figure_options(**options)
    return analysis.analyze(
        paths, Path(out), figures, unfinished=unfinished, options=chosen, formats=formats, command=command
    )


def report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    unfinished: bool = False,
    claims: str | Path | None = None,
) -> "Made":
    """Write one HTML page, out/report.html, that needs no network: a table of the runs, the figures that `analyze`
    draws, and an explorer of their recorded latents with frames; of a study or an export, or where `claims` are named,
    also what comes of claims (`study_claims`). The numbers of the figures stand beside it as CSV.
    """
    paths = _some_runs(runs)
    import analysis

    flags = ["--unfinished"] * unfinished + ([] if claims is None else ["--claims", str(claims)])
    command = shlex.join(["mbrl-pvr", "report", *map(str, paths), "--out", str(out), *flags])
    from analysis.results import hold_a_study
    from mbrl_pvr.study.results import verdicts

    found = verdicts(paths, claims) if claims is not None or hold_a_study(paths) else []
    how: dict[str, Any] = {"unfinished": unfinished, "options": _figure_options(), "verdicts": found}
    return analysis.write_report(paths, Path(out), **how, command=command)


def _figure_options(**options: Any) -> "Options":
    """With the property groups of the zoo's encoders."""
    from analysis.tables import Options
    from pvr_zoo.catalogue import groups
    from pvr_zoo.registry import list_encoders, spec

    return Options(properties={name: groups(spec(name)) for name in list_encoders()}, **options)


def _some_runs(runs: str | Path | Sequence[str | Path]) -> list[Path]:
    from mbrl_pvr.errors import ConfigError

    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not paths:
        raise ConfigError("there is no run to analyze", hint="Give the folders of one or more runs")
    return paths


def pretrain(
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    steps: int = 8000,
    frames: int | Sequence[str | Path] = 3000,
    replace: bool = False,
    debug: bool = False,
) -> Path:
    """Train the study's autoencoder on frames of `env=…` and write an encoder file for `encoder=PATH`.

    `env=A,B` names several tasks; `frames` is how many to render of each under random actions, or the run folders that
    kept pixels to take them from. Of the configuration only `PRETRAIN_KEYS` mean something, with runs
    `seed`, and `env` where it is their task.
    An encoder file that exists is refused unless `replace`: runs trained on it could not go on without it.
    """
    from mbrl_pvr.config import from_dict
    from mbrl_pvr.names import safe_name
    from mbrl_pvr.runfolder import read_run

    runs = [] if isinstance(frames, int) else list(frames)
    _at_least(1, steps=steps, frames=frames if isinstance(frames, int) else len(runs))
    _check_pretrain_keys(overrides, ("env", "seed") if runs else PRETRAIN_KEYS)
    names = next((text.removeprefix("env=").split(",") for text in reversed(overrides) if text.startswith("env=")), [])
    shared = [text for text in overrides if not text.startswith("env=")]
    chosen = [configure([*shared, f"env={name}"], debug=debug) for name in names] or [configure(shared, debug=debug)]
    seen = [from_dict(read_run(run)[0]).env.name for run in runs]
    _check_tasks([config.env.name for config in chosen] if names else [], seen)
    task = seen[0] if seen else chosen[0].env.name
    if debug:
        steps, frames = min(steps, 20), min(frames, 64) if isinstance(frames, int) else frames
    from mbrl_pvr import pretraining

    return pretraining.autoencoder(
        [config.env for config in chosen],
        Path(out or f"autoencoder-{safe_name(task)}.safetensors"),
        frames=frames,
        steps=steps,
        seed=chosen[0].seed,
        replace=replace,
        progress=pretraining.plain_progress(),
    )


def _check_pretrain_keys(overrides: Sequence[str], accepted: Sequence[str]) -> None:
    """ConfigError for a key that would change nothing, and for a mapping, which may hold one."""
    from mbrl_pvr.errors import ConfigError

    for text in overrides:
        key, _, value = text.partition("=")
        if key.strip() not in accepted or value.startswith("{"):
            option = "Give --steps N. " if key.strip() == "steps" else ""
            what = f"{key.strip()!r} means nothing here"
            raise ConfigError(what, f"override {text!r}", f"{option}Accepted: {', '.join(f'{k}=' for k in accepted)}")


def _check_tasks(typed: Sequence[str], seen: Sequence[str]) -> None:
    """ConfigError where tasks are typed beside runs and are not those of the runs."""
    from mbrl_pvr.errors import ConfigError

    if typed and seen and set(typed) != set(seen):
        what = f"env={','.join(typed)}, but frames come from runs on {', '.join(sorted(set(seen)))}"
        raise ConfigError(what, "override 'env'", "Leave env= out, or give frames=NUMBER to render it")


def embed(
    source: str | Path,
    encoder: str | Path,
    out: str | Path | None = None,
    *,
    truncate: int | Sequence[int] | None = None,
    feature: str | None = None,
    norm: str | None = None,
    weights: str | Path | None = None,
    input_size: int | None = None,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "float32",
    dtype: str = "float32",
    licence: str | None = None,
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> "Embedding":
    """Features of the pictures in a folder, of one picture, or of a video's frames, by any encoder of the zoo.

    With `out`, an .npz, they are written there and stay on disk: the result then maps them into memory. ConfigError
    where such a file is there already, unless it may be replaced (`replace`). `precision` is
    float32, bfloat16 or auto, in which the encoder computes; `dtype` is float32 or float16, in which features are kept.
    """
    from mbrl_pvr import embedding
    from mbrl_pvr.errors import ConfigError

    _at_least(1, batch_size=batch_size)
    if dtype not in embedding.DTYPES:
        raise ConfigError(f"dtype={dtype!r} is not one of {', '.join(embedding.DTYPES)}")
    path = None if out is None else Path(out).expanduser()
    if path is not None and path.suffix != ".npz":
        raise ConfigError("the file to write must end in .npz", str(path))
    if path is not None and path.exists() and not replace:
        raise ConfigError("this file is there already", str(path), "Give another name, or --replace (replace=True)")
    found = embedding.find(Path(source).expanduser())
    asked = {"truncate": truncate, "feature": feature, "norm": norm, "input_size": input_size}
    used, chosen = embedding.create(
        encoder, asked, weights=weights, licence=licence, device=device, precision=precision, batch=batch_size
    )
    return embedding.embed(found, used, path, batch_size=batch_size, dtype=dtype, error=chosen.error, progress=progress)


def preview_env(
    env: str,
    shifts: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    size: int = 96,
    render: str = "standard",
    split: str = "train",
    bands: str = "interleaved",
    video: str | None = None,
    seed: int = 0,
) -> "Preview":
    """One state of an environment under each shift from severity 0 to 1, and a film; by default under all it has.

    With `out`, a folder, sheet.png and film.mp4 are written there. `split`: train or held_out.
    """
    from mbrl_pvr.envs import EnvConfig
    from mbrl_pvr.envs.names import family, resolve
    from mbrl_pvr.envs.offers import sparse_only
    from mbrl_pvr.errors import ConfigError

    for shift in shifts:
        _check_shift(shift)
    if split not in ("train", "held_out"):
        raise ConfigError(f"split={split!r} is not train or held_out", "split")
    repeat = 2 if family(resolve(env)) == "dmc" else 1
    try:
        limit = 1000 if family(resolve(env)) == "gym" else None  # some of gymnasium's have no time limit of their own
        reward = "sparse" if sparse_only(resolve(env)) else "dense"
        config = EnvConfig(
            env, repeat, max_steps=limit, size=size, render=render, reward=reward, bands=bands, video=video
        )
    except ValueError as error:
        raise ConfigError(str(error), "envs preview") from error
    from mbrl_pvr.preview import preview, write_preview

    shown = preview(config, shifts, split=split, seed=seed)
    if out is not None:
        write_preview(shown, Path(out).expanduser())
    return shown


def _check_shifts(shifts: Iterable[str], severities: Iterable[float]) -> None:
    from mbrl_pvr.errors import ConfigError

    for shift in shifts:
        _check_shift(shift)
    for severity in severities:
        if not 0 <= severity <= 1:
            raise ConfigError(f"severity={severity} must lie in 0..1", "severity")


def _check_shift(shift: str) -> None:
    """ConfigError unless it is a preset, or factors joined by +."""
    from mbrl_pvr.envs.factors import FACTORS, PRESETS, check_shifts
    from mbrl_pvr.errors import ConfigError
    from mbrl_pvr.names import did_you_mean

    try:
        check_shifts(shift)
    except ValueError as error:
        wrong = next((name for name in shift.split("+") if name not in FACTORS), shift)
        every = f"Shifts: {', '.join(PRESETS)}, or factors joined by +: {', '.join(FACTORS)}"
        raise ConfigError(
            f"unknown shift {shift!r}", "shift", did_you_mean(wrong, [*PRESETS, *FACTORS], every)
        ) from error
    if shift == "none":
        raise ConfigError("'none' is no shift", "shift", f"Shifts: {', '.join(PRESETS)}, or factors joined by +")


def make_bank(
    overrides: Sequence[str] = (),
    dir: str | Path | None = None,
    *,
    episodes: int = 200,
    expert: str | Path | None = None,
    shifts: str | Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> "Bank":
    """Store trajectories of `env=…` in the folder `dir`, or finish a bank that was begun there.

    Half of them act at random; with `expert`, a run folder, its agent makes half of them, with and without noise. Every
    state is also drawn under each of `shifts`. Of the configuration `env.*` and `seed` mean something.
    """
    from mbrl_pvr.errors import ConfigError
    from mbrl_pvr.names import safe_name

    _at_least(1, episodes=episodes)
    asked = (shifts,) if isinstance(shifts, str) else tuple(shifts)
    for shift in asked:
        _check_shift(shift)
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key not in ("env", "seed") and not key.startswith("env."):
            raise ConfigError(f"{key!r} means nothing here", f"override {text!r}", "Accepted: env=, env.KEY=, seed=")
    chosen = configure([*overrides, "encoder=scratch"])
    path = BANKS / safe_name(chosen.env.name) if dir is None else Path(dir).expanduser()
    known = None if expert is None else _run_folder(expert)
    from mbrl_pvr import bank_making

    return bank_making.make_bank(
        chosen.env, path, episodes=episodes, expert=known, shifts=asked, seed=chosen.seed, progress=progress
    )


def list_banks(dir: str | Path | None = None) -> "list[Bank]":
    """The finished trajectory banks in a folder, by default banks/."""
    from mbrl_pvr.bank import FILE, Bank

    folder = BANKS if dir is None else Path(dir).expanduser()
    return [Bank.open(path.parent) for path in sorted(folder.glob(f"*/{FILE}"))]


def study_plan(
    file: str | Path,
    dir: str | Path | None = None,
    *,
    parts: Sequence[str] = (),
    workers: int | None = None,
    measure: bool = True,
    debug: bool = False,
    yes: bool = False,
) -> "Plan":
    """What a study takes on this machine, `measure`d by a few steps of each kind of run; `problems` say what cannot be.
    Without `measure` whatever this machine has is enough, and `notes` say what would not fit it.

    `file` is a study's name ("smoke") or a YAML file, `dir` where it will lie. With `parts` only these; `yes` allows
    more than 10,000 runs.
    """
    from mbrl_pvr.study.cells import load_study

    study = load_study(file, parts, debug=debug, yes=yes)
    from mbrl_pvr.display import Display
    from mbrl_pvr.study.local import Local
    from mbrl_pvr.study.plan import plan
    from mbrl_pvr.study.start import require_fit

    path, engine = STUDIES / study.name if dir is None else Path(dir).expanduser(), Local(workers)
    if measure:
        require_fit(study, engine)
    with Display(what="kinds of runs:") as display:
        return plan(study, engine, path, measured=measure, progress=display.progress)


def study_run(
    file: str | Path,
    dir: str | Path | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    slurm: Sequence[str] = (),
    parts: Sequence[str] = (),
    extend: bool = False,
    debug: bool = False,
    yes: bool = False,
) -> "Ended":
    """Do all runs of a study in the folder `dir`; the same call goes on, whatever ended the one before.

    A run that fails is tried again as often as the file says, then stands in `failures` while the others go on.
    `engine` is "local", or "ray": on the cluster at `address` (HOST:PORT), or one started for the study; or
    "slurm", with options of sbatch (`slurm`: "time=240", "partition=gpu").
    `extend` adds the new runs of a changed file. To be called from the main thread: it takes Ctrl-C and SIGTERM.
    """
    from mbrl_pvr.study.start import start

    path = None if dir is None else Path(dir).expanduser()
    where = {"engine": engine, "workers": workers, "address": address, "slurm": slurm}
    return start(file, path, parts=parts, extend=extend, debug=debug, yes=yes, **where)  # type: ignore[arg-type]


def study_status(dir: str | Path) -> "StudyStatus":
    """How far the study in a folder is, also while it runs."""
    from mbrl_pvr.study.status import status

    return status(Path(dir).expanduser())


def query(paths: str | Path | Sequence[str | Path], sql: str) -> "Answer":
    """The rows that a SELECT gives over the tables runs, metrics, episodes, ood, errors of all runs in `paths`: a
    study, a run folder, a folder of them, or an export. No file and no network can be reached from it.
    """
    from analysis.query import query

    return query(_some_runs(paths), sql)


def load_study(paths: str | Path | Sequence[str | Path]) -> "Results":
    """These five tables as DataFrames, of a study, of a folder of runs, or of exports."""
    from analysis.results import load_results

    return load_results(_some_runs(paths))


def study_export(paths: str | Path | Sequence[str | Path], out: str | Path | None = None) -> "Exported":
    """Write these five tables into one DuckDB file, by default <study>.duckdb, which is replaced; it holds no weights,
    features or latents. Several studies, folders and exports are put together.
    """
    from mbrl_pvr.study.results import export

    return export(_some_runs(paths), None if out is None else Path(out).expanduser())


def study_claims(paths: str | Path | Sequence[str | Path], claims: str | Path | None = None) -> "list[ClaimVerdict]":
    """Whether the runs in `paths` support claims, refute them, or leave them undecided: a verdict for each and agent.

    `claims` is the name of a file of `configs/claims/`, or a path, by default the file there that is called as the
    study in `paths`, otherwise schneider2024; verdicts say it as `source`. The groups of encoders are the zoo's.
    """
    from mbrl_pvr.study.results import verdicts

    return verdicts(_some_runs(paths), claims)


def list_encoders(pattern: str = "*") -> list[str]:
    """Names of the encoders that match a shell pattern; `pvr_zoo.spec(name)` says what is known about one."""
    import pvr_zoo

    return pvr_zoo.list_encoders(pattern)


def download_encoders(
    names: Sequence[str] = (),
    to: str | Path | None = None,
    *,
    study: str | Path | None = None,
    licence: str | None = None,
    progress: "Progress | None" = None,
) -> "list[Fetched]":
    """Fetch the weights of encoders, named or in a study or YAML file, into this machine's cache or the folder `to`.

    Such a folder, copied to a machine without a network, is used there by setting MBRL_PVR_CACHE to it.
    """
    from mbrl_pvr import downloads
    from mbrl_pvr.errors import ConfigError

    wanted = [*names, *([] if study is None else downloads.names_in(study))]
    if not wanted:
        raise ConfigError("there is no encoder to download", hint="Name some, or give a study's YAML with --for")
    return downloads.fetch(wanted, None if to is None else Path(to).expanduser(), licence, progress)


def list_envs(pattern: str = "*") -> list[str]:
    """Names of the environments that match a shell pattern."""
    from mbrl_pvr import envs

    return envs.list_envs(pattern)


def random_score(
    env: str,
    *,
    action_repeat: int | None = None,
    episodes: int = 2500,
    reward: str = "dense",
    shifts: str = "none",
    severity: float = 1.0,
    bands: str = "interleaved",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> "RandomScore":
    """Measure what uniformly random actions earn in a task: the zero of normalised returns. Nothing is stored.

    `action_repeat` is by default what runs on this task have. Of the shifts (as `env.shifts`) only those that change
    the physics matter.
    """
    _at_least(1, episodes=episodes)
    from mbrl_pvr.envs.random_score import measure

    words: dict[str, Any] = {} if reward == "dense" else {"reward": reward}  # what is left out may mean nothing there
    words |= {} if action_repeat is None else {"action_repeat": action_repeat}
    words |= {} if shifts == "none" else {"shifts": shifts, "severity": severity, "bands": bands}
    settings = [f"env={env}", *(f"env.{key}={value}" for key, value in words.items())]
    config = configure(["agent=dreamerv3", *settings])  # an agent that acts in every task; it is never made
    return measure(config.env, episodes, progress=progress)


def examine(timeout: float = 60.0) -> "list[Finding]":
    """What works on this machine, and what to install for the rest: the findings of `mbrl-pvr doctor`."""
    from mbrl_pvr import doctor

    return doctor.examine(timeout)


def _few(episodes: int, debug: bool) -> int:
    return min(episodes, DEBUG_EPISODES) if debug else episodes


def _run_folder(run: str | Path) -> Path:
    """The folder, once it is known to hold a readable run: a slip is told before torch is imported."""
    from mbrl_pvr.runfolder import read_run

    read_run(run)
    return Path(run)


def _at_least(low: int, **values: int) -> None:
    from mbrl_pvr.errors import ConfigError

    for name, value in values.items():
        if value < low:
            raise ConfigError(f"{name}={value} must be at least {low}")
