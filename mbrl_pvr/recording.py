"""Fresh episodes with the model's predictions beside the truth: the arrays that the analysis reads, and a film."""

from pathlib import Path

import numpy as np
import torch

from mbrl_pvr import film
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.evaluation import IN_DISTRIBUTION, episode_steps, output, play, shortened
from mbrl_pvr.rollout import Episode
from mbrl_pvr.session import Trained, load_trained
from mbrl_pvr.video import write_video
from world_models.frames import averaged
from world_models.types import Batch, Obs


def record(run: Path | str, *, episodes: int = 10, context: int = 1, debug: bool = False) -> Path:
    """Play `episodes` with the newest checkpoint and write `latents.npz` into the run folder.

    The first `context` observations of an episode are given to the model, the rest is predicted open loop under the
    recorded actions. Where the agent draws pixels, the first episodes are filmed beside what it predicts, into the
    run's videos/ (`mbrl_pvr.film` says what it shows). Arrays are padded to the longest episode; `length` says how many
    steps are real. Raises ConfigError where nothing is left to predict.
    """
    with load_trained(run) as loaded:
        trained = shortened(loaded, debug)
        longest = episode_steps(trained)
        if not 1 <= context <= longest:
            raise ConfigError(
                f"context={context} must lie in 1..{longest}, the steps of an episode, so that one is left to predict",
                str(trained.run.path),
            )
        reports, films, fps = [], [], 0.0
        for number, episode in play(trained, IN_DISTRIBUTION, "record", episodes):
            report, drawn = _report(trained, number, episode, context)
            reports.append(report)
            films += [] if drawn is None else [drawn]
            fps = episode.fps
        arrays = _padded(reports) | {
            "context": np.array(context),
            "kind": np.array("categorical" if trained.agent.classes else "deterministic"),
            "classes": np.array(trained.agent.classes),  # of each latent, whose logits are stored side by side; 0: none
            "step": np.array(trained.step),
        }
        name = output(trained, "latents.npz")
        with trained.run.replace(name) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        if films:
            with trained.run.replace(output(trained, f"videos/open_loop_step_{trained.step:09d}.mp4")) as temporary:
                write_video(temporary, film.frames(films, context), fps)
        return trained.run.path / name


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
    trained: Trained, number: int, episode: Episode, context: int
) -> tuple[dict[str, np.ndarray], film.Film | None]:
    """What is stored of an episode, and of the first ones what is filmed, where the agent draws pixels."""
    if context > episode.length:
        raise ConfigError(
            f"context={context}, but episode {number} ended after {episode.length} steps: nothing is left to predict",
            str(trained.run.path),
            f"Give at most --context {episode.length}",
        )
    batch = to_batch(episode, trained.agent.sequence.stack, trained.device)
    predicted = trained.agent.report(batch, context)
    pictures = trained.agent.pictures(predicted) if number < film.COLUMNS else None
    drawn = None
    if pictures is not None and batch.obs.pixels is not None:
        truth = averaged(batch.obs.pixels[0, :, -1], *pictures.shape[2:4])  # frames may be held larger than drawn
        drawn = film.Film(truth.cpu().numpy(), pictures[0].cpu().numpy())
    report = {k: v[0].float().cpu().numpy() for k, v in predicted.items()}
    report["reward_true"] = episode.reward
    if episode.views[0].feature is not None:
        report["feature"] = np.concatenate([view.feature for view in episode.views])
    return report, drawn


def _padded(reports: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    lengths = np.array([len(r["reward_true"]) for r in reports])
    longest = lengths.max()

    def pad(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, longest - len(x))] + [(0, 0)] * (x.ndim - 1))

    return {name: np.stack([pad(r[name]) for r in reports]) for name in reports[0]} | {"length": lengths}
