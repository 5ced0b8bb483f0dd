"""From a study file to runs: grids, exclusions, ids, and every mistake as one line that says where."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.config import identity, load_config
from mbrl_pvr.downloads import names_in
from mbrl_pvr.errors import ConfigError, Error
from mbrl_pvr.study import cells
from mbrl_pvr.study.cells import Study, as_override, load_study
from mbrl_pvr.study.file import read_study_file, studies
from mbrl_pvr.yamlfile import dump_yaml

MAIN: dict[str, Any] = {"grid": {"agent": ["tdmpc2_tiny"], "encoder": ["scratch", "embedded"], "seed": [1, 2]}}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a study file; its path."""

    def write(tree: Any) -> Path:
        path = tmp_path / "some.yaml"
        path.write_text(tree if isinstance(tree, str) else dump_yaml(tree))
        return path

    return write


def test_a_grid_is_every_combination_and_lists_and_exclusions_change_it(write: Any) -> None:
    part = {
        "grid": {"seed": [1, 2], "encoder": ["scratch", "embedded"], "agent.reward_coef": [0.1, 0.3]},
        "runs": [{"encoder": {"name": "vc1_vitb", "truncate": 8}, "seed": 5}],
        "exclude": [{"encoder": "scratch", "agent.reward_coef": 0.3}, {"encoder.name": "embedded", "seed": 2}],
    }
    study = load_study(write({"set": {"agent": "tdmpc2_tiny"}, "parts": {"main": part}}))
    points = [(run.seed, run.settings["encoder"], run.settings.get("agent.reward_coef")) for run in study.runs]
    assert points == [
        *((1, "scratch", 0.1), (1, "embedded", 0.1), (1, "embedded", 0.3)),  # the first axis varies slowest
        *((2, "scratch", 0.1), (5, "vc1_vitb", None)),
    ]
    assert study.config(study.runs[-1]).encoder.truncate == 8
    assert study.config(study.runs[2]).agent.reward_coef == 0.3
    assert study.name == "some"


def test_a_run_is_what_its_command_trains_and_its_id_follows_from_that_alone(write: Any) -> None:
    tree = {"config": "demo", "set": {"env": "dmc/cup-catch", "threads": 1}, "parts": {"main": MAIN}}
    study = load_study(write(tree))
    for run in study.runs:
        words = run.command.split()
        assert words[:2] == ["mbrl-pvr", "train"] and words[-3:-1] == ["--config", "demo"]
        alone = load_config([*words[2:-3], words[-1]], "demo")
        assert alone == study.config(run) and identity(alone) == run.id
        assert run.name.endswith(f"seed{run.seed}-{run.id[:8]}")
    tree["set"]["threads"], tree["resources"] = 2, {"cores": 2, "memory": 1}
    tree["set"]["device"] = "cpu"
    assert [run.id for run in load_study(write(tree)).runs] == [run.id for run in study.runs]
    tree["set"]["agent.lr"] = 1e-3
    assert not {run.id for run in load_study(write(tree)).runs} & {run.id for run in study.runs}


def test_named_settings_are_one_axis(write: Any) -> None:
    variant = {"linear": {"agent.front_end": "linear"}, "wide": {"agent.front_end": "mlp", "agent.enc_dim": 512}}
    part = {"grid": {"variant": variant, "seed": [1, 2]}, "exclude": [{"variant": "linear", "seed": 2}]}
    study = load_study(write({"set": {"agent": "tdmpc2_tiny"}, "parts": {"main": part}}))
    assert [(run.settings["variant"], run.seed) for run in study.runs] == [("linear", 1), ("wide", 1), ("wide", 2)]
    assert study.config(study.runs[1]).agent.enc_dim == 512  # type: ignore[union-attr]
    assert "variant" not in study.runs[1].command


def test_what_all_are_given_may_mean_nothing_in_some_but_an_axis_may_not(write: Any) -> None:
    """With the state as input nothing is drawn, so that a shift of looks means nothing."""
    shared = {"set": {"env.shifts": "color_easy"}, "parts": {"main": {"grid": {"encoder": ["state", "embedded"]}}}}
    study = load_study(write(shared))
    assert [study.config(run).env.shifts for run in study.runs] == ["color_easy"] * 2
    assert "color_easy" in study.runs[1].command and "color_easy" not in study.runs[0].command
    grid = {"encoder": ["state"], "env.shifts": ["color_easy"]}
    with pytest.raises(ConfigError, match=r"env\.shifts means nothing.*part main: encoder=state, env\.shifts=col"):
        load_study(write({"parts": {"main": {"grid": grid}}}))


def test_parts_have_their_own_settings(write: Any) -> None:
    tree = {
        "config": "demo",
        "stages": {"ood": {"episodes": 3}},
        "resources": {"cores": 2, "memory": 8},
        "parts": {"one": {"grid": {"seed": [1]}}, "two": {"grid": {"seed": [1]}, "config": None, "stages": {}}},
    }
    tree["parts"]["two"]["resources"] = {"memory": 16}
    study = load_study(write(tree))
    one, two = study.kinds
    assert (one.config["agent_preset"], two.config["agent_preset"]) == ("tdmpc2_tiny", "tdmpc2")
    assert one.stages.ood is not None and one.stages.ood.episodes == 3 and two.stages.ood is None
    assert (two.resources.cores, two.resources.memory) == (2, 16)
    assert [run.id for run in load_study(write(tree), ["two"]).runs] == [study.runs[1].id]


def test_a_study_survives_json(write: Any) -> None:
    stages = {"ood": {"shifts": ["noise"], "severities": [0.5]}, "record": {}}
    study = load_study(write({"stages": stages, "parts": {"main": MAIN}}))
    assert Study.from_json(json.loads(json.dumps(study.to_json()))) == study


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({"part": {}}, "a study has `parts`"),
        ({"parts": {"main": MAIN}, "name": "a b"}, "name='a b'.*\n.*a-b"),
        ({"parts": {"main": MAIN}, "retry": 1}, "unknown key 'retry'.*some.*\nDid you mean 'retries'"),
        ({"parts": {"main": {**MAIN, "gird": {}}}}, "unknown key 'gird'.*part main.*\nDid you mean 'grid'"),
        ({"parts": {"main": {"grid": {"agnt": ["tdmpc2"]}}}}, "unknown key 'agnt'.*part main: agnt=.*\n.*'agent'"),
        ({"parts": {"main": {"grid": {"agent": ["tdmpc"]}}}}, "unknown agent 'tdmpc'.*part main.*\n.*'tdmpc2'"),
        ({"parts": {"main": {"grid": {"seed": []}}}}, r"grid\.seed has no values: this grid has 0 runs"),
        ({"parts": {}}, "this study has 0 runs"),
        ({"parts": {"main": {}}}, "this study has 0 runs"),
        ({"parts": {"main": {"grid": {"seed": [1]}, "exclude": [{"seed": 1}]}}}, "0 runs: every point"),
        ({"parts": {"main": {**MAIN, "exclude": [{"encoder": "stat"}]}}}, r"exclude \(encoder=stat\) leaves nothing"),
        ({"parts": {"main": {**MAIN, "exclude": [{"encodr": "state"}]}}}, "exclude names encodr.*\n.*agent, encoder"),
        ({"parts": {"main": {"grid": {"seed": [1, 1]}}}}, "two points are the same run: seed=1; and seed=1"),
        ({"parts": {"a": MAIN, "b": MAIN}}, "same run: .*; and agent=tdmpc2_tiny, .* of part a"),
        ({"parts": {"main": {"grid": {"seed": [-1]}}}}, "seed=-1 must be at least 0"),
        ({"parts": {"main": {"grid": {"seed": ["one"]}}}}, "seed wants an integer"),
        ({"parts": {"main": {"grid": {"encoder": {"a": {"seed": 1}}}}}}, "encoder is a key of a run"),
        ({"parts": {"main": {"grid": {"variant": {"a": 1}}}}}, r"grid\.variant\.a should hold settings"),
        (
            {"parts": {"main": {"grid": {"v": {"a": {"seed": 1}}, "seed": [1]}}}},
            "two axes of the grid give seed",
        ),
        ({"parts": {"main": MAIN}, "stages": {"odd": {}}}, "unknown stage 'odd'.*\n.*'ood'"),
        ({"parts": {"main": MAIN}, "stages": {"ood": {}}}, "'none' is no shift to test on.*part main"),
        ({"parts": {"main": MAIN}, "stages": {"ood": {"severities": [2.0]}}}, r"severity 2\.0 must lie in 0\.\.1"),
        ({"parts": {"main": MAIN}, "stages": {"record": {"bank": "nowhere"}}}, "nowhere"),
        ({"parts": {"main": MAIN}, "resources": {"cores": 0}}, "cores=0 must be at least 1"),
        ({"parts": {"main": MAIN}, "resources": {"gpu": 1.5}}, r"gpu=1\.5 must be a share"),
        ({"parts": {"main": MAIN}, "set": {"threads": 4}}, r"threads=4, but resources\.cores=1"),
        ({"parts": {"main": {**MAIN, "set": {"env": "dmc/walker-fly"}}}}, "dmc/walker-walk"),
        ({"parts": {"main": {"runs": [{"env": {"name": "dmc/cup-catch"}, "env.name": "x"}]}}}, "env is given twice"),
        ({"parts": {"main": {"grid": {"_target_": ["os.system"]}}}}, "_target_"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(write: Any, tree: Any, match: str) -> None:
    with pytest.raises(Error, match=match) as caught:
        load_study(write(tree))
    assert caught.value.exit_code in (2, 3, 5, 6, 8)


def test_a_million_runs_are_refused_at_once_with_their_number(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        {"parts": {"main": {"grid": {"seed": list(range(1000)), "agent.lr": [i * 1e-6 for i in range(1000)]}}}}
    )
    with pytest.raises(ConfigError, match=r"1,000,000 runs, more than 10,000.*\n.*--yes"):
        load_study(path)
    monkeypatch.setattr(cells, "MANY", 3)
    small = write({"parts": {"main": MAIN}})
    with pytest.raises(ConfigError, match="4 runs, more than 3"):
        load_study(small)
    assert len(load_study(small, yes=True).runs) == 4


def test_unknown_studies_and_parts_are_told_with_the_nearest(write: Any) -> None:
    with pytest.raises(ConfigError, match=r"unknown study 'smok'\nDid you mean 'smoke'"):
        read_study_file("smok")
    with pytest.raises(ConfigError, match=r"unknown part 'mian'.*\n.*'main'"):
        load_study(write({"parts": {"main": MAIN}}), ["mian"])


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -1,
        1e-3,
        0.1,
        "plain",
        "dmc/cup-catch",
        "null",
        "1e3",
        "it's",
        "a b",
        "a,b",
        r"c:\d",
        "back\\'slash\\",
        "é",
        "=",
        "",
    ],
    ids=repr,
)
def test_values_pass_through_the_grammar_of_overrides(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for one in (value, [value, value]):
        parsed = OverridesParser.create().parse_override(as_override("some.key", one))
        assert parsed.value() == one and not parsed.is_sweep_override()


def test_the_file_that_the_documentation_shows(write: Any, root: Path) -> None:
    shown = (root / "docs" / "studies.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    study = load_study(write(shown))
    parts = [study.kind(run).part for run in study.runs]
    assert (study.name, parts.count("main"), parts.count("plain")) == ("mine", 3 * 2 * 3 * 2 - 6 + 1, 1)


def test_the_studies_of_the_package() -> None:
    assert studies() == ["layer_atlas", "schneider2024", "small_cpu", "smoke"]
    assert len(load_study("smoke").runs) == 4
    small = load_study("small_cpu")
    assert len(small.runs) == 2 * 5 * 3 and {run.seed for run in small.runs[:10]} == {1}
    assert all(small.config(run).steps == 10_000 for run in small.runs)
    assert names_in("small_cpu") == ["state", "embedded", "random_resnet18", "scratch", "resnet18_in1k"]
    named = names_in("schneider2024")
    assert {"imagebind_vith14", "r2d2", "encoders/autoencoder-walker-walk.safetensors"} < set(named) and len(
        named
    ) == 23


def test_the_paper_has_756_runs_of_dreamerv3() -> None:
    """14 encodings, 9 tasks, 6 seeds, counted without composing each."""
    sizes = {part.name: part.size - len(part.exclude) * 24 for part in read_study_file("schneider2024").parts}
    assert sum(sizes[name] for name in ("dmc", "maniskill", "maniskill_scratch", "autoencoder")) == 756 == 14 * 9 * 6
    assert {name: sizes[name] for name in ("miniworld", "tdmpc2", "depth")} == {
        "miniworld": 16,
        "tdmpc2": 60,
        "depth": 18,
    }
    assert sizes["pendulum"] + sizes["pendulum_autoencoder"] == 14 * 6
    depth = load_study("schneider2024", ["depth", "maniskill_scratch"])
    assert [k.config["encoder"]["truncate"] for k in depth.kinds[4:]] == [8, 12, 16] and len(depth.runs) == 42
    assert {kind.config["env"]["size"] for kind in depth.kinds[:4]} == {128}
    assert math.isclose(depth.kinds[0].resources.memory, 96) and depth.kinds[0].resources.cores == 8
    with pytest.raises(Error, match=r"no encoder file '.*encoders/autoencoder-cartpole"):
        load_study("schneider2024", ["autoencoder"])
