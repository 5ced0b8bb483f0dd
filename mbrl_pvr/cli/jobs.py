"""The commands that do work, from train to pretrain; each is one call of `mbrl_pvr.api`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbrl_pvr import api
from mbrl_pvr.cli.encoders import Licence
from mbrl_pvr.cli.output import jsonable, say, say_json, table
from mbrl_pvr.cli.results import Claims

if TYPE_CHECKING:
    from mbrl_pvr.settings import RunConfig

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="agent=tdmpc2 encoder=NAME|PATH env=NAME seed=1 agent.lr=1e-3 …"),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Tiny sizes, eager, under a minute.")]
Brief = Annotated[
    bool,
    typer.Option(
        "--debug", help="At most 2 episodes of at most 20 steps; files go to RUN/debug if the run's are longer."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for name, command in (("train", train), ("resume", resume), ("eval", evaluate), ("ood", ood), ("record", record)):
        app.command(name)(command)
    app.command("analyze")(analyze)
    app.command("report")(report)
    pretraining = typer.Typer(
        help="Train an encoder on a task's own frames, or on those that runs with encoder=scratch kept.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    pretraining.callback()(_group)
    pretraining.command("autoencoder")(autoencoder)
    app.add_typer(pretraining, name="pretrain")


def _group() -> None:
    """Makes a group of a single command."""


def train(
    overrides: Overrides = None,
    dir: Annotated[Path | None, typer.Option("--dir", help="The run's folder [default: runs/<name>].")] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="NAME|PATH", help="A preset (demo) or a YAML file.")
    ] = None,
    debug: Debug = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print every key, explained, and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would run, and stop.")] = False,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Train a world model; the same command on the same folder continues."""
    if print_config or dry_run:
        chosen = api.configure(overrides or [], config=config, debug=debug, licence=licence)
        _show_config(chosen, api.default_folder(chosen) if dir is None else dir, print_config, as_json)
        return
    result = api.train(overrides or [], dir, config=config, debug=debug, licence=licence)
    _report_run(result, as_json)


def _show_config(config: "RunConfig", folder: Path, print_config: bool, as_json: bool) -> None:
    from mbrl_pvr.config import identity, to_dict, to_yaml

    if print_config:
        if as_json:
            say_json(to_dict(config))
        else:
            print(to_yaml(config, docs=True), end="")
        return
    from mbrl_pvr.session import try_start

    absent = try_start(config, folder)
    if as_json:
        say_json({"dir": folder, "weights_to_fetch": absent, "identity": identity(config), "config": to_dict(config)})
    else:
        say(f"would train {config.agent_preset} on {config.encoder.name} in {config.env.name}, seed {config.seed}")
        say(f"for {config.steps:,} agent steps ({config.steps * config.env.action_repeat:,} frames), in {folder}")
        for address in absent:
            say(f"weights that are not on this machine and would be fetched: {address}")


def _report_run(result: Any, as_json: bool) -> None:
    values = jsonable(result)
    if as_json:
        say_json(values)
    else:
        for key, value in values.items():
            say(f"{key}: {value}")


def resume(run: Run, as_json: Json = False) -> None:
    """Continue an interrupted run."""
    _report_run(api.resume(run), as_json)


def evaluate(
    run: Run,
    episodes: Annotated[int, typer.Option(help="How many episodes.")] = 12,
    video: Annotated[bool, typer.Option("--video", help="Film the first episode.")] = False,
    debug: Brief = False,
    as_json: Json = False,
) -> None:
    """Play episodes in the training distribution."""
    _print_episodes(api.evaluate(run, episodes=episodes, video=video, debug=debug), as_json)


def ood(
    run: Run,
    episodes: Annotated[int, typer.Option(help="How many episodes of each kind; 10 are enough to try on a CPU.")] = 200,
    shift: Annotated[
        list[str] | None,
        typer.Option(help="A preset, or factors joined by +; may be repeated.  [default: as in training]"),
    ] = None,
    severity: Annotated[
        list[float] | None,
        typer.Option(
            help="0: the simulator's own look … 1: all of the shift; may be repeated.  [default: as in training]"
        ),
    ] = None,
    each_factor: Annotated[
        bool, typer.Option("--each-factor", help="Also hold out each factor of a shift alone.")
    ] = False,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Film the first episode of each kind.")] = True,
    debug: Brief = False,
    as_json: Json = False,
) -> None:
    """Play episodes in and out of the training distribution."""
    how = {"shifts": shift or (), "severities": severity or (), "each_factor": each_factor}
    _print_episodes(api.ood(run, episodes=episodes, **how, video=video, debug=debug), as_json)  # type: ignore[arg-type]


def record(
    run: Run,
    episodes: Annotated[int, typer.Option(help="How many episodes.")] = 10,
    context: Annotated[int, typer.Option(help="Observations given before the model goes on open loop.")] = 1,
    starts: Annotated[int, typer.Option(help="Points of an episode from which it also goes on open loop.")] = 8,
    horizon: Annotated[int, typer.Option(help="Steps of these.")] = 33,
    bank: Annotated[
        Path | None, typer.Option(help="A trajectory bank to predict, with its shifts, in place of fresh episodes.")
    ] = None,
    shift: Annotated[
        str, typer.Option(help="Play under this shift, held out: a preset, or factors joined by +.", show_default=False)
    ] = "",
    severity: Annotated[
        float | None, typer.Option(help="Of the shift, 0 to 1.  [default: as in training, or 1]", show_default=False)
    ] = None,
    frames: Annotated[
        bool, typer.Option("--frames/--no-frames", help="A small picture of every step; not all environments can draw.")
    ] = True,
    debug: Brief = False,
    as_json: Json = False,
) -> None:
    """Store latents and predictions of fresh episodes, under the training looks or a shift, or of a bank."""
    how = {"context": context, "starts": starts, "horizon": horizon}
    where = {"bank": bank, "shift": shift, "severity": severity}
    paths = api.record(run, episodes=episodes, **how, **where, frames=frames, debug=debug)  # type: ignore[arg-type]
    say_json({"paths": paths}) if as_json else say("\n".join(map(str, paths)))


def analyze(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, studies or exports of them.")],
    out: Annotated[Path, typer.Option("--out", help="Where tables and figures go.")],
    figure: Annotated[list[str] | None, typer.Option("--figure", help="Only this figure; may be repeated.")] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Take runs that have not ended too.")] = False,
    form: Annotated[
        list[str] | None, typer.Option("--format", help="pdf, png or svg; may be repeated [default: pdf png].")
    ] = None,
    window: Annotated[
        list[int] | None,
        typer.Option(help="Steps over which errors are summed; may be repeated [default: 33 500, the study's]."),
    ] = None,
    colour: Annotated[str, typer.Option(help="Of latents: reward, value, time, or a state variable.")] = "reward",
    latent: Annotated[str, typer.Option(help="Of DreamerV3: state ([h, z], the study's) or z.")] = "state",
    as_json: Json = False,
) -> None:
    """Draw the figures whose inputs the runs hold, in episodes of their own and on each bank they were recorded on."""
    options: dict[str, Any] = {"colour": colour, "latent": latent} | ({"windows": window} if window else {})
    options |= {"formats": form} if form else {}
    report = api.analyze(runs, out, figures=figure or None, unfinished=unfinished, **options)
    if as_json:
        say_json(report)
        return
    for name, paths in report["figures"].items():
        say(f"{name}: {', '.join(map(str, paths))}")
        for note in report["notes"][name]:
            say(f"  {note}")
    _say_what_is_missing(report["missing"], report["unfinished"])


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, studies or exports of them.")],
    out: Annotated[Path, typer.Option("--out", help="The folder that gets report.html.")],
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Take runs that have not ended too.")] = False,
    claims: Claims = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page with the figures, interactive, and an explorer of recorded latents with their frames."""
    made = api.report(runs, out, unfinished=unfinished, claims=claims)
    if as_json:
        say_json(made)
        return
    count = len(made["runs"])
    say(f"{made['page']}: {count} run{'s' * (count > 1)}, figures {', '.join(made['figures']) or 'none'}")
    if made["claims"]:
        say(f"  claims of {made['claims']}")
    for note in made["notes"]:
        say(f"  {note}")
    _say_what_is_missing(made["missing"], made["unfinished"])


def _say_what_is_missing(missing: list[dict[str, str]], unfinished: list[dict[str, str]]) -> None:
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for lack in missing:
        lacking.setdefault((lack["run"], lack["reason"], lack["command"]), []).append(lack["figure"])
    for (folder, reason, command), figures in lacking.items():
        how = f". Make it: {command}" if command else ""
        say(f"{', '.join(figures)} not drawn for {folder}: {reason}{how}")
    for run in unfinished:
        how = f"Finish it: {run['command']}, or give" if run["command"] else "To take it too, give"
        say(f"{run['run']} left out, it is {run['state']}. {how} --unfinished")


def autoencoder(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="env=NAME[,NAME] seed=1 env.shifts=… frames=3000, or frames=RUN,RUN (encoder=scratch)",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Encoder file [default: autoencoder-<task>.safetensors].")
    ] = None,
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 8000,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an encoder file; runs trained on it cannot go on.")
    ] = False,
    debug: Debug = False,
    as_json: Json = False,
) -> None:
    """Train the study's autoencoder and write a file for encoder=PATH.

    frames=RUN wants runs with encoder=scratch or agent.target=pixels, which keep frames; env= is then theirs.
    """
    given = [text for text in overrides or [] if text.startswith("frames=")]
    rest = [text for text in overrides or [] if text not in given]
    chosen = {"frames": _frames(given[-1].removeprefix("frames="))} if given else {}
    path = api.pretrain(rest, out, steps=steps, replace=replace, debug=debug, **chosen)
    say_json({"path": path}) if as_json else say(f"{path}\nUse it: mbrl-pvr train encoder={path}")


def _frames(text: str) -> Any:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        number = math.nan
    if number.is_integer():
        return int(number)
    paths = [Path(part) for part in text.split(",")]
    if missing := [str(path) for path in paths if not path.is_dir()]:
        from mbrl_pvr.errors import ConfigError

        raise ConfigError(f"frames={missing[0]}: frames wants a whole number or run folders", "frames")
    return paths


def _print_episodes(frame: Any, as_json: bool) -> None:
    """Episode rows as JSON, or their mean returns by split."""
    if as_json:
        say_json(frame)
        return
    groups: dict[tuple[Any, ...], list[tuple[float, float | None]]] = {}
    for row in frame.to_dict(orient="records"):
        key = (row.get("split", row["kind"]), row["shift"], row["severity"])
        groups.setdefault(key, []).append((row["return"], row.get("normalised")))
    lines = []
    for key, rows in groups.items():
        returns, shares = zip(*rows, strict=True)
        known = [share for share in shares if share is not None and not math.isnan(share)]
        share = f"{sum(known) / len(known):.3f}" if known else "-"
        figures = (f"{sum(returns) / len(returns):.1f}", f"{min(returns):.1f}", f"{max(returns):.1f}")
        lines.append((*key, len(rows), *figures, share))
    say(table(lines, ("split", "shift", "severity", "episodes", "mean return", "lowest", "highest", "normalised")))
