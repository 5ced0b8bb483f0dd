"""ManiSkill: its tasks as the table has them, episodes that follow from their seed, the five actions, refusals."""

import ast
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mbrl_pvr.envs import EnvConfig, VectorEnv, list_envs, make, vulkan
from mbrl_pvr.envs.names import MANISKILL_SPARSE, MANISKILL_TASKS, TERMINATING
from mbrl_pvr.errors import ConfigError, EnvError, Unavailable

pytestmark = pytest.mark.xdist_group("maniskill")  # one process of the suite, or each would start workers of its own
TCP = slice(19, 26)  # of PickCube's state: position and quaternion of the gripper
REST = np.zeros((1, 5), np.float32)


def open_task(task: str, **config) -> VectorEnv:
    timeout = config.pop("start_timeout", 500)  # shaders are compiled, on a busy machine too
    reward = "sparse" if task in MANISKILL_SPARSE else "dense"
    settings = EnvConfig(name=f"maniskill/{task}", **{"size": 64, "action_repeat": 1, "reward": reward, **config})
    return make(settings, num=1, seed=5, stream="t", start_timeout=timeout)


@pytest.fixture(scope="module")
def pick(maniskill: None) -> Iterator[VectorEnv]:
    """One worker for all tests that draw: the first picture of a process takes up to a minute."""
    with open_task("PickCube-v1", proprio=True) as envs:
        yield envs


@pytest.fixture(scope="module")
def peg(maniskill: None) -> Iterator[VectorEnv]:
    """Nothing is drawn in it. Peg and box have another shape in each episode."""
    with open_task("PegInsertionSide-v1", proprio=True, pixels=False) as envs:
        yield envs


def act(*action: float) -> np.ndarray:
    return np.array([action], np.float32)


def play(envs: VectorEnv, episode: int, actions: np.ndarray) -> list:
    return [envs.reset(episode=episode), *(envs.step(action[None]) for action in actions)]


def _tasks() -> dict[str, tuple[set[str], set[str]]]:
    """Of the simulator's sources, read and not run: task -> robots and kinds of reward that it names."""
    spec = importlib.util.find_spec("mani_skill")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "envs" / "tasks"
    classes: dict[str, ast.ClassDef] = {}
    for file in sorted(folder.rglob("*.py")):
        classes |= {node.name: node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)}

    def said(name: str, field: str) -> set[str]:
        for line in classes[name].body:
            target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
            if isinstance(target, ast.Name) and target.id == field:
                return {c.value for c in ast.walk(line) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name) and base.id in classes]
        return said(bases[0], field) if bases else set()

    found = {}
    for name, node in classes.items():
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "register_env":
                task = ast.literal_eval(mark.args[0])
                found[task] = (said(name, "SUPPORTED_ROBOTS"), said(name, "SUPPORTED_REWARD_MODES"))
    return found


def test_table_is_the_simulators() -> None:
    """Every task of one Panda arm with a gripper; scenes without a task and variants of other robots are left out."""
    registered = _tasks()
    assert len(registered) > 50
    alone = {task for task, (robots, _) in registered.items() if robots & {"panda", "panda_wristcam"}}
    others = {task for task in alone if "SceneManipulation" in task or task.startswith(("TwoRobot", "PickCube"))}
    assert sorted(alone - others | {"PickCube-v1"}) == sorted(MANISKILL_TASKS)
    assert [name.partition("/")[2] for name in list_envs("maniskill/*")] == sorted(MANISKILL_TASKS)
    from mbrl_pvr.envs.maniskill_rewards import STAND_INS

    # a task that says nothing has all kinds
    dense = {task for task in MANISKILL_TASKS if not registered[task][1] or "normalized_dense" in registered[task][1]}
    assert set(MANISKILL_TASKS) - dense == {*MANISKILL_SPARSE, *STAND_INS}
    assert not any(name.startswith("maniskill/") for name in TERMINATING)


def test_pick_cube(pick: VectorEnv) -> None:
    assert (pick.action_spec.dim, pick.action_spec.discrete) == (5, False)
    assert (pick.max_episode_steps, pick.proprio_dim, pick.fps) == (200, 42, 20)
    names = pick.call("proprio_names")[0]
    assert len(names) == 42 == len(set(names)) and names[0] == "qpos 0" and "obj_pose 6" in names
    step = pick.reset(episode=0)
    assert step.frame.shape == (1, 64, 64, 3) and step.frame.std() > 10
    red = (step.frame[0].astype(int) @ np.array([2, -1, -1])).max()
    assert step.success.tolist() == [0.0] and step.proprio.shape == (1, 42) and red > 200  # the cube is in sight
    assert "torch" in pick.loaded_modules()[0]  # of the simulator; other families have none


def test_nothing_that_the_simulator_warns_about_is_kept(pick: VectorEnv) -> None:
    pick.reset(episode=0)
    assert "WARNING - No initial pose" not in pick._workers[0].last_words()


@pytest.mark.parametrize("name", ["pick", "peg"])
def test_an_episode_is_a_function_of_its_number(name: str, request: pytest.FixtureRequest, same) -> None:
    """Bit for bit, whatever was played in between: contacts of another episode leave nothing behind."""
    envs = request.getfixturevalue(name)
    actions = np.random.default_rng(0).uniform(-1, 1, (15, 5)) * (1, 1, 0.5, 1, 1) - (0, 0, 0.5, 0, 0)
    once, other, again = (play(envs, episode, actions) for episode in (3, 4, 3))
    for a, b in zip(once, again, strict=True):
        same(a, b)
    assert (once[0].proprio != other[0].proprio).any()
    if name == "pick":
        assert (once[0].frame != other[0].frame).any() and (once[-1].frame != once[0].frame).any()


def test_pictures_of_one_moment_are_equal_and_of_other_sizes_drawn(pick: VectorEnv) -> None:
    small = pick.reset(episode=0).frame[0].astype(float)
    np.testing.assert_array_equal(pick.render()[0], small)
    large = pick.render(256)[0].astype(float).reshape(64, 4, 64, 4, 3)
    assert np.abs(large.mean((1, 3)) - small).mean() < 12 and large.std((1, 3)).mean() > 1
    np.testing.assert_array_equal(pick.render(64)[0], small)


def test_a_restored_episode_goes_on_as_if_never_left(peg: VectorEnv, same) -> None:
    actions = np.random.default_rng(1).uniform(-1, 1, (8, 5)).astype(np.float32)
    play(peg, 1, actions[:6])
    state = peg.get_state()
    after = [peg.step(action[None]) for action in actions[6:]]
    peg.reset(episode=2)
    assert peg.set_state(state) == [True]
    for one, action in zip(after, actions[6:], strict=True):
        same(one, peg.step(action[None]))
    state[0]["actions"][0] = [0.0] * 5
    assert peg.set_state(state) == [False]


def test_a_moment_is_gone_to_from_another_episode(pick: VectorEnv) -> None:
    play(pick, 0, np.tile(act(0.3, 0.2, -0.4, 0.5, -1), (6, 1)))
    moment, picture, seen = (pick.call(name)[0] for name in ("get_sim_state", "frame", "proprio"))
    after = pick.step(act(0.1, 0, 0, 0, 1))
    play(pick, 7, REST)
    assert (pick.call("frame")[0] != picture).any()
    pick.call("set_sim_state", moment)
    np.testing.assert_allclose(pick.call("get_sim_state")[0], moment, rtol=0, atol=1e-6)
    np.testing.assert_allclose(pick.call("proprio")[0], seen, atol=1e-5)
    assert np.abs(pick.call("frame")[0].astype(int) - picture).mean() < 0.1
    np.testing.assert_allclose(pick.step(act(0.1, 0, 0, 0, 1)).proprio, after.proprio, atol=1e-3)


def test_shapes_come_back_with_a_moment_of_another_episode(peg: VectorEnv) -> None:
    first = peg.reset(episode=0).proprio
    moment = peg.call("get_sim_state")[0]
    assert (np.abs(peg.reset(episode=1).proprio - first) > 1e-4).any()
    peg.call("set_sim_state", moment)
    np.testing.assert_allclose(peg.call("proprio")[0], first[0], atol=1e-5)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_an_action_moves_the_gripper_and_holds_its_rotation(pick: VectorEnv, axis: int, sign: float) -> None:
    pick.reset(episode=0)
    start = pick.step(REST).proprio[0, TCP]
    push = REST.copy()
    push[0, axis] = sign * 0.4
    for _ in range(4):
        pick.step(push)
    for _ in range(6):
        end = pick.step(REST).proprio[0, TCP]
    moved = end[:3] - start[:3]
    assert moved[axis] == pytest.approx(sign * 0.08, abs=0.02)  # 4 × 0.4 × 5 cm
    assert np.abs(np.delete(moved, axis)).max() < 0.02
    assert _tilt(end) < 0.05


def test_an_action_turns_the_gripper_about_the_vertical(pick: VectorEnv) -> None:
    pick.reset(episode=0)
    start = pick.step(REST).proprio[0, TCP]
    for _ in range(5):
        pick.step(act(0, 0, 0, 1, 0))
    for _ in range(6):
        end = pick.step(REST).proprio[0, TCP]
    assert _yaw(end) - _yaw(start) == pytest.approx(0.5, abs=0.1)
    assert _tilt(end) < 0.05 and np.abs(end[:3] - start[:3]).max() < 0.02


def test_the_gripper_closes_and_opens(pick: VectorEnv) -> None:
    pick.reset(episode=0)
    widths = []
    for grip in (1, -1, 1):
        for _ in range(8):
            step = pick.step(act(0, 0, 0, 0, grip))
        widths.append(step.proprio[0, 7:9].sum())
    assert widths[1] < 0.01 < 0.07 < min(widths[0], widths[2])


def test_a_blocked_arm_winds_up_little(pick: VectorEnv) -> None:
    """Pressed onto the table for two seconds, it lifts off within a few steps."""
    pick.reset(episode=0)
    for _ in range(40):
        down = pick.step(act(0, 0, -1, 0, -1)).proprio[0, TCP]
    for _ in range(5):
        up = pick.step(act(0, 0, 1, 0, -1)).proprio[0, TCP]
    assert up[2] > down[2] + 0.05


def test_the_time_limit_truncates_and_rewards_are_at_most_one(maniskill: None) -> None:
    with open_task("PushCube-v1", pixels=False, action_repeat=8) as envs:
        step, rewards = envs.reset(), []
        assert envs.max_episode_steps == 25
        while not step.is_last[0]:
            step = envs.step(REST)
            rewards.append(float(step.reward[0]))
        assert len(rewards) == 25 and not step.is_terminal[0] and step.success[0] == 0
        assert 0 < max(rewards) < 8  # of eight steps


def _tilt(pose: np.ndarray) -> float:
    """Sine of the angle between the gripper's axis and the vertical."""
    _, x, y, _ = pose[3:]
    return float(np.sqrt(max(0.0, 1 - (1 - 2 * (x * x + y * y)) ** 2)))


def _yaw(pose: np.ndarray) -> float:
    w, x, y, z = pose[3:]
    return float(np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shifts": "video"}, r"env\.shifts=video means nothing in maniskill/PickCube-v1"),
        ({"camera": 1}, r"env\.camera=1 .*camera at the wrist"),
        ({"time_limit": 2.0}, r"env\.time_limit=2\.0 [\s\S]*env\.max_steps"),
        ({"render": "fast"}, r"env\.render=fast [\s\S]*env\.render=standard"),
        ({"backend": "osmesa"}, r"env\.backend=osmesa .*Vulkan"),
    ],
)
def test_what_means_nothing_is_refused_before_a_worker_starts(
    config: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbrl_pvr.envs.vector.VectorEnv", None)
    with pytest.raises(ConfigError, match=words):
        open_task("PickCube-v1", **config)


def test_a_reward_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbrl_pvr.envs.vector.VectorEnv", None)
    with pytest.raises(ConfigError, match=r"StackPyramid-v1 has no dense reward[\s\S]*env\.reward=sparse"):
        open_task("StackPyramid-v1", reward="dense")
    with pytest.raises(ConfigError, match=r"env\.reward=sparse means nothing in miniworld/Hallway"):
        make(EnvConfig(name="miniworld/Hallway", action_repeat=1, reward="sparse"), seed=0, stream="t")


def test_no_driver_is_an_error_with_the_line_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in vulkan._OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(vulkan, "_SYSTEM", ())
    monkeypatch.setenv("MBRL_PVR_MESA", str(tmp_path))
    assert vulkan.find() is None
    with pytest.raises(EnvError) as caught:
        vulkan.select()
    assert caught.value.what == "ManiSkill cannot draw: no Vulkan driver found"
    assert caught.value.hint.startswith("Run: make setup-maniskill ")


def test_which_driver_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in vulkan._OWN:
        monkeypatch.delenv(name, raising=False)
    system, mesa, gpu = tmp_path / "icd.d", tmp_path / "mesa", tmp_path / "nvidiactl"
    system.mkdir()
    monkeypatch.setattr(vulkan, "_SYSTEM", (str(system),))
    monkeypatch.setattr(vulkan, "_GPU", gpu)
    monkeypatch.setenv("MBRL_PVR_MESA", str(mesa))
    (system / "lvp_icd.x86_64.json").touch()
    (system / "nvidia_icd.json").touch()
    assert vulkan.find() == ("cpu", str(system / "lvp_icd.x86_64.json"), None)  # no GPU, whatever is installed
    mesa.mkdir()
    (mesa / "lvp_icd.json").touch()
    assert vulkan.find() == ("cpu", str(mesa / "lvp_icd.json"), mesa)
    monkeypatch.setenv("VK_DRIVER_FILES", str(mesa / "lvp_icd.json"))
    assert vulkan.find() == ("cpu", str(mesa / "lvp_icd.json"), mesa)  # of a process that has selected it
    monkeypatch.delenv("VK_DRIVER_FILES")
    gpu.touch()
    assert vulkan.find() == ("cuda", str(system / "nvidia_icd.json"), None)
    monkeypatch.setenv("VK_DRIVER_FILES", "/my/lvp.json")
    assert vulkan.find() == ("cpu", "/my/lvp.json", None)


def test_a_driver_that_does_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in vulkan._OWN:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libvulkan_lvp.so").write_text("no library")
    (tmp_path / "lvp_icd.json").touch()
    monkeypatch.setattr(vulkan, "_SYSTEM", ())
    monkeypatch.setenv("MBRL_PVR_MESA", str(tmp_path))
    with pytest.raises(EnvError, match=r"cannot draw: .*libvulkan_lvp\.so: [\s\S]*make setup-maniskill"):
        vulkan.select()
    assert not any(name in os.environ for name in vulkan._OWN)  # processes that are started later look for themselves


def test_a_driver_that_the_simulator_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in vulkan._OWN:
        monkeypatch.setenv(name, str(tmp_path / "none.json"))
    with pytest.raises(
        EnvError, match=r"ManiSkill cannot draw: [\s\S]*none\.json[\s\S]*make setup-maniskill"
    ) as caught:
        open_task("PickCube-v1")
    assert "VK_DRIVER_FILES and VK_ICD_FILENAMES names the driver: unset it" in caught.value.hint
    assert caught.value.where == "maniskill/PickCube-v1, env 0 of 1"


def test_a_driver_that_hangs_is_given_up(maniskill: None) -> None:
    with pytest.raises(EnvError, match=r"no answer within 0 s while .* with Vulkan \(.*make setup-maniskill\)"):
        open_task("PickCube-v1", start_timeout=0.01)


def test_missing_files_are_named_and_nothing_is_asked(
    maniskill: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    (tmp_path / "data" / "assets" / "mani_skill2_ycb").mkdir(parents=True)  # what a download that failed leaves
    with pytest.raises(Unavailable) as caught:
        open_task("PickClutterYCB-v1")
    assert "'pick_clutter_ycb_configs' and 1 more are not here" in caught.value.what
    assert "26 MB" in caught.value.what and str(tmp_path) in caught.value.what
    assert "python -m mani_skill.utils.download_asset -y PickClutterYCB-v1" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("name", list_envs("maniskill/*"))
def test_every_listed_environment_steps_and_draws(maniskill: None, name: str) -> None:
    try:
        envs = open_task(name.partition("/")[2], proprio=True)
    except Unavailable as error:
        assert "download_asset" in error.hint
        pytest.skip(error.what)
    with envs:
        first = envs.reset()
        step = envs.step(act(0.5, 0.5, -0.5, 0.5, 0))
        assert first.frame.std() > 5 and (step.frame != first.frame).any()
