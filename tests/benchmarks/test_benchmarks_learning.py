"""The commands of benchmarks/README.md exist and parse; the constant actions that a score is held against."""

import importlib.util
import re
import shlex
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mbrl_pvr.config import load_config
from mbrl_pvr.envs.actions import ActionSpec

ROOT = Path(__file__).resolve().parents[2]
SHOWN = sorted(
    set(re.findall(r"python (benchmarks/\w+\.py(?: [^`\n]*)?)", (ROOT / "benchmarks/README.md").read_text()))
)
TRAINING = [line for line in SHOWN if line.startswith("benchmarks/learning.py train -")]


@pytest.fixture(scope="module")
def learning():
    spec = importlib.util.spec_from_file_location("learning", ROOT / "benchmarks/learning.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_are_found():
    assert len(TRAINING) >= 7
    assert [line for line in SHOWN if not (ROOT / line.split()[0]).is_file()] == []
    encoders = {word for line in TRAINING for word in line.split() if word.startswith("encoder=")}
    assert len(encoders) == 5


@pytest.mark.parametrize("line", TRAINING)
def test_training_commands_parse(line, learning):
    args = learning.parse(shlex.split(line)[1:])
    assert args.verb == "train" and set(args.seeds) <= {1, 2, 3} and "threads=1" in args.overrides
    own_weights = "encoder.weights="  # a file that other machines lack
    load_config([word for word in args.overrides if not word.startswith(own_weights)] + ["seed=1"], args.config)


def test_overrides_stand_anywhere(learning):
    lines = (
        "train steps=9 --name a --seeds 1 2",
        "train --name a --seeds 1 2 steps=9",
        "train --name=a --seeds 1 2 steps=9",
    )
    for line in lines:
        args = learning.parse(line.split())
        assert (args.name, args.seeds, args.overrides) == ("a", [1, 2], ["steps=9"])
    assert learning.parse(["table", "runs/a=b"]).runs == [Path("runs/a=b")]


def test_constants_differ_between_joints(learning):
    assert len(learning.constants(ActionSpec(1))) == 5 and len(learning.constants(ActionSpec(2))) == 25
    six = learning.constants(ActionSpec(6))
    assert six.shape == (105, 6) and np.abs(six).max() <= 1
    assert len(np.unique(six, axis=0)) == 105 and (six[5:].std(axis=1) > 0).all()
    np.testing.assert_array_equal(learning.constants(ActionSpec(3, discrete=True)), np.eye(3))
    np.testing.assert_array_equal(six, learning.constants(ActionSpec(6)))


def test_best_constant_is_the_best(learning, monkeypatch):
    """In an environment whose return falls with the distance to one action."""
    target = learning.constants(ActionSpec(3))[42]

    def play_round(policy, features, env, first, stack, device):
        action = policy(SimpleNamespace(is_first=np.ones(4, bool)), 0)
        return [SimpleNamespace(total_reward=-np.abs(row - target).sum()) for row in action]

    resets = SimpleNamespace(reset=lambda episode: episode)
    monkeypatch.setattr(learning, "_environments", lambda trained, see: nullcontext(resets))
    monkeypatch.setattr(learning, "play_round", play_round)
    trained = SimpleNamespace(agent=SimpleNamespace(sequence=SimpleNamespace(stack=1)), device=None)
    np.testing.assert_array_equal(learning.best_constant(trained, learning.constants(ActionSpec(3))), target)
