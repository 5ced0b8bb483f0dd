"""The commands that look: encoders, envs, doctor. Lists read stored tables and import neither torch nor a simulator."""

from typing import Annotated, Any

import typer

from mbrl_pvr.cli.output import say, say_json, table

Pattern = Annotated[str, typer.Argument(help="Shell pattern, such as '*resnet*'.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    encoders = typer.Typer(help="Encoders: what there is.", no_args_is_help=True, rich_markup_mode=None)
    encoders.command("list")(encoders_list)
    encoders.command("info")(encoders_info)
    app.add_typer(encoders, name="encoders")
    envs = typer.Typer(help="Environments: what there is.", no_args_is_help=True, rich_markup_mode=None)
    envs.callback()(_group)
    envs.command("list")(envs_list)
    app.add_typer(envs, name="envs")
    app.command("doctor")(doctor)


def _group() -> None:
    """Makes a group of a single command."""


def encoders_list(pattern: Pattern = "*", as_json: Json = False) -> None:
    """List encoders with their input and feature sizes."""
    import pvr_zoo

    specs = [pvr_zoo.spec(name) for name in pvr_zoo.list_encoders(pattern)]
    rows = [(s.name, s.architecture, s.input_size, _shape(s), f"{s.depth} {s.unit}s", s.licence) for s in specs]
    header = ("name", "architecture", "input", "feature", "depth", "licence")
    if as_json:
        say_json(
            [
                dict(zip(header, (*row[:3], list(s.feature_shape), s.depth, s.licence), strict=True))
                for row, s in zip(rows, specs, strict=True)
            ]
        )
    elif rows:
        say(table(rows, header))
        say("\nencoder= also takes the path of an encoder file, scratch (pixels, trained along) or state (no pictures)")
    else:
        _nothing(pattern, pvr_zoo.list_encoders())


def _shape(spec: Any) -> str:
    return "×".join(map(str, spec.feature_shape))


def encoders_info(
    name: Annotated[str, typer.Argument(help="An encoder's name or file.")],
    truncate: Annotated[int | None, typer.Option(help="Stages or blocks kept.")] = None,
    feature: Annotated[str | None, typer.Option(help="cls, mean, patches or vector.")] = None,
    as_json: Json = False,
) -> None:
    """Say everything that is known about an encoder."""
    import dataclasses

    import pvr_zoo

    spec = pvr_zoo.spec(name, truncate=truncate, feature=feature)
    facts = {"feature_shape": spec.feature_shape, **dataclasses.asdict(spec)}
    if as_json:
        say_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}={v}" for k, v in value.items() if v not in ("", None))
        say(f"{key}: {value}")


def envs_list(pattern: Pattern = "*", as_json: Json = False) -> None:
    """List environments."""
    from mbrl_pvr.envs import list_envs

    names = list_envs(pattern)
    if as_json:
        say_json(names)
    elif names:
        say("\n".join(names))
    else:
        _nothing(pattern, list_envs())


def _nothing(pattern: str, names: list[str]) -> None:
    from mbrl_pvr.errors import ConfigError
    from mbrl_pvr.names import did_you_mean

    raise ConfigError(
        f"nothing matches {pattern!r}", hint=did_you_mean(pattern, names, "Leave the pattern out to see all")
    )


def doctor(
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for a renderer or an import.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Say what works on this machine, and what to install for the rest."""
    from mbrl_pvr.doctor import examine, exit_status, to_text

    findings = examine(timeout)
    say_json(findings) if as_json else say(to_text(findings))
    raise typer.Exit(exit_status(findings))
