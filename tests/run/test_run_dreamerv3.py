"""DreamerV3 through the same run: killed and resumed bitwise, its recurrent states in replay, choices as actions."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from analysis import latents
from mbrl_pvr import api, checkpoint
from mbrl_pvr.config import RunConfig, load_config, shrink, to_yaml
from mbrl_pvr.envs import backend, vulkan
from mbrl_pvr.fingerprint import fingerprint
from mbrl_pvr.runfolder import read_status
from mbrl_pvr.session import load_trained
from mbrl_pvr.trainer import train

needs_miniworld = pytest.mark.skipif(
    bool(lacking := backend.missing("miniworld")), reason=f"apt-get install {' '.join(p for _, p in lacking)}"
)
needs_maniskill = pytest.mark.skipif(vulkan.find() is None, reason=f"no Vulkan driver: {vulkan.SETUP}")
COMMON = [
    "threads=1",
    "sinks=[]",
    "eval.video=false",
    "random_steps=60",
    "agent.batch_length=16",
    "steps=110",
]


def make(encoder: Path | str, *overrides: str, agent: str = "dreamerv3_tiny") -> RunConfig:
    return shrink(load_config([f"agent={agent}", *COMMON, f"encoder={encoder}", *overrides]))


def in_a_process(config: RunConfig, path: Path) -> "subprocess.Popen[bytes]":
    file = path.with_suffix(".yaml")
    file.write_text(to_yaml(config))
    code = "import sys; from mbrl_pvr.config import read_config; from mbrl_pvr.trainer import train;"
    return subprocess.Popen([sys.executable, "-c", f"{code} train(read_config(sys.argv[1]), sys.argv[2])", file, path])


@pytest.mark.timeout(1200)  # minutes with ManiSkill, whose workers compile shaders
@pytest.mark.parametrize(
    ("agent", "task"),
    [
        ("dreamerv3_tiny", "counting/default"),
        ("dreamerv3_tiny", "counting/discrete"),
        ("dreamerv3_study", "counting/default"),
        pytest.param(*("dreamerv3_tiny", "miniworld/Hallway"), marks=needs_miniworld),
        pytest.param(*("dreamerv3_tiny", "maniskill/PlugCharger-v1"), marks=[needs_maniskill, pytest.mark.slow]),
    ],
)
def test_a_killed_run_resumes_bitwise(agent: str, task: str, encoder_file: Path, tmp_path: Path) -> None:
    """States that updates have refreshed are restored as well, or the second run would differ; so are both actors."""
    config = make(encoder_file, f"env={task}", "env.num=2", agent=agent)
    train(config, tmp_path / "a")
    child = in_a_process(config, tmp_path / "b")
    while child.poll() is None and not _has_checkpoint(tmp_path / "b"):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    train(config, tmp_path / "b")
    one, two = (fingerprint(tmp_path / name) for name in "ab")
    for part in one.keys() - {"manifest.json"}:
        assert one[part] == two[part], f"{part} differs"


def _has_checkpoint(path: Path) -> bool:
    return path.exists() and read_status(path)["checkpoint"] is not None


def test_replay_keeps_states_that_updates_refresh(encoder_file: Path, tmp_path: Path) -> None:
    config = make(encoder_file, "env=counting/default")
    train(config, tmp_path / "run")
    saved = checkpoint.latest(tmp_path / "run")
    assert saved is not None
    states = saved.tensors("replay_states")["states"].numpy()
    assert states.shape[1] == config.agent.carried and np.isfinite(states).all()
    assert (states[: config.random_steps] != 0).any()  # not acted on by the agent, so an update wrote them
    without = make(encoder_file, "env=counting/default", "agent.context=zero")
    train(without, tmp_path / "zero")
    plain: Any = checkpoint.latest(tmp_path / "zero")
    assert "replay_states.safetensors" not in plain.manifest["files"]


@pytest.mark.parametrize("encoder", ["state", "scratch"])
def test_it_trains_without_a_frozen_encoder(encoder: str, tmp_path: Path) -> None:
    config = make(encoder, "env=counting/default")
    assert train(config, tmp_path / "run").steps == config.steps


@pytest.mark.timeout(300)
def test_runs_of_both_algorithms_are_played_recorded_and_analysed(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The KL of the figure is the one that the agent learns with, before free bits."""
    monkeypatch.setattr(latents, "umap", lambda points, *_: latents.pca(points)[0])  # compiling takes half a minute
    task = ["env=dmc/finger-spin", "env.render=fast", "steps=70"]
    dreamer, tdmpc = tmp_path / "dreamer", tmp_path / "tdmpc"
    train(make(encoder_file, *task, "agent.unimix=0.04"), dreamer)
    other = ["agent=tdmpc2_tiny", f"encoder={encoder_file}", *task, "threads=1", "sinks=[]", "eval.video=false"]
    train(shrink(load_config([*other, "random_steps=60"])), tdmpc)
    for run in (dreamer, tdmpc):
        api.ood(run, episodes=1, shifts=["color_easy"], video=False)
        api.record(run, episodes=3, context=5)

    report = api.analyze([dreamer, tdmpc], tmp_path / "out")
    wanted = ("returns", "ood", "dynamics", "errors", "calibration", "latents", "probes")
    assert [name for name in report["figures"] if name in wanted] == list(wanted)
    assert not {one["figure"] for one in report["missing"]} & {*wanted}
    numbers = pd.read_csv(tmp_path / "out" / "dynamics.csv").set_index(["agent", "measure"])
    assert set(numbers.index) == {("dreamerv3", "KL"), ("tdmpc2", "MSE")}
    mine = numbers.loc[("dreamerv3", "KL")]
    assert mine["k"].tolist() == list(range(1, 17)) and (mine["context"] == 5).all()  # 21 frames, 5 of them given
    with np.load(dreamer / "latents.npz") as stored, load_trained(dreamer) as trained:
        posterior, prior = (torch.from_numpy(stored[name]) for name in ("posterior", "open_loop"))
        kl = trained.agent.model.kl  # type: ignore[attr-defined]
        wanted = (kl(posterior, prior) + kl(prior, posterior))[:, 5:] / 2
    np.testing.assert_allclose(mine["error"], wanted.mean(0).numpy(), rtol=1e-3)
    np.testing.assert_allclose(mine["error_sum"], wanted.cumsum(1).mean(0).numpy(), rtol=1e-3)
    assert wanted.mean() > 1e-4


def test_no_recorded_reward_knows_of_disagreement(encoder_file: Path, tmp_path: Path) -> None:
    """Rewards of the counting environment are whole numbers; disagreement is not, however much of it is sought."""
    overrides = ("env=counting/default", "agent.exploration=1000", "agent.exploration_critics=summed")
    config = make(encoder_file, *overrides, agent="dreamerv3_study")
    train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    totals = {frames * (frames + 1) // 2 for frames in range(3, 25)}
    assert len(rows) > 5 and {row["return"] for row in rows} <= totals
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    sought = [row["train/explore_imagined_reward_sum"] for row in metrics if "train/explore_imagined_reward_sum" in row]
    assert sought and all(abs(value) > 1 for value in sought), "disagreement was not sought"
    segments = sorted((tmp_path / "run" / "replay").glob("*.safetensors"))
    rewards = torch.cat([load_file(path)["reward"] for path in segments])
    assert len(rewards) >= config.steps and torch.equal(rewards, rewards.round()) and float(rewards.max()) <= 24 + 23
