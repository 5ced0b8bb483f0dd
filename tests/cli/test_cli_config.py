"""Layers, the override grammar, and the way from a configuration to text and back."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbrl_pvr.api import configure
from mbrl_pvr.config import (
    agents,
    diff,
    from_dict,
    identity,
    load_config,
    presets,
    read_config,
    run_name,
    shrink,
    to_dict,
    to_yaml,
)
from mbrl_pvr.errors import ConfigError, Error
from mbrl_pvr.fits import POOL_HEADS
from mbrl_pvr.schema import convert, field_docs, flatten, leaf_keys
from mbrl_pvr.settings import TDMPC2Run
from mbrl_pvr.yamlfile import dump_yaml, parse_yaml

SOME_KEYS = (
    "seed",
    "device",
    "steps",
    "updates_per_step",
    "agent.front_end",
    "env.num",
    "replay.capacity",
)


def test_defaults_are_the_dataclasses() -> None:
    assert load_config() == TDMPC2Run()


def test_overrides_follow_hydra_grammar() -> None:
    config = load_config(
        ["env=dmc/walker-walk", "seed=3", "agent.lr=1e-3", "steps=50_000", "env.proprio=true", "encoder.truncate=null"]
    )
    assert (config.env.name, config.seed, config.agent.lr, config.steps) == ("dmc/walker-walk", 3, 1e-3, 50_000)
    assert config.env.proprio and config.encoder.truncate is None


def test_lists_and_mappings_are_values() -> None:
    config = load_config(["env={shifts: color_easy, factors: [agent, floor], size: 96}"])
    assert config.env.factors == ("agent", "floor")
    assert config.env.size == 96


def test_later_override_wins() -> None:
    assert load_config(["seed=1", "seed=2"]).seed == 2


def test_alias_of_a_task_is_resolved() -> None:
    assert load_config(["env=dmc_walker_walk"]) == load_config(["env=dmc/walker-walk"])


def test_agent_names_a_preset_and_single_values_change_it() -> None:
    tiny = load_config(["agent.horizon=5", "agent=tdmpc2_tiny"]).agent
    assert (tiny.widths.latent_dim, tiny.widths.mlp_dim, tiny.batch_size, tiny.horizon) == (128, 256, 128, 5)


def test_file_lies_under_overrides_and_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("agent: {lr: 1.0e-2, horizon: 4}\nsteps: 5e3\nenv: dmc/finger-spin\n")
    config = load_config(["agent.horizon=2"], file)
    assert (config.agent.lr, config.agent.horizon, config.steps) == (0.01, 2, 5000)
    assert config.env.name == "dmc/finger-spin"


def test_agent_chosen_on_the_command_line_drops_the_files_agent(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(load_config(["agent.lr=0.5"])))
    assert load_config(["agent=tdmpc2_tiny"], file) == load_config(["agent=tdmpc2_tiny"])


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes(b"\xef\xbb\xbfseed: 7\r\nenv:\r\n  size: 80\r\n")
    config = load_config([], file)
    assert (config.seed, config.env.size) == (7, 80)


def test_values_mean_the_same_in_files_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("compile: off\nagent:\n  lr: 1e-3\n")
    assert load_config([], file) == load_config(["compile=off", "agent.lr=1e-3"])


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads(name: str) -> None:
    assert load_config([], name).steps > 0


@pytest.mark.parametrize("name", agents())
def test_every_agent_loads(name: str) -> None:
    assert load_config([f"agent={name}"]).agent.name in name


def test_frames_are_as_large_as_the_encoder_wants() -> None:
    assert load_config(["encoder=embedded"]).env.size == 64
    assert load_config(["encoder=resnet18_in1k"]).env.size == 256  # its transform resizes to 256, then crops
    assert load_config(["encoder=resnet18_in1k", "encoder.input_size=112"]).env.size == 128
    with pytest.raises(ConfigError, match="would enlarge it to 256 pixels"):
        load_config(["encoder=resnet18_in1k", "env.size=224"])
    assert load_config(["encoder=scratch"]).env.size == 64
    hints = {  # a size that the encoder takes, or none
        ("random_resnet18", "encoder.input_size=64", "env.size=32"): "Leave env.size out",
        ("dinov2_vits14", "env.size=100"): "Leave env.size out, or ask for a smaller input: encoder.input_size=84",
    }
    for (name, *rest), hint in hints.items():
        with pytest.raises(ConfigError) as caught:
            load_config([f"encoder={name}", *rest])
        assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["it's (mine), {1}=é.pth", "a\\b \\'c\\\\.pth", "end\\"])
def test_encoder_path_with_odd_characters_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / name
    odd.write_bytes(b"")
    config = load_config(["encoder=resnet18_in1k", f"encoder.weights=./{odd.name}"])
    assert config.encoder.weights == str(odd)


@pytest.mark.parametrize(
    "overrides", [[], ["agent=tdmpc2_tiny", "env=dmc/walker-walk", "env.shifts=color_hard", "env.factors=[floor]"]]
)
def test_to_dict_from_dict_is_the_identity(overrides: list[str]) -> None:
    config = load_config(overrides)
    assert from_dict(to_dict(config)) == config


def test_the_presets_name_goes_with_the_agent_through_files(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(load_config(["agent=tdmpc2_tiny", "agent.lr=0.5"])))
    assert load_config([], file).agent_preset == "tdmpc2_tiny"
    assert load_config(["agent=tdmpc2"], file).agent_preset == "tdmpc2"
    file.write_text("agent: tdmpc2_tiny\n")
    assert load_config([], file).agent_preset == "tdmpc2_tiny"


@pytest.mark.parametrize("docs", [False, True])
def test_yaml_reads_back(docs: bool, tmp_path: Path) -> None:
    config = load_config(["env.factors=[floor]", "agent.lr=1e-5", "compile=on"], "demo")
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config, docs=docs))
    assert read_config(file) == config
    assert load_config([], file) == config


def test_every_field_of_ours_is_documented() -> None:
    own = [key for key in leaf_keys(TDMPC2Run) if not key.startswith(("agent.", "env."))]
    assert [key for key in own if key not in field_docs(TDMPC2Run)] == []


def test_diff_names_what_changed() -> None:
    assert diff(load_config(), load_config(["agent.lr=1e-3", "seed=2"])) == [
        "seed: 1 -> 2",
        "agent.lr: 0.0003 -> 0.001",
    ]


def test_identity_ignores_how_a_run_is_computed() -> None:
    base = identity(load_config())
    assert identity(load_config(["device=cpu", "threads=3", "compile=on", "sinks=[]", "env.backend=osmesa"])) == base
    for other in ("seed=2", "env.num=2", "env.max_steps=9"):
        assert identity(load_config([other])) != base
    assert len(base) == 64


def test_run_name_is_a_safe_folder_name(tmp_path: Path) -> None:
    assert run_name(load_config(["env=dmc/walker-walk", "seed=4"])) == "tdmpc2-embedded-walker-walk-seed4"
    assert run_name(load_config(["agent=tdmpc2_tiny"])).startswith("tdmpc2_tiny-")
    config = load_config()
    odd = replace(config, encoder=replace(config.encoder, name=str(tmp_path / "a b$(id)\n.safetensors")))
    assert re.fullmatch(r"tdmpc2-a-b-id-+cartpole-balance-seed1", run_name(odd))


def test_shrink_is_small_and_keeps_the_choices() -> None:
    full = load_config(["env=dmc/walker-walk", "encoder=resnet18_in1k", "seed=5", "agent.front_end=mlp"])
    small = shrink(full)
    assert small.debug and small.steps // small.checkpoint_every >= 4
    assert (small.env.name, small.encoder, small.seed, small.agent.front_end) == (
        full.env.name,
        replace(full.encoder, compile="off"),
        5,
        "mlp",
    )
    assert small.env.max_steps == 20 and small.compile == "off"
    assert from_dict(to_dict(small)) == small


def test_shrink_keeps_what_is_smaller_and_says_what_it_replaces(caplog: pytest.LogCaptureFixture) -> None:
    small = {"steps": 100, "random_steps": 20, "checkpoint_every": 10, "log_every": 7, "eval.every": 30}
    small |= {"agent.horizon": 2, "agent.latent_dim": 8, "agent.mlp_dim": 4, "agent.num_samples": 3, "env.max_steps": 5}
    small |= {"agent.num_elites": 2, "agent.num_pi_trajs": 1, "agent.batch_size": 2, "agent.iterations": 1}
    config = configure([f"{key}={value}" for key, value in small.items()], debug=True)
    kept = dict(flatten(to_dict(config)))
    assert {key: kept[key] for key in small} == small and caplog.text == ""
    configure(["steps=50_000", "compile=on", "seed=3", "env={num: 4, size: 96}"], debug=True)
    (line,) = caplog.messages
    assert line == "--debug replaces what was asked for: steps: 50000 -> 200, compile: on -> off, env.num: 4 -> 2"


def test_what_means_nothing_may_stand_in_a_preset_or_file_or_be_turned_off(tmp_path: Path) -> None:
    assert load_config(["encoder=state"], "demo").env.shifts == "color_easy"
    assert load_config(["encoder=state", "env.shifts=none"], "demo").agent.feature_norm == "running"
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(load_config(["encoder=scratch"])))
    assert load_config([], file) == load_config(["encoder=scratch"])
    assert load_config(["encoder=scratch", "agent.augment=none", "agent.num_channels=8", "agent.stack=2"])
    assert load_config(["encoder=state", "agent.enc_dim=8"]) and load_config(["agent.front_end=mlp", "agent.enc_dim=8"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["random_steps=97", "env.num=4", "steps=100"], ["random_steps=97", "steps=100", "env.num=4"]),
        (["replay.capacity=3"], ["agent.horizon=3", "replay.capacity=3"]),
        (["replay.capacity=200"], ["agent.batch_size=256", "replay.capacity=200"]),
        (["encoder=scratch", "encoder.truncate=2"], ["encoder=scratch", "encoder.truncate"]),
        (["encoder=resnet18_in1k", "encoder.trainable=5"], ["trainable=5", "4 stages"]),
        (["encoder=dinov2_vits14", "env.size=64"], ["env.size=64", "256"]),
        (["agent.patches=each"], ["agent.patches=each", "(256,)", "encoder.feature=patches"]),
        (["agent=dreamerv3", "agent.patches=attention"], ["agent.patches=attention", "(256,)"]),
        (["encoder=scratch", "env.size=38"], ["env.size=38", "at least 39"]),
        (["random_steps=0"], ["random_steps=0", "agent.horizon=3"]),
        (["random_steps=12", "env.num=4"], ["random_steps=12", "env.num=4"]),
        (["encoder=random_resnet18", f"encoder.weights={__file__}"], ["random_resnet18", "encoder.weights"]),
        (["encoder=moco_aug_uber_34", f"encoder.weights={__file__}"], ["2 files", "encoder.weights", "moco_aug_l3"]),
    ],
)
def test_impossible_combinations_name_both_values(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides)
    assert all(word in str(caught.value) for word in words)


def test_attention_refuses_features_that_its_heads_do_not_divide() -> None:
    from mbrl_pvr import fits
    from world_models import patches

    assert POOL_HEADS == patches.HEADS
    with pytest.raises(ConfigError, match="4 heads, which do not divide features of 30"):
        fits._check_patches("attention", (49, 30))


@pytest.mark.parametrize(("agent", "smallest"), [("tdmpc2", 39), ("dreamerv3", 16), ("dreamerv3_study", 8)])
def test_the_smallest_frames_for_scratch_are_the_agents(agent: str, smallest: int) -> None:
    """A test of world_models compares them with the convolutions."""
    asked = [f"agent={agent}", "encoder=scratch"]
    assert load_config([*asked, f"env.size={smallest}"]).env.size == smallest
    with pytest.raises(ConfigError, match=f"at least {smallest} pixels" if smallest > 8 else "8..1024"):
        load_config([*asked, f"env.size={smallest - 1}"])


def test_overrides_as_one_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="list"):
        load_config("seed=1")


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(key=st.sampled_from(SOME_KEYS), value=anything)
def test_any_value_gives_a_whole_config_or_a_config_error(key: str, value: object) -> None:
    """Whatever stands in a file: fields of the declared types, or an error that names the key's section."""
    tree = to_dict(TDMPC2Run())
    *parents, last = key.split(".")
    place = tree
    for parent in parents:
        place = place[parent]
    place[last] = value
    try:
        config = from_dict(tree)
    except ConfigError as error:
        assert last in str(error)
        assert len(str(error).splitlines()) <= 2
        return
    assert from_dict(to_dict(config)) == config
    found = to_dict(config)
    for parent in parents:
        found = found[parent]
    assert type(found[last]) is type(convert(value, type(found[last]), key))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=60))
def test_any_text_as_override_is_a_config_or_an_error(text: str) -> None:
    try:
        load_config([text])
    except Error as error:
        assert error.exit_code in (2, 6, 8)


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**12), 10**12),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=12).filter(lambda s: s.isprintable()),
        st.sampled_from(
            ["on", "1e3", "0x10", "010", "1:30", "~", "null", "2020-01-01", "1_0", ".5", "=", "<<", "!x", "*a"]
        ),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=plain)
def test_what_is_dumped_reads_back(value: object) -> None:
    assert parse_yaml(dump_yaml({"key": value}), "here") == {"key": value}
