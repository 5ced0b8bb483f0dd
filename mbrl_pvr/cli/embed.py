"""`embed`: features of a user's own pictures, a call of `mbrl_pvr.api`."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl_pvr import api
from mbrl_pvr.cli.encoders import InputSize, Json, Licence, Norm
from mbrl_pvr.cli.output import say, say_json


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("embed")(embed)


def embed(
    source: Annotated[Path, typer.Argument(metavar="FOLDER|VIDEO", help="A folder of pictures, or a video.")],
    encoder: Annotated[str, typer.Option("--encoder", metavar="NAME|PATH", help="An encoder, or an encoder file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The .npz to write.")],
    truncate: Annotated[
        list[int] | None, typer.Option(help="Stages or blocks kept; give it again to concatenate.")
    ] = None,
    feature: Annotated[str | None, typer.Option(help="cls, mean, patches, keypoints or output.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A file in the place of the published weights.")] = None,
    norm: Norm = None,
    input_size: InputSize = None,
    batch_size: Annotated[int, typer.Option(help="Pictures at once.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the network: float32, bfloat16 or auto.")] = "float32",
    dtype: Annotated[str, typer.Option(help="Of the stored features: float32 or float16.")] = "float32",
    licence: Licence = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there already.")] = False,
    as_json: Json = False,
) -> None:
    """Store the features of your own pictures, or of a video's frames."""
    from mbrl_pvr.display import Display

    with Display(what="embed") as display:
        embedding = api.embed(
            source,
            encoder,
            out,
            truncate=truncate or None,
            feature=feature,
            norm=norm,
            weights=weights,
            input_size=input_size,
            batch_size=batch_size,
            device=device,
            precision=precision,
            dtype=dtype,
            licence=licence,
            replace=replace,
            progress=display.progress,
        )
    count, *shape = embedding.features.shape
    if as_json:
        facts = {"path": out, "count": count, "feature_shape": shape, "dtype": dtype, "error": embedding.error}
        say_json({**facts, "identity": embedding.identity})
    else:
        say(f"{out}: {count:,} features of {'×'.join(map(str, shape))}, {dtype}, from {embedding.identity['name']}")
        if "precision" in embedding.identity:
            computed = f"computed in {embedding.identity['precision']}"
            say(f"{computed}: features differ from float32's by {embedding.error:.2%} of their spread")
