"""`encoders list|info|verify|profile|download`: what there is, whether it computes right, what it costs, its weights.

Lists read stored tables and import no torch.
"""

from pathlib import Path
from typing import Annotated

import typer

from mbrl_pvr import api
from mbrl_pvr.cli.output import nothing_matches, say, say_json, table
from mbrl_pvr.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pattern = Annotated[str, typer.Argument(help="Shell pattern, such as '*resnet*'.")]
Licence = Annotated[
    str | None, typer.Option(help="permissive, non-commercial or other; encoders of another licence are refused.")
]
Truncate = Annotated[list[int] | None, typer.Option(help="Levels kept; give it again to concatenate.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(help="Encoders: what there is.", no_args_is_help=True, rich_markup_mode=None)
    for command in (list_, info, verify, profile, download):
        group.command(command.__name__.strip("_"))(command)
    app.add_typer(group, name="encoders")


def list_(
    pattern: Pattern = "*",
    group: Annotated[
        str | None, typer.Option(help="The study's property: language, sequential, diverse or vit.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="permissive, non-commercial or other.")] = None,
    as_json: Json = False,
) -> None:
    """List encoders as the study does: objective, data, backbone; with size, feature and licence."""
    import pvr_zoo
    from pvr_zoo import catalogue

    cards = [catalogue.card(row) for row in catalogue.choose(pattern, group, licence)]
    if as_json:
        say_json(cards)
        return
    if not cards:
        nothing_matches(pattern, pvr_zoo.list_encoders())
    rows = [
        (
            *(card[key] for key in ("name", "objective", "data", "backbone")),
            "" if card["parameters"] is None else f"{card['parameters'] / 1e6:.1f} M",
            card["input"],
            "×".join(map(str, card["feature_shape"])),
            card["licence"],
        )
        for card in cards
    ]
    say(table(rows, ("name", "objective", "data", "backbone", "parameters", "input", "feature", "licence")))
    say("\nencoder= also takes timm:NAME, openclip:ARCH/TAG, hf:ORG/NAME, random:NAME, the path of an encoder file,")
    say("scratch (pixels, trained along) and state (no pictures)")


def info(
    name: Annotated[str, typer.Argument(help="An encoder's name or file.")],
    truncate: Truncate = None,
    feature: Annotated[str | None, typer.Option(help="cls, mean, patches, keypoints or output.")] = None,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Say everything that is known about an encoder."""
    import pvr_zoo
    from pvr_zoo import catalogue

    spec = pvr_zoo.spec(name, truncate=truncate or None, feature=feature)
    catalogue.require_licence(spec, licence)
    facts = catalogue.card(spec)
    if as_json:
        say_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = [f"{name}: {known}" for name, known in value.items()]
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        if text not in ("", None):
            say(f"{key.replace('_', ' ')}: {text:,}" if isinstance(text, int) else f"{key.replace('_', ' ')}: {text}")


def verify(pattern: Pattern = "*", as_json: Json = False) -> None:
    """Compare encoders with vectors that independent code computed; real weights are loaded where they are at hand."""
    from pvr_zoo import verify as checks

    verdicts = []
    for verdict in checks.verify(pattern):
        verdicts.append(verdict)
        if not as_json:
            error = "" if verdict.error is None else f"{verdict.error:.1e}"
            mark = {True: "ok", False: "FAILED", None: "unverified"}[verdict.ok]
            say(f"{mark:10} {verdict.name:32} {verdict.weights:9} layout {verdict.layout:10} {error:8} {verdict.note}")
    if as_json:
        say_json(verdicts)
    if not verdicts:
        import pvr_zoo

        if pattern.startswith("random:") or pvr_zoo.list_encoders(pattern):
            raise ConfigError(f"{pattern!r} names random encoders alone, which have no weights to verify")
        nothing_matches(pattern, pvr_zoo.list_encoders())
    raise typer.Exit(3 if any(verdict.ok is False for verdict in verdicts) else 0)


def profile(
    names: Annotated[list[str], typer.Argument(help="Encoders.")],
    truncate: Truncate = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size; give it again for more [default: 1, 32].")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="[default: float32, bfloat16]")] = None,
    weights: Annotated[Path | None, typer.Option(help="A weights file; without one random weights are used.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Measure images a second, memory, FLOPs and bytes in replay on this device; weights do not matter for that."""
    import pvr_zoo
    from pvr_zoo import catalogue

    for name in names:
        catalogue.require_licence(pvr_zoo.spec(name), licence)
    from pvr_zoo import profile as measure

    rows = []
    for name in names:
        for row in measure.profile(
            name if weights is not None or name.startswith("random") else f"random:{name}",
            batches=tuple(batch or (1, 32)),
            dtypes=tuple(dtype or ("float32", "bfloat16")),
            device=device,
            truncate=truncate or None,
            weights=weights,
        ):
            rows.append(row)
            if not as_json:
                say(
                    f"{row.name} {row.dtype} batch {row.batch}: {row.images_per_second:.1f} images/s"
                    f" ({row.share_of_bare:.0%} of the bare network), {row.megabytes:.0f} MB,"
                    f" {row.gigaflops:.2f} GFLOP, {row.bytes_in_replay} bytes in replay, error {row.error:.1e}"
                )
    if as_json:
        say_json(rows)


def download(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAMES]...", help="Encoders.")] = None,
    study: Annotated[
        Path | None, typer.Option("--for", metavar="STUDY.yaml", help="A YAML file; all that it names as encoder.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="A folder for another machine's MBRL_PVR_CACHE [default: the cache]."),
    ] = None,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Fetch the weights of encoders, with their checksums compared; a download that was cut off goes on."""
    from mbrl_pvr.downloads import Bars

    with Bars() as bars:
        fetched = api.download_encoders(names or [], to, study=study, licence=licence, progress=bars.show)
    if as_json:
        say_json(fetched)
        return
    rows = [(f.encoder, f"{f.bytes / 1e6:,.1f} MB" if f.file else "", f.sha256[:12], f.file or f.note) for f in fetched]
    say(table(rows, ("encoder", "size", "sha256", "file")))
    if to is not None:
        say(f"\nUse it: MBRL_PVR_CACHE={to.expanduser().absolute()} HF_HUB_OFFLINE=1")
