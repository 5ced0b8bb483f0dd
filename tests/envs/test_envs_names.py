"""Names, aliases and configuration: checked without a simulator, and the table against the simulator."""

import subprocess
import sys

import pytest

from mbrl_pvr.envs import EnvConfig, list_envs, make
from mbrl_pvr.envs.names import DMC_TASKS, MANISKILL_TASKS, MINIWORLD_TASKS, TERMINATING, family, resolve
from mbrl_pvr.errors import ConfigError


def test_table_is_the_simulators() -> None:
    from dm_control import suite

    assert {domain: tuple(sorted(tasks)) for domain, tasks in suite.TASKS_BY_DOMAIN.items()} == DMC_TASKS


def test_tasks_that_terminate_are_the_simulators() -> None:
    from dm_control import suite

    ending = {
        domain
        for domain, module in suite._DOMAINS.items()
        if any("get_termination" in vars(c) for c in vars(module).values() if isinstance(c, type))
    }
    listed = {name for name in TERMINATING if name.startswith("dmc/")}
    assert {f"dmc/{domain}-{task}" for domain in ending for task in DMC_TASKS[domain]} == listed


def test_list_matches_shell_patterns() -> None:
    assert list_envs("dmc/walker-*") == ["dmc/walker-run", "dmc/walker-stand", "dmc/walker-walk"]
    assert len(list_envs("dmc/*")) == sum(map(len, DMC_TASKS.values()))
    assert list_envs("nothing*") == []


def test_the_tests_environments_are_not_listed_and_not_counted() -> None:
    assert list_envs("counting*") == []
    assert len(list_envs()) == sum(map(len, DMC_TASKS.values())) + len(MANISKILL_TASKS) + len(MINIWORLD_TASKS)
    assert resolve("counting/discrete") == "counting/discrete"
    with pytest.raises(ConfigError, match=f"shows all {len(list_envs())}"):
        resolve("nonsense")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("dmc_walker_walk", "dmc/walker-walk"),
        ("dmc_ball_in_cup_catch", "dmc/ball_in_cup-catch"),
        ("dmc/cup-catch", "dmc/ball_in_cup-catch"),
        ("dmc_cartpole_balance_sparse", "dmc/cartpole-balance_sparse"),
        ("counting", "counting/default"),
        ("PickCube-v1", "maniskill/PickCube-v1"),
        ("maniskill_PickCube_v1", "maniskill/PickCube-v1"),
        ("miniworld_PickupObjects", "miniworld/PickupObjects"),
        ("MiniWorld-PickupObjects-v0", "miniworld/PickupObjects"),
        ("gym:CartPole-v1", "gym:CartPole-v1"),
        ("gym:gymnasium_robotics:AdroitHandDoor-v1", "gym:gymnasium_robotics:AdroitHandDoor-v1"),
        ("gym:ale_py:ALE/Pong-v5", "gym:ale_py:ALE/Pong-v5"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert resolve(alias) == name


def test_every_name_has_an_underscore_alias_of_its_own() -> None:
    aliases = [name.replace("/", "_").replace("-", "_") for name in list_envs()]
    assert [resolve(alias) for alias in aliases] == list_envs()


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown environment 'dmc/walker-wlak'[\s\S]*'dmc/walker-walk'"):
        make(EnvConfig(name="dmc/walker-wlak"), num=1, seed=0, stream="t")


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("dmc/walker-walk", "dmc"),
        ("dmc_walker_walk", "dmc"),
        ("PlugCharger-v1", "maniskill"),
        ("MiniWorld-Hallway-v0", "miniworld"),
        ("gym:ale_py:ALE/Pong-v5", "gym"),
        ("mylab/Corridor", "mylab"),
    ],
)
def test_family(name: str, whose: str) -> None:
    assert family(name) == whose


def test_a_package_cannot_take_a_family_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from mbrl_pvr.envs import names

    for name in ("dmc/mine", "Corridor"):
        point = EntryPoint(name, "mylab:Corridor", names.PLUGINS)
        monkeypatch.setattr(names, "entry_points", lambda group, point=point: [point])
        with pytest.raises(ConfigError, match=rf"'{name}' \(mylab:Corridor\)[\s\S]*FAMILY/TASK"):
            names.plugins.__wrapped__()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action_repeat", 0),
        ("action_repeat", True),
        ("size", 4),
        ("size", 64.0),
        ("num", 0),
        ("camera", -2),
        ("render", "slow"),
        ("reward", "none"),
        ("backend", "glfw"),
        ("shifts", "colour"),
        ("severity", 1.5),
        ("severity", float("nan")),
        ("time_limit", -1.0),
        ("time_limit", float("inf")),
        ("max_steps", 0),
        ("pixels", 1),
        ("factors", ("agent", "sky")),
        ("factors", ()),
        ("name", ""),
    ],
)
def test_config_refuses(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"env.{field}.*{'' if value in ('', ()) else str(value)[:4].strip('(')}"):
        EnvConfig(**{field: value})


def test_names_and_configuration_import_nothing_heavy() -> None:
    code = (
        "import sys; from mbrl_pvr.envs import EnvConfig, list_envs; EnvConfig(); list_envs()\n"
        "print([m for m in ('torch', 'numpy', 'gymnasium', 'mujoco', 'dm_control') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
