"""Episodes with the model's predictions beside the truth: the arrays that the analysis reads, and a film."""

import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mbrl_pvr import film
from mbrl_pvr.bank import PLAIN, Bank, differences
from mbrl_pvr.build import least_frame
from mbrl_pvr.config import RunConfig
from mbrl_pvr.display import Display
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.evaluation import episode_steps, output, play, shortened
from mbrl_pvr.offline import view_of
from mbrl_pvr.rollout import Episode
from mbrl_pvr.session import Trained, load_trained
from mbrl_pvr.splits import IN_DISTRIBUTION, Split, held_out_splits
from mbrl_pvr.storage import TEMPORARY, make_folders
from mbrl_pvr.video import write_video
from world_models.frames import TOGETHER, averaged
from world_models.types import Batch, Obs

_FROM = "_from"  # ends the names of arrays that begin at start points
THUMBNAIL = 64  # pixels a side of the pictures that are kept of every step


@dataclass(frozen=True)
class Points:
    """From where the model goes on open loop: after `context` observations to the end of the episode, and `horizon`
    steps from `starts` points evenly spaced behind them.
    """

    context: int = 1
    starts: int = 8
    horizon: int = 33  # the study's shorter window

    def of(self, longest: int) -> list[int]:
        """The start points in episodes of `longest` actions: the index of the first step that is not given."""
        return sorted({int(s) for s in np.linspace(self.context, longest, self.starts, endpoint=False)})


def record(
    run: Path | str,
    *,
    episodes: int = 10,
    points: Points = Points(),
    bank: Path | str | None = None,
    shift: str = "",
    severity: float | None = None,
    frames: bool = True,
    debug: bool = False,
) -> list[Path]:
    """Write what the newest checkpoint's model predicts into the run folder; returns the files.

    Of fresh episodes under the training looks: `latents.npz`; of as many, from the same states, with the looks of a
    `shift` held out (of `severity`, by default as `ood` has it): `latents_under_<shift>_<severity>.npz`. Of the first
    `episodes` trajectories of a bank: `latents_on_<bank's id>.npz`, and one more file for each shift that the bank was
    drawn under, so that rows of equal index are one state under several looks. The first `points.context` observations
    of an episode are given to the model, the rest is predicted open loop under the recorded actions; `open_loop_from`
    and `reward_open_loop_from` (E, P, K, …) begin behind those before `starts` (P,), NaN where an episode has ended.
    With `frames` a small picture of every step is kept, also of an agent that sees none: `frame` (E, T, h, w, 3) uint8,
    what the environment shows, averaged over areas to at most `THUMBNAIL` a side. Where the agent draws pixels, the
    first fresh episodes are filmed beside what it predicts, into the run's videos/ (`mbrl_pvr.film` says what it
    shows). Arrays are padded to the longest episode; `length` says how many steps are real. Raises ConfigError where
    nothing is left to predict, for a bank of another environment, and for a shift of a bank, which has its own.
    """
    with load_trained(run) as loaded:
        trained = shortened(loaded, debug)
        longest = episode_steps(trained)
        if not 1 <= (context := points.context) <= longest:
            raise ConfigError(
                f"context={context} must lie in 1..{longest}, the steps of an episode, so that one is left to predict",
                str(trained.run.path),
            )
        if bank is None:
            split = _split(trained.config, shift, severity)
            name = "latents.npz" if split == IN_DISTRIBUTION else f"latents_under_{shift}_{split.severity:g}.npz"
            fresh = play(trained, split, "record", episodes, pixels=frames, state=True)
            return [_write(trained, name, fresh, episodes, points, frames=frames, films=split == IN_DISTRIBUTION)]
        if shift or severity is not None:
            how = f"Record it without: all its looks are ({', '.join(Bank.open(bank).shifts) or 'it has no shifts'})"
            raise ConfigError("a bank has shifts of its own, with their severity", str(bank), how)
        source = Bank.open(bank)
        _require_same_env(trained, source)
        written = []
        for shift in (PLAIN, *source.shifts):
            name = f"latents_on_{source.id}{'' if shift == PLAIN else f'_{shift}'}.npz"
            count = min(episodes, len(source))
            replayed = _replayed(trained, source, shift, count)
            written.append(_write(trained, name, replayed, count, points, frames=frames, films=False))
        return written


def _split(config: RunConfig, shift: str, severity: float | None) -> Split:
    if not shift:
        if severity is None:
            return IN_DISTRIBUTION
        raise ConfigError(f"severity={severity:g} of no shift", "record", "Name one: --shift NAME")
    return held_out_splits(config, [shift], [] if severity is None else [severity])[0]


def _write(
    trained: Trained,
    name: str,
    played: Iterator[tuple[int, Episode]],
    count: int,
    points: Points,
    *,
    frames: bool,
    films: bool,
) -> Path:
    """Record episodes one after the other: the arrays of one are in memory, those of all are on disk."""
    drawn: list[film.Film] = []
    fps, name = 0.0, output(trained, name)
    make_folders((trained.run.path / name).parent)
    with tempfile.TemporaryDirectory(dir=(trained.run.path / name).parent, prefix=".", suffix=TEMPORARY) as scratch:
        arrays = _Arrays(Path(scratch), count, (longest := episode_steps(trained)) + 1)
        for number, episode in played:
            report, picture = _report(trained, number, episode, points, longest, film_it=films)
            if frames:
                report["frame"] = _thumbnails(episode.frames)
            arrays.add(report)
            drawn += [] if picture is None else [picture]
            fps = episode.fps
        numbers = {
            "context": np.array(points.context),
            "starts": np.array(points.of(longest)),
            "kind": np.array("categorical" if trained.agent.classes else "deterministic"),
            "classes": np.array(trained.agent.classes),  # of each latent, whose logits are stored side by side; 0: none
            "step": np.array(trained.step),
            "state_names": np.array(trained.run.manifest["env"].get("proprio_names", []), np.str_),
        }
        with trained.run.replace(name) as temporary:
            arrays.pack(temporary, numbers)
    if drawn:
        with trained.run.replace(output(trained, f"videos/open_loop_step_{trained.step:09d}.mp4")) as temporary:
            write_video(temporary, film.frames(drawn, points.context), fps)
    return trained.run.path / name


def _replayed(trained: Trained, bank: Bank, shift: str, count: int) -> Iterator[tuple[int, Episode]]:
    """Trajectories of a bank as episodes of this run's encoder; --debug cuts them short."""
    last = episode_steps(trained)
    with Display(what=f"record, {shift}, trajectories:") as display:
        for number in range(count):
            cut = bank.episode(number, (shift,)).first(last)
            views, frames = [view_of(cut, trained.features, shift)], list(cut.looks[shift])
            parts = (cut.action, cut.reward, cut.is_terminal)
            yield number, Episode(number, views, frames, *parts, success=None, fps=0.0, state=cut.proprio)
            display.progress(number + 1, count)


def _require_same_env(trained: Trained, bank: Bank) -> None:
    """ConfigError where states, actions or pictures of a bank are not those that the agent knows, looks apart."""
    own = trained.config.env
    if differs := differences(own, bank.env, least_frame(trained.config)):
        each = ", ".join(f"env.{k}={getattr(bank.env, k)} there, {getattr(own, k)} here" for k in differs)
        raise ConfigError(f"the bank is of another environment: {each}", str(bank.path))


class _Arrays:
    """Arrays (count, T, ...) that are filled episode by episode in files of their own, then packed into one .npz."""

    def __init__(self, folder: Path, count: int, steps: int) -> None:
        self._folder, self._count, self._steps = folder, count, steps
        self._open: dict[str, np.memmap] = {}
        self._lengths: list[int] = []

    def add(self, report: dict[str, np.ndarray]) -> None:
        """One episode: arrays (T', ...) of equal T', and those from start points, (P, ...)."""
        number = len(self._lengths)
        for name, value in report.items():
            if number == 0:
                shape = (self._count, len(value) if name.endswith(_FROM) else self._steps, *value.shape[1:])
                path = self._folder / name
                self._open[name] = np.lib.format.open_memmap(path, mode="w+", dtype=value.dtype, shape=shape)
            self._open[name][number, : len(value)] = value
        self._lengths.append(len(report["reward_true"]))

    def pack(self, path: Path, numbers: dict[str, np.ndarray]) -> None:
        """Write the .npz, cut to the longest episode, one episode of one array in memory at a time."""
        longest = max(self._lengths)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, value in {**numbers, "length": np.array(self._lengths)}.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, value, allow_pickle=False)
            for name, value in self._open.items():
                kept = value.shape[1] if name.endswith(_FROM) else longest
                shape = (self._count, kept, *value.shape[2:])
                header = {"descr": np.lib.format.dtype_to_descr(value.dtype), "fortran_order": False, "shape": shape}
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    for row in value:
                        file.write(np.ascontiguousarray(row[:kept]).data)


def to_batch(episode: Episode, stack: int, device: torch.device) -> Batch:
    """One episode as a batch (1, T, …) with stacked observations."""
    steps = len(episode.reward)
    index = np.maximum(
        np.arange(steps)[:, None] + np.arange(1 - stack, 1), 0
    )  # (T, S): frames before the first are the first

    def part(name: str, stacked: bool) -> torch.Tensor | None:
        if getattr(episode.views[0], name) is None:
            return None
        array = np.concatenate([getattr(view, name) for view in episode.views])  # (T, …)
        return torch.from_numpy(array[index] if stacked else array)[None].to(device)

    is_first, is_last = np.zeros((2, 1, steps), dtype=bool)
    is_first[:, 0], is_last[:, -1] = True, True
    return Batch(
        obs=Obs(
            is_first=torch.from_numpy(is_first).to(device),
            feature=part("feature", stacked=True),
            pixels=part("pixels", stacked=True),
            proprio=part("proprio", stacked=False),
        ),
        action=torch.from_numpy(episode.action)[None].to(device),
        reward=torch.from_numpy(episode.reward)[None].to(device),
        is_last=torch.from_numpy(is_last).to(device),
        is_terminal=torch.from_numpy(episode.is_terminal)[None].to(device),
    )


def _report(
    trained: Trained, number: int, episode: Episode, points: Points, longest: int, *, film_it: bool
) -> tuple[dict[str, np.ndarray], film.Film | None]:
    """What is stored of an episode, and of the first ones what is filmed, where the agent draws pixels."""
    if (context := points.context) > episode.length:
        raise ConfigError(
            f"context={context}, but episode {number} ended after {episode.length} steps: nothing is left to predict",
            str(trained.run.path),
            f"Give at most --context {episode.length}",
        )
    batch = to_batch(episode, trained.agent.sequence.stack, trained.device)
    starts = points.of(longest)
    reached = [s for s in starts if s <= episode.length]
    predicted = trained.agent.report(batch, context, reached, points.horizon)
    pictures = trained.agent.pictures(predicted) if film_it and number < film.COLUMNS else None
    drawn = None
    if pictures is not None and batch.obs.pixels is not None:
        truth = averaged(batch.obs.pixels[0, :, -1], *pictures.shape[2:4])  # frames may be held larger than drawn
        drawn = film.Film(truth.cpu().numpy(), pictures[0].cpu().numpy())
    report = {k: v[0].float().cpu().numpy() for k, v in predicted.items()}
    for name in [name for name in report if name.endswith(_FROM)]:
        report[name] = _until_the_end(report[name], starts, episode.length)
    report["reward_true"], report["action"] = episode.reward, episode.action
    if episode.state is not None:
        report["state"] = episode.state
    if episode.views[0].feature is not None:
        report["feature"] = np.concatenate([view.feature for view in episode.views])
    return report, drawn


def _thumbnails(frames: list[np.ndarray]) -> np.ndarray:
    """T square frames as (T, h, w, 3) uint8 of `THUMBNAIL` a side, smaller ones as they are."""
    side = min(THUMBNAIL, len(frames[0]))
    parts = [torch.from_numpy(np.stack(frames[n : n + TOGETHER])) for n in range(0, len(frames), TOGETHER)]
    return np.concatenate([averaged(part, side, side).numpy() for part in parts])


def _until_the_end(predicted: np.ndarray, starts: list[int], length: int) -> np.ndarray:
    """(P, K, …) of all start points, NaN where an episode of `length` actions is over; given are those it reaches."""
    full = np.full((len(starts), *predicted.shape[1:]), np.nan, predicted.dtype)
    full[: len(predicted)] = predicted
    full[np.array(starts)[:, None] + np.arange(predicted.shape[1]) > length] = np.nan
    return full
