"""`encoders list|info|verify|profile|download`: what there is, whether it computes right, what it costs, its weights.

Lists read stored tables and import no torch.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from mbrl_pvr import api
from mbrl_pvr.cli.output import nothing_matches, say, say_json, table
from mbrl_pvr.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pattern = Annotated[str, typer.Argument(help="Shell pattern, such as '*resnet*'.")]
Licence = Annotated[
    str | None, typer.Option(help="permissive, non-commercial or other; encoders of another licence are refused.")
]
Norm = Annotated[str | None, typer.Option(help="A ViT's final norm: keep or none.")]
InputSize = Annotated[int | None, typer.Option(help="Side of the network's input [default: as published].")]
NO_ENCODER = {  # what `encoder=` takes beside encoders, as `encoders info` tells it
    "scratch": "no pretrained encoder: the agent gets pixels, and its own convolutions are trained along with it",
    "state": "no pictures: the agent gets the simulator's state",
}
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
        str | None,
        typer.Option(help="The study's property: language, sequential, diverse or vit; or study, its encoders."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="permissive, non-commercial or other.")] = None,
    as_json: Json = False,
) -> None:
    """List encoders as the study does: objective, data, backbone; with size, feature and licence."""
    import pvr_zoo
    from pvr_zoo import catalogue
    from pvr_zoo import study as published

    cards = [catalogue.card(row) for row in catalogue.choose(pattern, group, licence)]
    if as_json:
        say_json(cards)
        return
    if not cards:
        nothing_matches(pattern, pvr_zoo.list_encoders())
    rows: list[tuple[str, ...]] = [
        (
            *(card[key] for key in ("name", "objective", "data", "backbone")),
            "" if card["parameters"] is None else f"{card['parameters'] / 1e6:.1f} M",
            card["input"],
            "×".join(map(str, card["feature_shape"])),
            card["licence"],
            card["commercial_use"],
        )
        for card in cards
    ]
    head: tuple[str, ...] = (
        "name",
        "objective",
        "data",
        "backbone",
        "parameters",
        "input",
        "feature",
        "licence",
        "commercial use",
    )
    of_study = group == catalogue.STUDY
    if of_study:
        head = ("in the study", *head)
        rows = [(card["name_in_study"], *row) for card, row in zip(cards, rows, strict=True)]
    say(table(rows, head))
    if of_study:
        say("\nThe study's other two are not in the zoo's table:")
        for name, what in published.OTHERS.items():
            say(f"{name}: {what}")
    say("\nencoder= also takes timm:NAME, openclip:ARCH/TAG, hf:ORG/NAME, random:NAME, the path of an encoder file,")
    say("scratch (pixels, trained along) and state (no pictures)")


def info(
    name: Annotated[str, typer.Argument(help="An encoder's name or file.")],
    truncate: Truncate = None,
    feature: Annotated[str | None, typer.Option(help="cls, mean, patches, keypoints or output.")] = None,
    norm: Norm = None,
    input_size: InputSize = None,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Say everything that is known about an encoder."""
    import pvr_zoo
    from pvr_zoo import catalogue

    request = {"truncate": truncate or None, "feature": feature, "norm": norm, "input_size": input_size}
    if name in NO_ENCODER:
        asked = [key for key, value in {**request, "licence": licence}.items() if value is not None]
        if asked:
            raise ConfigError(f"{name} is no encoder of the zoo, so that {asked[0]} means nothing")
        _show({"name": name, "what": NO_ENCODER[name]}, as_json)
        return
    row = pvr_zoo.spec(name)
    catalogue.require_licence(row, licence)
    _show(catalogue.info(row, **request), as_json)


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(facts)
        return
    for key, value in facts.items():
        if key == "flops" and value is None:
            value = "not counted"
        if isinstance(value, dict):
            value = [f"{name}: {known}" for name, known in value.items()]
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        if text not in ("", None):
            say(f"{key.replace('_', ' ')}: {text:,}" if isinstance(text, int) else f"{key.replace('_', ' ')}: {text}")


def verify(
    pattern: Pattern = "*",
    weights: Annotated[
        Path | None, typer.Option(help="A weights file for the encoder named; it alone is loaded and tried.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare encoders with vectors that independent code computed; real weights are loaded where they are at hand."""
    from pvr_zoo import verify as checks

    verdicts = []
    for verdict in checks.verify(pattern, weights):
        verdicts.append(verdict)
        if not as_json:
            errors = " ".join(f"{what} {error:.1e}" for what, error in verdict.errors.items())
            mark = {True: "ok", False: "FAILED", None: "unverified"}[verdict.ok]
            say(f"{mark:10} {verdict.name:32} {verdict.weights:9} layout {verdict.layout:18} {errors} {verdict.note}")
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
    truncate: Annotated[
        list[int] | None, typer.Option(help="Levels kept; give it again for more rows [default: all].")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Batch size; give it again for more [default: 1, 32].")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32, bfloat16 or auto; again for more [default: float32, bfloat16].")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network, half a minute each.")] = False,
    weights: Annotated[Path | None, typer.Option(help="A weights file; without one random weights are used.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Measure images a second, memory, FLOPs and bytes in replay on this device; weights do not matter for speed."""
    import pvr_zoo
    from mbrl_pvr.display import Display
    from pvr_zoo import catalogue
    from pvr_zoo import profile as measure

    batches, dtypes = tuple(batch or (1, 32)), tuple(dtype or ("float32", "bfloat16"))
    device = _check_profile(batches, dtypes, compiled, device)
    known = [name if weights is not None or name.startswith("random") else f"random:{name}" for name in names]
    asked = [(name, levels) for name in known for levels in truncate or (None,)]
    for name, levels in asked:
        pvr_zoo.spec(name, truncate=levels)  # a slip is told before anything is measured
    for name in names:
        catalogue.require_licence(pvr_zoo.spec(name), licence)
    options: dict[str, Any] = {
        "batches": batches,
        "dtypes": dtypes,
        "compiled": compiled,
        "weights": weights,
    }
    rows = []
    with Display(what="profile") as display:
        total = len(asked) * len(batches) * len(dtypes)
        for name, levels in asked:
            for row in measure.profile(name, truncate=levels, device=device, **options):
                rows.append(row)
                display.progress(len(rows), total)
    if as_json:
        say_json(rows)
        return
    shown = [
        (
            *(row.name, row.truncate, row.dtype, row.batch, f"{row.images_per_second:.1f}", f"{row.share_of_bare:.0%}"),
            *(f"{row.megabytes:.0f} MB", f"{row.weights_megabytes:.0f} MB", f"{row.gigaflops:.2f}"),
            *(f"{row.bytes_in_replay:,}", f"{row.error:.2%}" if row.error else ""),
        )
        for row in rows
    ]
    head = "encoder levels dtype batch images/s of_bare activations weights GFLOP bytes error"
    say(table(shown, [word.replace("_", " ") for word in head.split()]))
    say("\nof bare: share of the bare network's speed, its input ready-made")
    say("GFLOP: of one image, a product with its sum as two; bytes: of one feature in replay")
    say("error: of a feature, root mean square, over the standard deviation of float32's features")


def _check_profile(batches: tuple[int, ...], dtypes: tuple[str, ...], compiled: bool, device: str) -> str:
    """The device as torch names it; raises ConfigError and Unavailable for what cannot be measured here."""
    from mbrl_pvr.doctor import compiler_lacks
    from mbrl_pvr.embedding import pick_device
    from mbrl_pvr.errors import ConfigError, Unavailable
    from pvr_zoo.fast import PRECISIONS

    if min(batches) < 1:
        raise ConfigError(f"batch={min(batches)} must be at least 1", "--batch")
    if unknown := [dtype for dtype in dtypes if dtype not in PRECISIONS]:
        raise ConfigError(f"dtype={unknown[0]!r} is not one of {', '.join(PRECISIONS)}", "--dtype")
    if compiled and (lacking := compiler_lacks()):
        raise Unavailable("torch.compile cannot work here", "--compile", f"Debian: apt-get install {' '.join(lacking)}")
    return pick_device(device)


def download(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAMES]...", help="Encoders.")] = None,
    study: Annotated[
        Path | None, typer.Option("--for", metavar="STUDY", help="A study or YAML file; all that it names as encoder.")
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
