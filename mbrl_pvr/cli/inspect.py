"""The commands that look: envs, doctor. Lists read stored tables and import neither torch nor a simulator."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl_pvr.cli.output import nothing_matches, say, say_json

Pattern = Annotated[str, typer.Argument(help="Shell pattern, such as '*resnet*'.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    envs = typer.Typer(
        help="Environments: what there is, and what it looks like.", no_args_is_help=True, rich_markup_mode=None
    )
    envs.command("list")(envs_list)
    envs.command("preview")(envs_preview)
    envs.command("random-score")(envs_random_score)
    app.add_typer(envs, name="envs")
    app.command("doctor")(doctor)


def envs_list(pattern: Pattern = "*", as_json: Json = False) -> None:
    """List environments. Beside them, gym:ID is any environment of gymnasium, as in env=gym:CartPole-v1."""
    from mbrl_pvr.envs import list_envs

    names = list_envs(pattern)
    if as_json:
        say_json(names)
    elif names:
        say("\n".join(names))
    else:
        nothing_matches(pattern, list_envs())


def envs_random_score(
    env: Annotated[str, typer.Argument(help="Its name, as in env=…")],
    action_repeat: Annotated[
        int | None, typer.Option(help="Simulator steps per action [default: that of runs on this task].")
    ] = None,
    episodes: Annotated[int, typer.Option(help="How many to play; nothing is drawn.")] = 2500,
    reward: Annotated[str, typer.Option(help="As env.reward.")] = "dense",
    shift: Annotated[str, typer.Option(help="As env.shifts; only what changes the physics matters.")] = "none",
    severity: Annotated[float, typer.Option(help="As env.severity.")] = 1.0,
    bands: Annotated[str, typer.Option(help="As env.bands.")] = "interleaved",
    as_json: Json = False,
) -> None:
    """Measure what uniformly random actions earn: the zero of normalised returns."""
    from mbrl_pvr import api
    from mbrl_pvr.display import Display

    with Display(what="episodes:") as display:
        score = api.random_score(
            env,
            action_repeat=action_repeat,
            episodes=episodes,
            reward=reward,
            shifts=shift,
            severity=severity,
            bands=bands,
            progress=display.progress,
        )
    if as_json:
        say_json(score)
    else:
        low, high = score.interval
        say(f"{score.task}: {score.mean:.4g} (95 % of the mean: {low:.4g} to {high:.4g}), {score.episodes} episodes")


def envs_preview(
    env: Annotated[str, typer.Argument(help="An environment's name, such as dmc/walker-walk.")],
    shift: Annotated[
        list[str] | None,
        typer.Option(help="A preset, or factors joined by +; may be given again. [default: all it has]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for sheet.png and film.mp4 [default: preview-<env>].")
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels of a frame's side.")] = 96,
    render: Annotated[str, typer.Option(help="Of dm_control: standard, or fast, which has no shadows.")] = "standard",
    split: Annotated[
        str, typer.Option(help="Values of training (train), or those held out from it (held_out).")
    ] = "train",
    bands: Annotated[str, typer.Option(help="How ranges are split: interleaved or outer.")] = "interleaved",
    video: Annotated[str | None, typer.Option(help="Folder of videos or pictures for the shift `video`.")] = None,
    seed: Annotated[int, typer.Option(help="Of the episode and its looks.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw one state under shifts, from severity 0 to 1, as a contact sheet, and a short film of all of them."""
    from mbrl_pvr import api
    from mbrl_pvr.names import safe_name

    folder = out or Path(f"preview-{safe_name(env)}")
    shown = api.preview_env(
        env, shift or (), folder, size=size, render=render, split=split, bands=bands, video=video, seed=seed
    )
    if as_json:
        say_json({"sheet": folder / "sheet.png", "film": folder / "film.mp4", "shifts": shown.shifts})
    else:
        say(f"{len(shown.shifts)} shifts of {env}: {folder / 'sheet.png'}, {folder / 'film.mp4'}")


def doctor(
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for a renderer or an import.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Say what works on this machine, and what to install for the rest."""
    from mbrl_pvr.doctor import examine, exit_status, to_text

    findings = examine(timeout)
    say_json(findings) if as_json else say(to_text(findings))
    raise typer.Exit(exit_status(findings))
