"""Train the study's in-distribution autoencoder on frames of tasks, and write its encoder as a file for `encoder=PATH`.

Frames come from held random actions, or from run folders that kept pixels (encoder=scratch, agent.target=pixels), since
random actions leave most states unseen. Beside the file stand its loss curve and a picture of reconstructions.
"""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import pvr_zoo
from mbrl_pvr import checkpoint, envs
from mbrl_pvr.display import PLAIN_EVERY
from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.actions import random_actions
from mbrl_pvr.errors import ConfigError, IntegrityError
from mbrl_pvr.seeding import derive, rng
from mbrl_pvr.storage import make_folders, replace_atomic, require_space, require_writable
from mbrl_pvr.tensorfile import load
from pvr_zoo.families.autoencoder import SIZE, ConvAutoencoder, ConvEncoder, save_encoder

HOLD = (1, 9)  # random actions are held this many agent steps, so that they move the body instead of averaging out
EPISODE_CAP = 50  # agent steps before the next reset: many starting states, looks and early motions
KEEP_EVERY = 4  # agent steps from one kept frame to the next: neighbours look alike, and another episode is worth more
BATCH = 64
LEARNING_RATE = 1e-3  # peak of a cosine schedule
SHOWN = 12  # frames in the picture of reconstructions, where there are so many
PICTURE_BYTES = 4 << 20  # of both pictures, at most

Progress = Callable[[int, int, str], None]  # done, total, what


@dataclass(frozen=True)
class Frames:
    """Frames in groups of one look each; `background[group[i]]` is the median frame of the look of frame i."""

    frames: np.ndarray  # (M, 64, 64, 3) uint8
    group: np.ndarray  # (M,) int
    background: np.ndarray  # (G, 64, 64, 3) uint8


def autoencoder(
    tasks: Sequence[EnvConfig],
    out: Path | str,
    *,
    frames: int | Sequence[Path | str],
    steps: int,
    seed: int,
    feature_dim: int = 256,
    replace: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> Path:
    """Train on `frames` frames of each task, or on all frames of the run folders `frames`, for `steps` batches of 64.

    Returns the encoder file. Raises ConfigError where `out` exists, unless it is an encoder file and `replace`, or a
    run kept no frames, and StorageError where nothing can be written there, before any work; IntegrityError where
    training diverges.
    """
    out = Path(out)
    loss, reconstruction = (out.parent / f"{out.stem}_{what}.png" for what in ("loss", "reconstruction"))
    _require_place(out, (loss, reconstruction), feature_dim, replace)
    if isinstance(frames, int):
        data = _joined([random_frames(task, frames, seed, progress) for task in tasks])
        sources = [
            f"{frames} frames of {t.name}, held random actions, shifts={t.shifts}, render={t.render}" for t in tasks
        ]
    else:
        data = _joined([run_frames(run) for run in frames])
        sources = [f"frames of run {Path(run).name}" for run in frames]
    make_folders(out.absolute().parent)  # only now: a request that cannot be met leaves nothing behind
    model, curve = _fit(data, steps, seed, feature_dim, progress)
    card: dict[str, Any] = {
        "name": out.stem,
        "recipe": f"convolutional autoencoder, Adam {LEARNING_RATE} with cosine decay, batch {BATCH}, {steps} steps; "
        "half of the squared error on the foreground",
        "data": sources,
        "frames": len(data.frames),
        "seed": seed,
        "loss_curve": curve,
        "licence": "MIT",
    }
    with replace_atomic(out) as temporary:
        save_encoder(temporary, model, card)
    _draw_curve(loss, curve)
    _draw_reconstructions(reconstruction, model, data, seed)
    return out


def _require_place(out: Path, pictures: Sequence[Path], feature_dim: int, replace: bool) -> None:
    """ConfigError unless `out` names a new encoder file or one to `replace`, StorageError unless it fits."""
    if out.suffix != ".safetensors":
        raise ConfigError("the name of an encoder file ends in .safetensors", str(out), "Give --out NAME.safetensors.")
    again = out.is_file() and _is_encoder(out)
    for path in (out, *pictures):
        if os.path.lexists(path) and not (again and path.is_file()):
            raise ConfigError("this would be replaced, and is no encoder file", str(path), "Give another --out.")
    if again and not replace:
        what = "this encoder file exists, and runs trained on it need it"
        raise ConfigError(what, str(out), "Give another --out, or --replace (Python: replace=True).")
    require_writable(out.absolute().parent)
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in ConvEncoder(feature_dim).parameters())
    require_space(out, 2 * weights + PICTURE_BYTES, "an encoder file")


def _is_encoder(path: Path) -> bool:
    try:
        pvr_zoo.spec(path)
    except pvr_zoo.ZooError:
        return False
    return True


def plain_progress() -> Progress:
    """Progress as lines on standard error: at once and at the end, and between them one in a second in a terminal, and
    elsewhere as rarely as in training.
    """
    every = 1.0 if sys.stderr.isatty() else PLAIN_EVERY
    printed = -math.inf

    def show(done: int, total: int, what: str) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed >= every or done >= total:
            printed = now
            print(f"{done:,}/{total:,} {what}", file=sys.stderr, flush=True)

    return show


def random_frames(config: EnvConfig, count: int, seed: int, progress: Progress) -> Frames:
    """`count` frames of one task under held random actions and the training looks of its shift; an episode a group."""
    capped = dataclasses.replace(config, size=SIZE, max_steps=EPISODE_CAP, pixels=True, num=1)
    frames: list[np.ndarray] = []
    group: list[int] = []
    held = since_reset = 0
    noise = rng(seed, f"pretrain-{config.name}")
    with envs.make(capped, seed=seed, stream="pretrain") as env:
        step = env.reset()
        action = np.zeros((1, env.action_spec.dim), dtype=np.float32)
        while len(frames) < count:
            assert step.frame is not None
            since_reset = 0 if step.is_first[0] else since_reset + 1
            if since_reset % KEEP_EVERY == 0:
                frames.append(step.frame[0])
                group.append(int(step.episode[0]))
            if held == 0:
                action = random_actions(env.action_spec, 1, noise)
                held = int(noise.integers(*HOLD))
            held -= 1
            step = env.step(action)
            if since_reset == 0:
                progress(len(frames), count, f"frames of {config.name}")
    return _grouped(np.stack(frames), np.array(group))


def run_frames(run: Path | str) -> Frames:
    """All frames that a run's newest checkpoint holds; ConfigError where the run kept none."""
    saved = checkpoint.latest(run)
    if saved is None or saved.replay is None or "pixels" not in saved.replay["shape"]:
        hint = "Use a run with encoder=scratch or agent.target=pixels"
        raise ConfigError("this run kept no frames to train on", str(run), hint)
    if saved.replay["shape"]["pixels"][2:4] != [SIZE, SIZE]:
        raise ConfigError(f"frames of this run are not {SIZE}×{SIZE} pixels", str(run))
    segments = [load(Path(run) / entry["file"]) for entry in saved.replay["segments"]]
    pixels = np.concatenate([s["pixels"].numpy() for s in segments])  # (ticks, N, 64, 64, 3)
    first = np.concatenate([s["is_first"].numpy() for s in segments])  # (ticks, N)
    episode = np.cumsum(first, axis=0) * first.shape[1] + np.arange(first.shape[1])
    return _grouped(pixels.reshape(-1, SIZE, SIZE, 3), episode.reshape(-1))


def _grouped(frames: np.ndarray, episode: np.ndarray) -> Frames:
    names, group = np.unique(episode, return_inverse=True)
    background = np.stack([np.median(frames[group == g], axis=0) for g in range(len(names))]).astype(np.uint8)
    return Frames(frames, group, background)


def _joined(parts: Sequence[Frames]) -> Frames:
    offsets = np.cumsum([0] + [len(p.background) for p in parts])
    return Frames(
        np.concatenate([p.frames for p in parts]),
        np.concatenate([p.group + offset for p, offset in zip(parts, offsets[:-1], strict=True)]),
        np.concatenate([p.background for p in parts]),
    )


def _fit(
    data: Frames, steps: int, seed: int, feature_dim: int, progress: Progress
) -> tuple[ConvAutoencoder, list[list[float]]]:
    """The trained model and its loss curve [[step, mean loss since the last point], …]; IntegrityError where the loss
    is not finite.
    """
    torch.manual_seed(derive(seed, "autoencoder"))
    model = ConvAutoencoder(feature_dim)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    noise = rng(seed, "autoencoder-batches")
    curve: list[list[float]] = []
    recent: list[float] = []
    for step in range(1, steps + 1):
        chosen = noise.integers(0, len(data.frames), BATCH)
        frames, background = data.frames[chosen], data.background[data.group[chosen]]
        loss = model.loss(torch.from_numpy(frames), torch.from_numpy(background))
        recent.append(loss.item())
        if not math.isfinite(recent[-1]):
            raise IntegrityError(f"the loss of step {step} is {recent[-1]}; nothing is written", "autoencoder")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % max(1, steps // 100) == 0 or step == steps:
            curve.append([step, float(f"{np.mean(recent):.5g}")])
            progress(step, steps, f"autoencoder, loss {curve[-1][1]:.5f}")
            recent.clear()
    return model.eval(), curve


def _draw_curve(path: Path, curve: list[list[float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(*np.array(curve).T, color="#0072B2", linewidth=1)
    axes.set(xlabel="training step", ylabel="loss", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    with replace_atomic(path) as temporary:
        figure.savefig(temporary, dpi=200)


def _draw_reconstructions(path: Path, model: ConvAutoencoder, data: Frames, seed: int) -> None:
    """Frames above, what the feature remembers of them below."""
    count = min(SHOWN, len(data.frames))
    chosen = np.sort(rng(seed, "autoencoder-shown").choice(len(data.frames), count, replace=False))
    frames = data.frames[chosen]
    rebuilt = model.reconstruct(torch.from_numpy(frames)).numpy()
    rows = [np.concatenate(list(row), axis=1) for row in (frames, rebuilt)]
    with replace_atomic(path) as temporary:
        picture = Image.fromarray(np.concatenate(rows))
        picture.resize((count * SIZE * 2, 4 * SIZE), Image.Resampling.NEAREST).save(temporary)
