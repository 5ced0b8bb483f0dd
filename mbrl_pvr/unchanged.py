"""What a run was begun with and must still find: the weights of its encoder, the files of its folder of videos."""

from mbrl_pvr.config import RunConfig
from mbrl_pvr.envs.video import listing
from mbrl_pvr.errors import IntegrityError
from mbrl_pvr.features import Features
from mbrl_pvr.runfolder import RunFolder
from mbrl_pvr.storage import plain


def refuse_other_encoder(run: RunFolder, features: Features) -> None:
    """IntegrityError where the encoder's weights are not those that the run began with."""
    now = None if features.encoder is None else plain(features.encoder.identity)
    if run.manifest["encoder"] != now:
        then = run.manifest["encoder"]
        both = sorted({*(then or {}), *(now or {})})
        differs = [f"{k}: {(then or {}).get(k)} -> {(now or {}).get(k)}" for k in both]
        other = [line for line, k in zip(differs, both, strict=True) if (then or {}).get(k) != (now or {}).get(k)]
        raise IntegrityError(
            f"the encoder is not the one that this run began with: {', '.join(other)}",
            str(run.path),
            "Put the old weights back, or start a new run",
        )


def refuse_other_videos(run: RunFolder, chosen: RunConfig) -> None:
    """IntegrityError where files were put into the folder of videos or taken out, which would number them anew."""
    then = run.manifest.get("videos")
    if chosen.env.video is None or then is None:
        return
    now = listing(chosen.env.video)
    if differs := sorted({*then.items()} ^ {*now.items()}):
        names = ", ".join(sorted({name for name, _ in differs})[:5])
        what = f"the folder of videos is not the one that this run began with: {names}"
        how = "Put it back as it was: which files are held out follows from all their names"
        raise IntegrityError(what, chosen.env.video, how)
