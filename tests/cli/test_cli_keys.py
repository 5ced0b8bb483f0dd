"""Every configuration key is explained to whoever prints the configuration, and means the agent that it belongs to."""

from pathlib import Path

import pytest

from mbrl_pvr.api import configure
from mbrl_pvr.config import diff, load_config, read_config, to_yaml
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.schema import field_docs, leaf_keys
from mbrl_pvr.settings import RUNS, DreamerV3Run, TDMPC2Run


@pytest.mark.parametrize("name", RUNS)
def test_every_key_has_an_explanation(name: str) -> None:
    cls: type = RUNS[name]
    docs = field_docs(cls)
    assert not [key for key in leaf_keys(cls) if not docs.get(key)]


def test_keys_are_those_of_the_agent_that_is_named() -> None:
    """Wherever it is named; both agents know `size`, as a number and as a text."""
    assert isinstance(load_config(["agent.horizon=5"]), TDMPC2Run)
    one = load_config(["agent.size=25M", "agent=dreamerv3_tiny"])
    assert isinstance(one, DreamerV3Run) and one.agent.size == "25M" and one.agent_preset == "dreamerv3_tiny"
    with pytest.raises(ConfigError, match=r"agent\.horizon"):
        load_config(["agent=dreamerv3", "agent.horizon=5"])
    with pytest.raises(ConfigError, match="size"):
        load_config(["agent=dreamerv3", "agent.size=5"])


def test_a_runs_own_file_says_which_agent_it_has(tmp_path: Path) -> None:
    config = load_config(["agent=dreamerv3", "agent.batch_length=16"])
    (tmp_path / "config.yaml").write_text(to_yaml(config, docs=True))
    assert read_config(tmp_path / "config.yaml") == config == load_config([], tmp_path / "config.yaml")
    assert load_config(["agent=tdmpc2"], tmp_path / "config.yaml").agent == load_config().agent
    assert "agent.name: tdmpc2 -> dreamerv3" in diff(load_config(), config)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["encoder=state", "agent.target=pixels"], "is not given.*\n.*auto, none"),
        (["encoder=scratch", "agent.target=feature"], "is not given.*\n.*auto, pixels, none"),
        (
            ["encoder=random_resnet18", "encoder.trainable=all"],
            r"moving output.*\n.*target=pixels or agent.target=none",
        ),
        (["encoder=random_resnet18", "encoder.trainable=1", "agent.target=feature"], "moving output"),
        (["agent.target_size=32"], r"means nothing with agent\.target=auto"),
        (["encoder=scratch", "agent.target_size=32"], "means nothing with encoder=scratch"),
        (["agent.target=pixels", "agent.target_size=0"], "target_size=0 must be at least 1"),
        (["agent.target=pixels", "agent.target_size=2048"], "at most 1024"),
        (["agent.target=pixels", "agent.target_size=56"], r"multiples of 16.*\n.*agent\.target_size=48"),
        (["agent.target=pixels", "agent.convolutions=strided", "agent.target_size=48"], r"powers of 2.*\n.*size=32"),
        (["agent.target=pixels", "agent.target_size=80"], r"env\.size=64 would be enlarged"),
        (["agent.target=pixels", "agent.depth=3"], "12 filters"),
        (["agent.target=pixels", "agent.coder_layers=2"], r"means nothing with agent\.target=pixels"),
        (
            ["encoder=random_vits16", "encoder.input_size=32", "encoder.trainable=lora", "agent.target=pixels"],
            r"encoder\.input_size=32 would be enlarged.*\n.*at most 32",
        ),
        (["agent.depth=8"], "means nothing"),
        (["encoder=scratch", "env.size=72"], r"env\.size=64"),
        (["encoder=scratch", "agent.depth=3"], "12 filters"),
        (["agent.barlow=1"], "means nothing"),
        (["agent.clip=1"], r"means nothing with agent\.optimizer=laprop"),
        (["agent.optimizer=adam", "agent.agc=1"], r"means nothing with agent\.optimizer=adam"),
        (["agent.disagreement_heads=5"], r"means nothing with agent\.exploration=0"),
        (["agent.sequence=dense", "agent.blocks=4"], r"means nothing with agent\.sequence=dense"),
        (["agent.convolutions=strided"], "means nothing with encoder=embedded"),
        (["encoder=scratch", "agent.coder_layers=2"], "means nothing with encoder=scratch"),
        (["encoder=scratch", "agent.convolutions=strided", "env.size=96"], "powers of 2"),
        (["agent.norm=batch"], "norm='batch' is not one of rms, layer"),
        (["random_steps=63"], "batch_length=64"),
    ],
)
def test_what_does_not_fit_dreamerv3_is_refused(overrides: list[str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_config(["agent=dreamerv3", *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        ["agent.target=pixels", "agent.target_size=32", "agent.depth=8", "agent.convolutions=strided"],
        ["agent.target=pixels", "agent.coder_layers=2", "agent.front_end=mlp"],
        ["agent.target=pixels", "agent.coder_layers=2", "env.proprio=true"],
        ["encoder=state", "agent.target=none", "agent.coder_layers=2"],
        ["encoder=random_resnet18", "agent.target=pixels"],  # 256 pixels are averaged to 64
        ["encoder=random_vits16", "encoder.trainable=2", "agent.target=pixels"],
        ["encoder=random_vits16", "encoder.trainable=lora", "agent.target=pixels", "agent.target_size=224"],
    ],
)
def test_what_fits_dreamerv3_is_taken(overrides: list[str]) -> None:
    assert load_config(["agent=dreamerv3", *overrides])


@pytest.mark.parametrize("agent", ["tdmpc2", "dreamerv3"])
def test_debug_shrinks_before_it_asks_what_fits(agent: str) -> None:
    """Nobody typed `random_steps`, and the debug run has few of them."""
    small = configure([f"agent={agent}", "steps=100"], debug=True)
    assert small.steps == 100 and small.random_steps < 100
    with pytest.raises(ConfigError, match="random_steps=60"):
        configure([f"agent={agent}", "steps=50"], debug=True)
