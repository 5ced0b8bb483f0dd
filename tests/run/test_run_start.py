"""How a run starts: what is refused before anything is written, and that a start that fails leaves nothing behind."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mbrl_pvr import api, replay, session, trainer
from mbrl_pvr.config import load_config, shrink
from mbrl_pvr.errors import ConfigError, EnvError, Error, IntegrityError, StorageError, Unavailable


def test_a_run_sends_its_curves_where_the_key_says(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[tuple[int, dict[str, float]]] = []
    online = SimpleNamespace(log=lambda values, step: points.append((step, values)), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: online))
    trainer.train(make_config("sinks=[wandb]"), tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    written = {(row["step"], name) for row in map(json.loads, lines) for name in row if "/" in name}
    assert written <= {(step, name) for step, values in points for name in values}
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_sink_that_is_not_installed_stops_the_run_before_it_begins(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Unavailable, match=r'pip install "mbrl-pvr\[wandb\]"'):
        trainer.train(make_config("sinks=[wandb]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_too_little_room_is_told_before_anything_starts(
    resource: str, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if resource == "memory":
        monkeypatch.setattr(replay, "available_memory", lambda: 1000)
    else:
        monkeypatch.setattr("mbrl_pvr.storage.free_space", lambda path: 1000)
    monkeypatch.setattr(session, "_Parts", None)  # neither simulator nor encoder is even named
    with pytest.raises((ConfigError, StorageError), match=r"GB of memory|needs .* bytes"):
        trainer.train(make_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_room_for_checkpoints_is_asked_for_before_the_first_step(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replay of this run takes some 30 kB, an agent's state hundreds of them."""
    monkeypatch.setattr("mbrl_pvr.storage.free_space", lambda path: 200_000)
    with pytest.raises(StorageError, match="this run needs"):
        trainer.train(make_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_corrected_command_starts_where_the_wrong_one_failed(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that only the whole row exceeds is noticed late, with environments and encoder up."""
    config = make_config()
    monkeypatch.setattr(replay, "available_memory", lambda: 200 * (2 * 32 + 20))
    with pytest.raises(ConfigError, match="GB of memory"):
        trainer.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    corrected = make_config("agent.lr=1e-3")
    assert trainer.train(corrected, tmp_path / "run").steps == corrected.steps


@pytest.mark.parametrize(
    ("overrides", "env"),
    [
        (("env.camera=9", "encoder=state"), "dmc/pendulum-swingup"),
        (("agent.horizon=5", "env.action_repeat=10"), "counting/default"),  # episodes of 3 steps
        (("encoder=state",), "gym:CartPole-v1"),  # its actions are choices
        (
            ("encoder=state", "eval.video=true", "env.size=84"),
            "gym:gym_tasks:Drive-v0",
        ),  # its pictures would be enlarged
        (("env.size=64",), "gym:gym_tasks:Blank-v0"),
        (("env.proprio=true",), "gym:NoSuchThing-v0"),
    ],
)
@pytest.mark.usefixtures("gym_tasks")
def test_what_only_the_simulator_knows_stops_the_start_and_leaves_nothing(
    overrides: tuple[str, ...], env: str, make_config: Any, tmp_path: Path
) -> None:
    with pytest.raises(Error) as caught:
        trainer.train(make_config(*overrides, env=env), tmp_path / "run")
    assert caught.value.exit_code == (7 if "Blank" in env else 2)
    assert list(tmp_path.iterdir()) == []


def test_an_episode_may_be_just_as_long_as_the_horizon(make_config: Any, tmp_path: Path) -> None:
    config = make_config("agent.horizon=4", "env=dmc/pendulum-swingup", "encoder=state")
    config = replace(config, env=replace(config.env, max_steps=4))
    assert trainer.train(config, tmp_path / "run").steps == config.steps


def test_a_python_call_is_recorded_as_the_command_that_repeats_it(make_config: Any, tmp_path: Path) -> None:
    config = make_config()
    trainer.train(config, tmp_path / "run")
    command = json.loads((tmp_path / "run" / "manifest.json").read_text())["command"]
    assert command == ["mbrl-pvr", "train", "--config", "./config.yaml"]
    assert load_config([], tmp_path / "run" / "config.yaml") == config


def test_a_run_continues_with_another_renderer(make_config: Any, tmp_path: Path) -> None:
    config = make_config()
    trainer.train(config, tmp_path / "run")
    other = replace(config, env=replace(config.env, backend="osmesa"))
    assert trainer.train(other, tmp_path / "run").steps == config.steps


def test_a_folder_of_videos_is_read_before_training_and_must_stay_as_it_is(tmp_path: Path, encoder_file: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (16, 16), (40 * number, 90, 0)).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"no picture")
    looks = ["env=dmc/finger-spin", "env.render=fast", "env.shifts=video", f"env.video={folder}"]
    common = ["threads=1", "sinks=[]", "eval.video=false", f"encoder={encoder_file}"]
    config = shrink(load_config([*looks, *common]))
    config = replace(config, steps=90, random_steps=80)
    with pytest.raises(EnvError, match=r"cannot be read as a video or picture: .*4\.png"):
        trainer.train(config, tmp_path / "run")
    Image.new("RGB", (16, 16)).save(folder / "4.png")
    trainer.train(config, tmp_path / "run")
    (folder / "0.png").unlink()
    with pytest.raises(IntegrityError, match=r"the folder of videos is not the one[\s\S]*0\.png"):
        api.ood(tmp_path / "run", episodes=1)
