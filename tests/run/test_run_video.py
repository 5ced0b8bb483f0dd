"""Videos play: what a run films has a picture for every frame, and a disk that is full is no quiet end."""

import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imageio_ffmpeg import count_frames_and_secs, get_ffmpeg_exe

from mbrl_pvr import film, recording, trainer
from mbrl_pvr.config import load_config, shrink
from mbrl_pvr.errors import StorageError
from mbrl_pvr.evaluation import play
from mbrl_pvr.session import load_trained
from mbrl_pvr.splits import IN_DISTRIBUTION
from mbrl_pvr.storage import replace_atomic
from mbrl_pvr.video import write_video

NOISE = list(np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8))  # hardly compressible


def pictures(path: Path, height: int = 256, width: int = 256) -> np.ndarray:
    """The frames that a player shows, (T, height, width, 3)."""
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


def test_a_video_shows_what_was_written_enlarged(tmp_path: Path) -> None:
    frames = [np.full((65, 64, 3), (200, 8 * t, 40), np.uint8) for t in range(20)]
    write_video(tmp_path / "a.mp4", frames, fps=25)
    seen = pictures(tmp_path / "a.mp4", 4 * 65, 4 * 64)
    assert len(seen) == 20
    middle = seen[:, 130, 128].astype(int)
    assert np.abs(middle - [(200, 8 * t, 40) for t in range(20)]).max() <= 6  # what the codec loses


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_video_and_is_an_error(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    old = b"the video of before"
    (small_disk / "a.mp4").write_bytes(old)
    with pytest.raises(StorageError, match="No space left"), replace_atomic(small_disk / "a.mp4") as temporary:
        write_video(temporary, NOISE, fps=25)
    assert [p.name for p in small_disk.iterdir()] == ["a.mp4"] and (small_disk / "a.mp4").read_bytes() == old
    assert capfd.readouterr() == ("", "")  # the error says it; ffmpeg's own lines do not reach the terminal


def test_a_limit_on_file_sizes_is_an_error(tmp_path: Path) -> None:
    """As above where nothing can be mounted; the limit is inherited by ffmpeg, which is killed by it or fails."""
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, old[1]))
    try:
        with pytest.raises(StorageError, match="not written whole"), replace_atomic(tmp_path / "a.mp4") as temporary:
            write_video(temporary, NOISE, fps=25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_no_player_opens_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ffmpegs end with status 0 when only the index at the end of the file is lacking."""
    (tmp_path / "a.mp4").write_bytes(b"\x00" * 100)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, b"", b""))
    with pytest.raises(StorageError, match="not written whole"):
        write_video(tmp_path / "a.mp4", NOISE, fps=25)


@pytest.mark.parametrize(("task", "fps"), [("dmc/cartpole-balance", 50), ("dmc/finger-spin", 25)])
def test_a_film_runs_as_fast_as_simulated_time(task: str, fps: int, make_config: Any, tmp_path: Path) -> None:
    """A simulator step is 0.01 s in cartpole and 0.02 s in finger; an agent step is two of them."""
    config = make_config("eval.video=true", "env.render=fast", "steps=70", env=task, encoder="state")
    trainer.train(config, tmp_path / "run")
    frames, seconds = count_frames_and_secs(tmp_path / "run/videos/eval_train_step_000000000.mp4")
    assert frames / seconds == pytest.approx(fps)


def test_the_videos_of_a_run_hold_every_frame_of_the_episode(make_config: Any, tmp_path: Path) -> None:
    config = make_config("eval.video=true", "env.render=fast", env="dmc/finger-spin")
    trainer.train(config, tmp_path / "run")
    files = sorted((tmp_path / "run/videos").iterdir())
    assert [file.name for file in files] == [f"eval_train_step_{step:09d}.mp4" for step in (0, 100, 200)]
    for file in files:
        seen = pictures(file)
        assert len(seen) == 21  # --debug: 20 steps an episode
        assert seen.mean() > 20 and seen.std() > 20, "black, or one colour"
        assert (seen[1:].astype(int) != seen[:-1]).any(axis=(1, 2, 3)).all(), "nothing moves"


def test_a_film_shows_truth_model_and_difference_and_what_was_given() -> None:
    long, short = (np.full((steps, 8, 6, 3), 100, np.uint8) for steps in (5, 3))
    long[1, 2, 3] = (250, 0, 100)
    films = [film.Film(long, np.full_like(long, 110)), film.Film(short, np.full_like(short, 0))]
    frames = film.frames(films, context=2)
    assert len(frames) == 5 and frames[0].shape == (3 * 12, 2 * 10, 3) and frames[0].dtype == np.uint8
    inside = [frame.reshape(3, 12, 2, 10, 3)[:, 2:-2, :, 2:-2] for frame in frames]  # rows, height, columns, width
    assert (inside[0][0] == 100).all() and (inside[1][0][2, 0, 3] == (250, 0, 100)).all()
    assert (inside[0][1][:, 0] == 110).all() and (inside[0][1][:, 1] == 0).all()
    assert (inside[0][2][:, 0] == 133).all() and (inside[0][2][:, 1] == 78).all()
    assert inside[1][2][2, 0, 3].tolist() == [58, 183, 133]
    corners = [[tuple(frame[0, 10 * column]) for column in range(2)] for frame in frames]
    assert corners == [[film.GIVEN] * 2] * 2 + [[film.PREDICTED] * 2] + [[film.PREDICTED, film.OVER]] * 2
    assert (inside[3][:, :, 1] == film.OVER).all()


def test_a_film_has_fewer_columns_where_pictures_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    films = [film.Film(*[np.zeros((10, 8, 6, 3), np.uint8)] * 2)] * 4
    column = 10 * 3 * 12 * 10 * 3  # bytes
    for budget, columns in ((4 * column, 4), (3 * column - 1, 2), (1, 1)):
        monkeypatch.setattr(film, "MAX_BYTES", budget)
        assert film.frames(films, context=1)[0].shape == (36, 10 * columns, 3)


def test_record_films_what_the_model_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of the open loop, from the latents that are stored beside; under --debug apart from real ones."""
    common = ["agent=dreamerv3_tiny", "encoder=scratch", "env=counting/default", "env.size=64", "threads=1", "sinks=[]"]
    run, seen = tmp_path / "run", []
    trainer.train(shrink(load_config([*common, "eval.video=false", "steps=70", "random_steps=60"])), run)
    real = film.frames
    monkeypatch.setattr(film, "frames", lambda films, context: seen.append((films, context)) or real(films, context))
    recording.record(run, episodes=6, points=recording.Points(3))
    (path,) = (run / "videos").iterdir()
    assert path.name == "open_loop_step_000000070.mp4"
    ((films, context),) = seen
    assert context == 3 and len(films) == film.COLUMNS
    with np.load(run / "latents.npz") as stored:
        length, latent = stored["length"], torch.from_numpy(stored["latent_open_loop"])
    shown = pictures(path, 2 * 3 * 68, 2 * 4 * 68)
    assert len(shown) == length[:4].max()
    with load_trained(run) as trained:
        for k, one in enumerate(films):
            assert one.truth.shape == one.model.shape == (length[k], 64, 64, 3)
            drawn = trained.agent.pictures({"latent_open_loop": latent[k : k + 1, : length[k]]})
            assert drawn is not None and (drawn[0].numpy() == one.model).all()
            assert one.model.std() > 0 and one.truth.std() > 0
        batch = recording.to_batch(next(play(trained, IN_DISTRIBUTION, "record", 6))[1], 1, trained.device)
        assert batch.obs.pixels is not None and (batch.obs.pixels[0, :, 0].numpy() == films[0].truth).all()


def test_agents_that_draw_no_pixels_are_not_filmed(make_config: Any, tmp_path: Path) -> None:
    trainer.train(make_config("steps=70"), tmp_path / "run")
    recording.record(tmp_path / "run", episodes=1)
    assert not (tmp_path / "run" / "videos").exists()
