"""What a plan says: measured once for each kind of work, times what there is to do, refused where it cannot fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr.cli.main import main
from mbrl_pvr.config import load_config
from mbrl_pvr.study import measure, plan
from mbrl_pvr.study.cells import Study, load_study
from mbrl_pvr.study.file import Resources
from mbrl_pvr.study.local import GIB, Local
from mbrl_pvr.study.measure import Measured, shortened

KNOWN = Measured(
    start=10.0,
    step=0.5,
    play=0.01,
    episode_length=20,
    learner=GIB,
    worker=GIB // 10,
    checkpoint=GIB,
    replay_row=float(GIB // 1000),
    gpu=None,
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in place of the measurement; the configurations that it was asked for."""
    asked: list[Any] = []

    def known(config: Any, resources: Resources, gpus: Any) -> Measured:
        asked.append(config)
        return KNOWN

    monkeypatch.setattr(plan, "measure", known)
    return asked


def test_a_plan_multiplies_what_was_measured(study: Study, measured: list[Any], tmp_path: Path) -> None:
    found = plan.plan(study, Local(2), tmp_path / "dir")
    assert len(measured) == 1  # seeds and learning rates cost the same
    recorded, trained, _ = found.kinds
    evaluations = 1 + 2  # at the start, and every 100 of 120 steps and at the end
    train = 10 + 120 * 0.5 + evaluations * 1 * 20 * 0.01
    assert trained.run_hours == pytest.approx(train / 3600)
    assert recorded.run_hours == pytest.approx((train + 10 + 2 * 20 * 0.01) / 3600)  # a recorded step counts twice
    assert (recorded.runs, trained.runs, found.runs) == (2, 1, 4)
    assert found.worker_hours == pytest.approx((4 * train + 2 * (10 + 0.4)) / 3600)
    assert found.hours == pytest.approx(found.worker_hours / 2)
    assert recorded.memory_gib == pytest.approx(1 + 2 * 0.1 + 0.12, rel=1e-3)
    assert recorded.disk_gib == pytest.approx(0.12 + 2, rel=1e-3)
    assert found.disk_gib == pytest.approx(4 * 2.12, rel=1e-3)


def test_what_cannot_fit_is_told_with_numbers(study: Study, measured: list[Any], tmp_path: Path) -> None:
    found = plan.plan(study, Local(1), tmp_path / "dir")  # resources.memory is 0.1
    assert "takes 1.3 GiB of memory, resources.memory gives it 0.1" in found.problems[0]
    roomy = replace(study, kinds=[replace(k, resources=Resources(memory=4)) for k in study.kinds])
    assert plan.plan(roomy, Local(1), tmp_path / "dir").problems == []
    many = replace(roomy, runs=[replace(roomy.runs[0], seed=seed) for seed in range(10**4)])
    (problem,) = plan.plan(many, Local(1), tmp_path / "dir").problems
    assert problem.startswith("all runs take 21,2") and "GiB of disk" in problem


def test_without_measuring_runs_and_replay_are_counted(
    tiny: Path, measured: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "plan", str(tiny), "--no-measure", "--debug", "--dir", str(tmp_path / "dir")]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["hours"], len(told["kinds"])) == (4, None, 3)
    assert told["kinds"][0]["replay_gib"] == pytest.approx(120 * 531 / GIB, rel=0.05)
    assert measured == [] and not (tmp_path / "dir").exists()
    assert main(command[:-2]) == 0
    assert "study tiny: 4 runs" in capsys.readouterr().out


def test_a_plan_that_does_not_fit_is_printed_and_refused(
    tiny: Path, measured: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "plan", str(tiny), "--debug"]) == 2
    told = capsys.readouterr()
    assert "study tiny: 4 runs" in told.out and "resources.memory gives it 0.1" in told.err


def test_a_run_that_this_machine_does_not_hold_is_refused_before_any_is_measured(
    tiny: Path, measured: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(tiny.read_text().replace("    stages: {}", "    resources: {cores: 999}"))
    assert main(["study", "plan", str(tiny), "--debug"]) == 2 and measured == []
    assert "a run takes resources.cores=999" in (told := capsys.readouterr().err) and "(part more, resources)" in told


def test_weights_that_are_not_here_are_told_and_replaced_by_random_ones(
    tmp_path: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "try_start", lambda config, path: ["https://example.invalid/vc1.pt"])
    path = tmp_path / "one.yaml"
    path.write_text("parts: {main: {grid: {agent: [tdmpc2_tiny], encoder: [vc1_vitb]}}}")
    found = plan.plan(load_study(path), Local(1), tmp_path / "dir")
    assert found.to_fetch == ["https://example.invalid/vc1.pt"]
    assert [config.encoder.name for config in measured] == ["random:vc1_vitb"]


@pytest.mark.parametrize("agent", ["tdmpc2", "dreamerv3_study", "tdmpc2_tiny"])
def test_the_short_run_does_the_same_work(agent: str) -> None:
    """And it is long enough to see updates after its random steps."""
    config = load_config([f"agent={agent}", "env.num=4", "updates_per_step=0.125", "steps=1000000"])
    short = shortened(config, Resources(cores=3))
    assert short.steps < 2000 and short.threads == 3
    learning = short.steps - short.random_steps
    assert learning * short.updates_per_step >= measure.UPDATES and learning % (measure.ROWS * config.env.num) == 0
    assert short.random_steps > (config.agent.sequence_steps - 1) * config.env.num
    assert (short.agent, short.encoder, short.updates_per_step) == (config.agent, config.encoder, 0.125)


def test_seconds_are_those_of_the_later_half() -> None:
    config = replace(load_config(["agent=tdmpc2_tiny", "log_every=10"]), random_steps=20, steps=60)
    parts = {"time/plan": 0.2, "time/encode": 0.3, "time/env": 0.1}
    elapsed = {10: 1.0, 20: 2.0, 30: 8.0, 40: 9.0, 50: 11.0, 60: 13.0}
    rows = [{"step": s, "time/elapsed": t, **parts, "time/env": 1.0 if s <= 20 else 0.1} for s, t in elapsed.items()]
    start, step, play = measure._seconds(rows, config, wall=20.0)
    assert step == pytest.approx(0.2)
    assert play == pytest.approx(1.0 / 10 + 0.05)  # the simulator's own time, not what is left of it beside updates
    assert start == pytest.approx(20 - 60 * 0.2)


def test_a_kind_is_measured_by_training_it(study: Study) -> None:
    found = measure.measure(study.config(study.runs[0]), Resources(cores=1, memory=1))
    assert found.step > found.play > 0 and found.start > 0 and found.gpu is None
    assert found.episode_length == 12  # of the counting environment
    assert 4e9 > found.learner > 100e6 > found.worker > 1e6
    assert found.checkpoint > 10_000 and found.replay_row > 500
