"""Pretraining of the autoencoder: requests that cannot be met leave nothing, small ones work, and progress is told."""

import errno
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pvr_zoo
from mbrl_pvr import api, pretraining, storage
from mbrl_pvr.config import load_config
from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.errors import ConfigError, IntegrityError, StorageError
from mbrl_pvr.pretraining import Frames
from pvr_zoo import ConvAutoencoder, save_encoder

TASK = EnvConfig(name="counting/default")


def frames(count: int) -> Frames:
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return Frames(pixels, np.zeros(count, int), pixels[:1])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames without a simulator."""
    monkeypatch.setattr(pretraining, "random_frames", lambda config, count, seed, progress: frames(count))


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any work is a failure."""

    def work(*_: object) -> None:
        raise AssertionError("work was done before the request was checked")

    for name in ("random_frames", "run_frames", "_fit"):
        monkeypatch.setattr(pretraining, name, work)


@pytest.mark.parametrize("count", [1, 5, 13])
def test_few_frames_are_enough(drawn: None, tmp_path: Path, count: int) -> None:
    path = pretraining.autoencoder([TASK], tmp_path / "a" / "x.safetensors", frames=count, steps=2, seed=1)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "x.safetensors",
        "x_loss.png",
        "x_reconstruction.png",
    ]
    assert pvr_zoo.create(path).spec.feature_shape == (256,)
    with Image.open(path.parent / "x_reconstruction.png") as picture:
        assert picture.size == (min(count, 12) * 128, 256)


def refused(out: Path, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        pretraining.autoencoder([TASK], out, frames=5, steps=2, seed=1)
    assert str(out.parent) in str(caught.value) and len(str(caught.value).splitlines()) == 2


def place(path: Path, what: str) -> None:
    """Something at `path` that is nobody's to replace."""
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a broken link":
        path.symlink_to("nowhere")
    else:
        path.write_text("mine")


@pytest.mark.parametrize("name", ["x.safetensors", "x_loss.png", "x_reconstruction.png"])
@pytest.mark.parametrize("what", ["a folder", "a pipe", "a broken link", "another file"])
def test_what_is_no_encoder_file_is_not_replaced(untouched: None, tmp_path: Path, name: str, what: str) -> None:
    place(tmp_path / name, what)
    before = (tmp_path / name).lstat()
    refused(tmp_path / "x.safetensors", ConfigError, "would be replaced")
    assert (tmp_path / name).lstat() == before and os.listdir(tmp_path) == [name]


def test_an_encoder_file_stays_unless_replace_is_given(
    untouched: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = save_encoder(tmp_path / "x.safetensors", ConvAutoencoder(), {})
    before = out.read_bytes()
    refused(out, ConfigError, r"this encoder file exists.*\n.*--replace")
    with pytest.raises(ConfigError, match="this encoder file exists"):
        api.pretrain(["env=counting/default"], out)
    assert out.read_bytes() == before and os.listdir(tmp_path) == [out.name]
    with pytest.raises(AssertionError, match="work was done"):  # past the check
        api.pretrain(["env=counting/default"], out, replace=True)


def test_an_encoder_file_is_replaced_where_asked_but_no_folder_beside_it(drawn: None, tmp_path: Path) -> None:
    out = save_encoder(tmp_path / "x.safetensors", ConvAutoencoder(), {})
    (tmp_path / "x_loss.png").write_text("of the one before")
    before = out.read_bytes()
    pretraining.autoencoder([TASK], out, frames=5, steps=2, seed=1, replace=True)
    assert out.read_bytes() != before and pvr_zoo.spec(out).name == "x"
    (tmp_path / "x_loss.png").unlink()
    (tmp_path / "x_loss.png").mkdir()
    refused(out, ConfigError, r"would be replaced.*x_loss\.png")


@pytest.mark.parametrize("name", ["notes.txt", "x", ".safetensors", "x.safetensors.bak"])
def test_only_names_that_encoder_takes_are_written_to(untouched: None, tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, ConfigError, r"ends in \.safetensors")


def test_a_place_where_nothing_can_be_written_is_refused(untouched: None, tmp_path: Path) -> None:
    refused(Path("/proc/x.safetensors"), StorageError, "Choose a folder that you may write to")
    with pytest.raises(StorageError, match=r"\(/proc\)"):
        pretraining.autoencoder([TASK], "/proc/nope/x.safetensors", frames=5, steps=2, seed=1)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=r"file\)"):
        pretraining.autoencoder([TASK], tmp_path / "file" / "x.safetensors", frames=5, steps=2, seed=1)


def test_a_disk_without_room_is_told_before_any_work(
    untouched: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_free", lambda path: 3_000_000)
    out = tmp_path / "new" / "x.safetensors"
    refused(out, StorageError, r"an encoder file needs 7,\d{3},\d{3} bytes, 3,000,000 are free")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("writer", "name", "kept"),
    [((pretraining, "save_encoder"), "x.safetensors", []), ((Image.Image, "save"), "x_loss.png", ["x.safetensors"])],
)
def test_a_disk_that_fills_up_at_the_end_is_told_with_the_path(
    drawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: tuple[object, str], name: str, kept: list[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*writer, full)
    with pytest.raises(StorageError, match=f"no space left on the device .*{name}"):
        pretraining.autoencoder([TASK], tmp_path / "x.safetensors", frames=5, steps=2, seed=1)
    assert os.listdir(tmp_path) == kept


def test_runs_without_frames_leave_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.safetensors"
    with pytest.raises(StorageError, match="no run here"):
        pretraining.autoencoder([TASK], out, frames=[tmp_path / "no" / "run"], steps=2, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_at_once(drawn: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([1.0, float("nan")])

    def loss(self: ConvAutoencoder, images: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
        return next(self.parameters()).sum() * 0 + next(steps)

    monkeypatch.setattr(ConvAutoencoder, "loss", loss)
    with pytest.raises(IntegrityError, match="loss of step 2 is nan"):
        pretraining.autoencoder([TASK], tmp_path / "x.safetensors", frames=5, steps=9, seed=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("steps=3", "--steps"),
        ("agent.lr=5", "env.render="),
        ("env.max_steps=3", "env.time_limit="),
        ("env.pixels=false", "seed="),
        ("env.size=84", "env.camera="),
        ("env.name=dmc/walker-walk", "env="),
        ("env={max_steps: 3}", "env="),
        ("encoder=scratch", "env="),
        ("nothing", "env="),
    ],
)
def test_keys_that_would_change_nothing_are_refused(untouched: None, override: str, word: str) -> None:
    with pytest.raises(ConfigError, match="means nothing here") as caught:
        api.pretrain([override])
    text = str(caught.value)
    assert repr(override.partition("=")[0]) in text and word in text and len(text.splitlines()) == 2


def test_the_keys_that_are_accepted_reach_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(pretraining, "autoencoder", lambda *given, **named: calls.append((given, named)))
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"")
    keys = ["env.render=fast", "env.shifts=distracting_easy", "env.severity=0.5", "env.factors=[camera_fov, video]"]
    keys += ["env.bands=outer", f"env.video={tmp_path}", "env.camera=1"]
    keys += ["env.action_repeat=4", "env.backend=osmesa", "env.time_limit=2.5", "seed=7"]
    assert {key.partition("=")[0] for key in keys} | {"env", "env.reward"} == set(api.PRETRAIN_KEYS)
    api.pretrain(["env=dmc/finger-spin,dmc/walker-walk", *keys], frames=20)
    ((tasks, out), named) = calls[0]
    assert [task.name for task in tasks] == ["dmc/finger-spin", "dmc/walker-walk"]
    assert tasks[1].render == "fast" and tasks[1].time_limit == 2.5 and tasks[1].factors == ("camera_fov", "video")
    assert out == Path("autoencoder-dmc-finger-spin.safetensors")
    assert (named["frames"], named["seed"]) == (20, 7)
    api.pretrain(["env=maniskill/StackPyramid-v1", "env.reward=sparse"], frames=20)  # which has no other
    assert calls[1][0][0][0].reward == "sparse"


def test_frames_of_runs_name_the_file_after_the_task_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default task has no part in it; keys of rendering are refused, since nothing is rendered."""
    from mbrl_pvr.config import diff, identity, to_dict
    from mbrl_pvr.runfolder import RunFolder

    config = load_config(["env=counting/default", "encoder=scratch"])
    run = tmp_path / "run"
    RunFolder.open(run, to_dict(config), identity=identity(config), diff=diff).close()
    calls = []
    monkeypatch.setattr(pretraining, "autoencoder", lambda *given, **named: calls.append(given[1]))
    api.pretrain(frames=[run])
    api.pretrain(["env=counting/default"], frames=[run])
    api.pretrain([], tmp_path / "mine.safetensors", frames=[run])
    assert [path.name for path in calls] == [
        "autoencoder-counting-default.safetensors",
        "autoencoder-counting-default.safetensors",
        "mine.safetensors",
    ]
    for other in ("dmc/walker-walk", "counting/default,dmc/walker-walk"):
        with pytest.raises(ConfigError, match=f"env={other}, but frames come from runs on counting/default"):
            api.pretrain([f"env={other}"], frames=[run])
    with pytest.raises(ConfigError, match=r"'env\.render' means nothing here"):
        api.pretrain(["env.render=fast"], frames=[run])
    with pytest.raises(StorageError, match="no run here"):
        api.pretrain(frames=[tmp_path / "none"])


def test_the_command_says_how_far_it_is_on_standard_error(
    drawn: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mbrl_pvr.cli.main import main

    out = tmp_path / "x.safetensors"
    command = ["pretrain", "autoencoder", "env=counting/default", "frames=5", "--steps", "2", "--out", str(out)]
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"path": str(out)}
    assert shown.err.startswith("1/2 autoencoder, loss ")


@pytest.mark.parametrize(
    ("terminal", "shown"),
    [(False, ["1/100 frames", "31/100 frames", "61/100 frames", "91/100 frames", "100/100 frames"]), (True, None)],
)
def test_progress_is_one_line_in_a_while(
    terminal: bool, shown: list[str] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call each second: all in a terminal; one in 30, as in training, and the last one elsewhere."""
    now = itertools.count(0.0)
    monkeypatch.setattr("mbrl_pvr.pretraining.time.monotonic", lambda: next(now))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    show = pretraining.plain_progress()
    for done in range(1, 101):
        show(done, 100, "frames")
    assert capsys.readouterr().err.splitlines() == (shown or [f"{done}/100 frames" for done in range(1, 101)])
