"""Synthetic run folders in the formats of a real one."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml


def config(encoder="embedded", task="dmc/walker-walk", seed=1, **settings):
    nested = {
        "seed": seed,
        "device": "cpu",
        "steps": 100_000,
        "env": {"name": task, "action_repeat": 2, "shifts": "color_easy", "render": "fast", "camera": 0},
        "encoder": {"name": encoder, "truncate": None},
        "agent": {"name": "tdmpc2", "size": 5, "front_end": "linear", "augment": "shift", "enc_dim": None},
        "eval": {"every": 10_000, "episodes": 4},
    }
    for key, value in settings.items():
        *parents, last = key.split("__")
        place = nested
        for parent in parents:
            place = place[parent]
        place[last] = value
    return nested


def row(nested, step, value, episode, **more):
    return {
        "agent": nested["agent"]["name"],
        "encoder": nested["encoder"]["name"],
        "task": nested["env"]["name"],
        "shift": "none",
        "severity": 0,
        "seed": nested["seed"],
        "step": step,
        "frame": step * nested["env"]["action_repeat"],
        "episode": episode,
        "return": float(value),
        "length": 500,
        "success": None,
        **more,
    }


def episode_rows(nested, top, rng):
    rows = []
    for episode, step in enumerate(range(500, nested["steps"] + 1, 500)):
        level = 40 + top * (1 - np.exp(-step / 30_000))
        rows.append({"kind": "train", **row(nested, step, max(0, level + rng.normal(0, 90)), episode)})
        if step % nested["eval"]["every"] == 0:
            for number in range(nested["eval"]["episodes"]):
                rows.append({"kind": "eval", **row(nested, step, max(0, level + rng.normal(0, 40)), number)})
    return rows


def ood_rows(nested, top, loss, rng):
    rows = []
    for episode in range(12):
        inside, outside = top + rng.normal(0, 40), top * (1 - loss) + rng.normal(0, 80)
        rows.append({"split": "train", **row(nested, nested["steps"], inside, episode)})
        shifted = {"shift": "color_easy", "severity": 1}
        rows.append({"split": "held_out", **row(nested, nested["steps"], max(0, outside), episode, **shifted)})
    return rows


def latents_of(rng, growth=0.03, episodes=8, steps=120, dims=64, context=3):
    """A gait-like loop in latent space with reward along it, and an open loop that leaves it as `growth` * sqrt(k)."""
    phase = rng.uniform(0, 2 * np.pi, (episodes, 1)) + 0.13 * np.arange(steps)
    speed = 1 - np.exp(-np.arange(steps) / rng.uniform(10, 50, (episodes, 1)))
    state = np.stack([np.cos(phase) * (0.4 + speed), np.sin(phase) * (0.4 + speed), 1.5 * speed], -1)
    mix = rng.normal(size=(3, dims))
    posterior = np.tanh(state @ mix / 2) + rng.normal(0, 0.15, (episodes, steps, dims))
    k = np.maximum(0, np.arange(steps) - context + 1)
    open_loop = posterior + np.sqrt(growth * k)[None, :, None] * rng.choice([-1.0, 1.0], posterior.shape)
    reward = np.clip(speed + 0.05 * np.sin(phase), 0, 1)
    reward[:, 0] = 0
    predicted = reward + rng.normal(0, 0.02, reward.shape)
    predicted[:, 0] = np.nan
    ahead = reward + rng.normal(0, 1, reward.shape) * np.sqrt(0.0005 * k)
    ahead[:, 0] = np.nan
    return {
        "posterior": posterior.astype(np.float32),
        "open_loop": open_loop.astype(np.float32),
        "reward_true": reward.astype(np.float32),
        "reward_pred": predicted.astype(np.float32),
        "reward_open_loop": ahead.astype(np.float32),
        "value": reward.astype(np.float32),
        "length": np.full(episodes, steps),
        "context": np.array(context),
        "kind": np.array("deterministic"),
        "classes": np.array(0),
    }


def categorical(rng, latents=8, classes=4, **sizes):
    """Logits of posterior and open loop in place of numbers, and the state [h, z] that they belong to."""
    arrays = latents_of(rng, dims=latents * classes, **sizes)
    state = rng.normal(size=(*arrays["posterior"].shape[:2], 40)).astype(np.float32)
    state[..., 0] = arrays["reward_true"]  # some of it can be seen in a picture
    return arrays | {"latent": state, "kind": np.array("categorical"), "classes": np.array(classes)}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))


def write_run(
    folder, encoder="embedded", seed=1, *, top=800.0, loss=0.3, state="finished", parts=("ood", "latents"), **settings
):
    """A whole run folder; `parts` beyond training are optional. With `agent__name="dreamerv3"` latents are logits."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    nested = config(encoder, seed=seed, **settings)
    rng = np.random.default_rng([seed, len(encoder), int(top), len(nested["env"]["name"])])
    (folder / "config.yaml").write_text(yaml.safe_dump(nested))
    identity = hashlib.sha256(json.dumps(nested).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "identity": identity, "command": "mbrl-pvr train"}))
    (folder / "status.json").write_text(json.dumps({"state": state, "checkpoint": nested["steps"]}))
    write_jsonl(
        folder / "metrics.jsonl", [{"step": s, "frame": 2 * s, "train/loss": None} for s in range(0, 1000, 100)]
    )
    write_jsonl(folder / "episodes.jsonl", episode_rows(nested, top * rng.uniform(0.9, 1.1), rng))
    if "ood" in parts:
        rows = ood_rows(nested, top * rng.uniform(0.85, 1.15), loss, rng)
        pd.DataFrame(rows).to_parquet(folder / "ood.parquet")
    if "latents" in parts:
        make = categorical if nested["agent"]["name"] == "dreamerv3" else latents_of
        np.savez(folder / "latents.npz", **make(rng, growth=0.0002 + loss / 1000))
    return folder


@pytest.fixture
def make_run(tmp_path):
    """write_run below the test's own folder."""
    return lambda name="run", *args, **kwargs: write_run(tmp_path / name, *args, **kwargs)


@pytest.fixture
def synthetic():
    """The makers of one run's parts, for tests that change a single file."""
    return {"latents": latents_of, "categorical": categorical, "write_jsonl": write_jsonl, "row": row, "config": config}


@pytest.fixture
def add_frames():
    """Gives a run's recorded steps pictures (64, 64, 3) of one colour that says which episode and step they are of."""

    def add(folder):
        with np.load(folder / "latents.npz") as stored:
            arrays = dict(stored)
        episodes, steps = arrays["reward_true"].shape
        colour = np.stack(np.broadcast_arrays(30 * np.arange(episodes)[:, None], 2 * np.arange(steps), 90), -1)
        arrays["frame"] = np.broadcast_to(colour[:, :, None, None].astype(np.uint8), (episodes, steps, 64, 64, 3))
        np.savez_compressed(folder / "latents.npz", **arrays)

    return add
