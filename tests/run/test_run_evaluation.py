"""Playing with a trained agent: what `eval`, `ood` and `record` write, return, film, refuse and say meanwhile."""

import json
import os
import shutil
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from rich.console import Console

from analysis.errors import AnalysisError
from analysis.files import read_parquet
from analysis.records import read_latents
from analysis.runs import load_run
from mbrl_pvr import api, envs, evaluation, recording, trainer, video
from mbrl_pvr.cli.main import main
from mbrl_pvr.config import load_config, shrink
from mbrl_pvr.display import Display
from mbrl_pvr.envs import random_score
from mbrl_pvr.envs.random_score import RandomScore
from mbrl_pvr.errors import ConfigError, Unavailable, WorkerDied
from pvr_zoo.families.autoencoder import ConvAutoencoder, save_encoder

LENGTH = 30  # agent steps of an episode of `run`: more than --debug plays


@pytest.fixture(scope="module")
def trained_once(encoder_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run in a task that has looks."""
    overrides = ["env=dmc/finger-spin", f"encoder={encoder_file}", "env.render=fast", "threads=1", "eval.video=false"]
    config = shrink(load_config(overrides))
    config = replace(config, steps=90, random_steps=80, env=replace(config.env, max_steps=LENGTH))
    path = tmp_path_factory.mktemp("trained") / "run"
    trainer.train(config, path)
    return path


@pytest.fixture
def run(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


def films(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "videos").iterdir())


def test_every_held_out_look_has_a_film_of_its_own(run: Path) -> None:
    for severity in (0.25, 1.0):
        evaluation.ood(run, episodes=1, shifts=["color_easy"], severities=[severity])
    evaluation.ood(run, episodes=1, shifts=["color_hard"])
    assert films(run) == [
        "ood_grid_step_000000090.mp4",
        "ood_held_out_color_easy_0.25_step_000000090.mp4",
        "ood_held_out_color_easy_1_step_000000090.mp4",
        "ood_held_out_color_hard_1_step_000000090.mp4",
        "ood_train_step_000000090.mp4",
    ]


def test_runs_of_other_seeds_meet_the_same_episodes_out_of_distribution(run: Path) -> None:
    def starts(seed: int, kind: str) -> np.ndarray:
        with evaluation.load_trained(run) as trained:
            other = replace(trained, config=replace(trained.config, seed=seed))
            chosen = evaluation.OOD_SEED if kind == "ood" else None
            split = evaluation.Split("held_out", "color_hard", 1.0)
            played = evaluation.play(other, split, kind, 2, pixels=True, seed=chosen)
            return np.stack([episode.frames[0] for _, episode in played])

    np.testing.assert_array_equal(starts(1, "ood"), starts(2, "ood"))
    assert (starts(1, "eval") != starts(2, "eval")).any()
    twice = evaluation.ood(run, episodes=1, shifts=["noise", "noise"], severities=[0.5, 0.5], video=False)
    assert len(twice) == 2, "what is named twice counts once"


def test_a_film_that_is_missing_is_made_later_and_is_the_same(run: Path) -> None:
    evaluation.ood(run, episodes=2, shifts=["color_easy"], video=False)
    assert not (run / "videos").exists()
    rows = (run / "ood.jsonl").read_bytes()
    evaluation.ood(run, episodes=2, shifts=["color_easy"])
    assert (run / "ood.jsonl").read_bytes() == rows, "episodes that have a row get no second one"
    later = [(run / "videos" / name).read_bytes() for name in films(run)]
    shutil.rmtree(run / "videos")
    (run / "ood.jsonl").unlink()
    evaluation.ood(run, episodes=2, shifts=["color_easy"])
    assert len(later) == 3 and later == [(run / "videos" / name).read_bytes() for name in films(run)]


def test_ood_gives_what_was_asked_for_and_keeps_everything(run: Path) -> None:
    evaluation.ood(run, episodes=1, shifts=["color_hard"], video=False)
    old = [json.loads(line) | {"step": 10} for line in (run / "ood.jsonl").read_text().splitlines()]
    with (run / "ood.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in old)  # as of an earlier checkpoint
    asked = evaluation.ood(run, episodes=2, shifts=["color_easy"], severities=[0.5], video=False)
    assert asked[["split", "shift", "severity", "step", "episode"]].values.tolist() == [
        ["train", "none", 0.0, 90, 0],
        ["train", "none", 0.0, 90, 1],
        ["held_out", "color_easy", 0.5, 90, 0],
        ["held_out", "color_easy", 0.5, 90, 1],
    ]
    fewer = evaluation.ood(run, episodes=1, shifts=["color_easy"], severities=[0.5], video=False)
    assert fewer["episode"].tolist() == [0, 0]  # of both alike, though two of each have been played
    kept = read_parquet(run / "ood.parquet")
    assert (
        len(kept) == 7 and set(kept["step"]) == {10, 90} and set(kept["shift"]) == {"none", "color_easy", "color_hard"}
    )


def test_a_flipped_byte_in_the_pages_of_ood_parquet_is_noticed(run: Path) -> None:
    evaluation.ood(run, episodes=1, shifts=["color_easy"], video=False)
    file = run / "ood.parquet"
    whole, group = file.read_bytes(), pyarrow.parquet.read_metadata(file).row_group(0)
    chunks = [group.column(i) for i in range(group.num_columns)]
    assert len(chunks) >= 14
    for chunk in chunks:  # the last byte of a column is one of its values
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        damaged = bytearray(whole)
        damaged[start + chunk.total_compressed_size - 1] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(AnalysisError, match=r"ood\.parquet cannot be read"):
            read_parquet(file)


def test_debug_plays_short_episodes_and_keeps_them_apart(run: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    assert list(api.evaluate(run, episodes=12, debug=True)["length"]) == [20, 20]
    assert list(api.ood(run, shifts=["color_easy"], debug=True)["length"]) == [20] * 4
    (latents,) = api.record(run, debug=True)
    assert latents == run / "debug" / "latents.npz"
    with np.load(latents, allow_pickle=False) as arrays:
        assert arrays["length"].tolist() == [21, 21]
    assert sorted(path.name for path in run.iterdir()) == sorted([*before, "debug"])
    assert sorted(path.name for path in (run / "debug").iterdir()) == [
        "errors.parquet",
        "latents.npz",
        "ood.jsonl",
        "ood.parquet",
        "videos",
    ]
    assert list(api.ood(run, episodes=1, shifts=["color_easy"], video=False)["length"]) == [LENGTH] * 2


def test_fresh_episodes_can_be_recorded_under_a_shift(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They begin in the states of those under the training looks, and are errors and latents of another name."""
    (plain,) = api.record(run, episodes=2)
    (hard,), (easy,) = (
        api.record(run, episodes=2, shift="color_hard"),
        api.record(run, episodes=2, shift="color_easy", severity=0.5),
    )
    assert [hard.name, easy.name] == ["latents_under_color_hard_1.npz", "latents_under_color_easy_0.5.npz"]
    assert (run / "errors_under_color_hard_1.parquet").exists()
    with np.load(plain, allow_pickle=False) as own, np.load(hard, allow_pickle=False) as moved:
        np.testing.assert_array_equal(own["state"][:, 0], moved["state"][:, 0])
        assert (own["frame"][:, 0] != moved["frame"][:, 0]).any()
    assert load_run(run).shifts == ["color_easy_0.5", "color_hard_1"]
    assert main(["record", str(run), "--severity", "0.5"]) == 2
    assert "Name one: --shift" in capsys.readouterr().err
    assert main(["record", str(run), "--shift", "color_hrad"]) == 2
    assert "color_hard" in capsys.readouterr().err


def test_episodes_under_other_looks_start_alike(make_config: Any, tmp_path: Path) -> None:
    """An agent that is given the state sees no looks: it scores the same in and out of distribution."""
    config = make_config("steps=70", env="dmc/cartpole-balance", encoder="state")
    trainer.train(config, tmp_path / "run")
    table = evaluation.ood(tmp_path / "run", episodes=2, shifts=["color_easy"], video=False)
    inside, outside = (table[table["split"] == split]["return"].tolist() for split in ("train", "held_out"))
    assert inside == outside and inside[0] != inside[1]


def test_an_encoder_that_is_not_the_runs_own_is_refused(
    make_config: Any, encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Path(shutil.copy(encoder_file, tmp_path / "mine.safetensors"))
    trainer.train(make_config("steps=70", encoder=str(encoder)), tmp_path / "run")
    save_encoder(encoder, ConvAutoencoder(feature_dim=32), {"recipe": "another"})
    before = sorted((tmp_path / "run").rglob("*"))
    for command in ("eval", "ood", "record"):
        assert main([command, str(tmp_path / "run"), "--episodes", "1"]) == 3
        assert "the encoder is not the one that this run began with" in capsys.readouterr().err
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_context_beyond_the_episodes_is_refused_before_playing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording.record(run, episodes=1, points=recording.Points(LENGTH))
    latents = read_latents(run / "latents.npz")
    assert (latents.context, latents.posterior.shape[1]) == (LENGTH, LENGTH + 1)

    def played(*_: Any, **__: Any) -> Any:
        raise AssertionError("episodes were played for nothing")

    monkeypatch.setattr(recording, "play", played)
    for context in (0, LENGTH + 1):
        with pytest.raises(ConfigError, match=rf"context={context} must lie in 1\.\.{LENGTH}"):
            recording.record(run, points=recording.Points(context))
    with pytest.raises(ConfigError, match=r"1\.\.20"):
        recording.record(run, points=recording.Points(21), debug=True)


def test_a_context_that_an_episode_does_not_reach_is_refused(
    make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Episodes of the counting environment last between 2 and 12 steps."""
    trainer.train(make_config(), tmp_path / "run")
    capsys.readouterr()
    assert main(["record", str(tmp_path / "run"), "--context", "11"]) == 2
    error = capsys.readouterr().err
    assert "context=11, but episode" in error and "Give at most --context" in error
    assert not (tmp_path / "run" / "latents.npz").exists()


def test_every_step_has_its_small_picture(make_config: Any, tmp_path: Path) -> None:
    """Pictures of the counting environment say which frame of it they are; an agent on the state sees none of them."""
    trainer.train(make_config("steps=70", encoder="state"), tmp_path / "run")
    recording.record(tmp_path / "run", episodes=3)
    with np.load(tmp_path / "run" / "latents.npz", allow_pickle=False) as arrays:
        frame, length, steps = arrays["frame"], arrays["length"], arrays["posterior"].shape[1]
    assert frame.shape == (3, steps, 64, 64, 3) and frame.dtype == np.uint8
    for shown, n in zip(frame, length, strict=True):
        last = shown[0, 0, 0, 2]  # the episode's length in frames of the simulator, two to a step
        np.testing.assert_array_equal(shown[:n, 5, 7, 0], np.minimum(2 * np.arange(n), last))
    recording.record(tmp_path / "run", episodes=1, frames=False)
    with np.load(tmp_path / "run" / "latents.npz", allow_pickle=False) as arrays:
        assert "frame" not in arrays.files


def test_small_pictures_are_means_over_areas() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (70, 128, 128, 3), dtype=np.uint8)
    blocks = frames.reshape(70, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(recording._thumbnails(list(frames)), blocks.round().astype(np.uint8))
    small = frames[:, :32, :32]
    np.testing.assert_array_equal(recording._thumbnails(list(small)), small)


def test_playing_says_how_far_it_is_beside_clean_data(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--episodes", "5", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 5
    assert f"eval, train looks: step {8 * LENGTH}/{8 * LENGTH} ·" in err  # two rounds of four environments
    assert main(["ood", str(run), "--episodes", "1", "--shift", "color_easy", "--no-video", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [row["split"] for row in json.loads(out)] == ["train", "held_out"]
    assert "ood, train looks: step 30/30" in err and "ood, held_out looks: step 30/30" in err
    assert main(["record", str(run), "--episodes", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"paths": [str(run / "latents.npz")]} and "record, train looks: step 30/30" in err


def test_a_terminal_has_one_bar_at_a_time() -> None:
    """rich refuses a second live bar: an evaluation in training takes the place of the run's bar, and gives it back."""
    screen = Console(file=StringIO(), force_terminal=True, width=120)
    run, evaluation_of_it = Display(screen), Display(screen, what="eval, train looks:")
    run.progress(10, 100)
    evaluation_of_it.progress(1, 7)
    evaluation_of_it.close()
    run.progress(20, 100)
    run.close()
    assert isinstance(screen.file, StringIO)
    shown = screen.file.getvalue()
    moments = [shown.index(text) for text in ("10/100", "eval, train looks:", "1/7", "20/100")]
    assert moments == sorted(moments)


def test_every_shift_severity_and_factor_has_rows_and_a_place_in_the_grid(run: Path) -> None:
    """Episode k starts alike under all of them: the physics does not know the look."""
    how = {"shifts": ["floor+noise"], "severities": [0.0, 1.0], "each_factor": True}
    table = evaluation.ood(run, episodes=1, **how)
    assert list(zip(table["split"], table["severity"], strict=True)) == [
        ("train", 0.0),
        *((name, severity) for severity in (0.0, 1.0) for name in ("held_out", "held_out:floor", "held_out:noise")),
    ]
    frames, _ = video._read(run / "videos" / f"ood_grid_step_{90:09d}.mp4")
    assert len(frames) == LENGTH + 1
    again = evaluation.ood(run, episodes=1, **how)
    assert again.equals(table), "nothing was played twice"


def test_normalised_returns_stand_in_the_rows_of_whole_episodes_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = RandomScore("dmc/finger-spin", 2, 100, 10.0, 1.0, "", {})
    monkeypatch.setattr(random_score, "random_score", lambda *_: zero)
    assert evaluation.ood(run, episodes=1, shifts=["color_easy"], video=False)["normalised"].isna().all()
    monkeypatch.setattr(random_score, "maximum", lambda _: 110.0)
    table = evaluation.ood(run, episodes=2, shifts=["color_easy"], video=False)
    fresh = table[table["episode"] == 1]
    assert list(fresh["normalised"]) == [(total - 10.0) / 100.0 for total in fresh["return"]]


def _kill_a_worker(monkeypatch: pytest.MonkeyPatch, after: int, times: int) -> list[int]:
    """From the agent's action number `after` on, kill a worker, `times` times with as many actions in between."""
    made, seen, killed = [], [0], []
    start, act = envs.make, evaluation.agent_policy

    def watched_start(*args: Any, **kwargs: Any) -> envs.VectorEnv:
        made.append(start(*args, **kwargs))
        return made[-1]

    def watched_policy(*args: Any) -> Any:
        policy = act(*args)

        def deadly(obs: Any, tick: int) -> np.ndarray:
            seen[0] += 1
            if seen[0] >= after * (len(killed) + 1) and len(killed) < times:
                killed.append(made[-1].pids[1])
                os.kill(killed[-1], signal.SIGKILL)
            return policy(obs, tick)

        return deadly

    monkeypatch.setattr(evaluation.envs, "make", watched_start)
    monkeypatch.setattr(evaluation, "agent_policy", watched_policy)
    return killed


def test_a_worker_killed_in_an_evaluation_costs_no_episode_and_adds_none(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rounds of four under each look; the worker dies in the second round."""
    undisturbed = evaluation.ood(run, episodes=8, shifts=["color_easy"], video=False)
    rows = (run / "ood.jsonl").read_bytes()
    (run / "ood.jsonl").unlink()
    with monkeypatch.context() as patch:
        killed = _kill_a_worker(patch, after=LENGTH + 5, times=1)
        again = evaluation.ood(run, episodes=8, shifts=["color_easy"], video=False)
    assert len(killed) == 1 and (run / "ood.jsonl").read_bytes() == rows
    pd.testing.assert_frame_equal(again, undisturbed)
    assert (
        "the worker process died (exit code -9, SIGKILL); episodes 4 to 7 are played again" in capsys.readouterr().err
    )


def test_an_evaluation_whose_worker_dies_again_stops_and_is_continued(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = evaluation.ood(run, episodes=8, shifts=["color_easy"], video=False)
    rows = (run / "ood.jsonl").read_bytes()
    (run / "ood.jsonl").unlink()
    with monkeypatch.context() as patch:
        killed = _kill_a_worker(patch, after=LENGTH - 2, times=3)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            evaluation.ood(run, episodes=8, shifts=["color_easy"], video=False)
    assert len(killed) == 2 and rows.startswith((run / "ood.jsonl").read_bytes())
    pd.testing.assert_frame_equal(evaluation.ood(run, episodes=8, shifts=["color_easy"], video=False), undisturbed)
    assert (run / "ood.jsonl").read_bytes() == rows


def test_an_evaluation_whose_encoder_is_gone_says_which(make_config: Any, encoder_file: Path, tmp_path: Path) -> None:
    own = Path(shutil.copy(encoder_file, tmp_path / "mine.safetensors"))
    config = shrink(load_config(["env=dmc/finger-spin", f"encoder={own}", "env.render=fast", "threads=1"]))
    trainer.train(replace(config, steps=90, random_steps=80), tmp_path / "run")
    own.unlink()
    with pytest.raises((ConfigError, Unavailable), match=r"mine\.safetensors"):
        evaluation.ood(tmp_path / "run", episodes=1, shifts=["color_easy"])
    assert not (tmp_path / "run" / "ood.jsonl").exists()
