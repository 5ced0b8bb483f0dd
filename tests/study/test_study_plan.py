"""What a plan says: measured once for each kind of work, times what there is to do, refused where it cannot fit."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbrl_pvr import bank_making
from mbrl_pvr.cli.main import main
from mbrl_pvr.config import load_config
from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.study import measure, plan
from mbrl_pvr.study.cells import Study, load_study
from mbrl_pvr.study.file import OodStage, RecordStage, Resources, Stages
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
    record_step=GIB / 100,
    record_ahead=GIB / 1000,
    film_step=GIB / 2000,
    drawn_step=GIB / 500,
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in place of the measurement; the configurations that it was asked for."""
    asked: list[Any] = []

    def known(config: Any, resources: Resources, gpus: Any, stages: Stages) -> Measured:
        asked.append(config)
        return KNOWN

    monkeypatch.setattr(plan, "measure", known)
    return asked


def test_a_plan_multiplies_what_was_measured(study: Study, measured: list[Any], tmp_path: Path) -> None:
    found = plan.plan(study, Local(2), tmp_path / "dir")
    assert len(measured) == 2  # seeds and learning rates cost the same; one is not recorded
    recorded, trained, _ = found.kinds
    evaluations = 1 + 2  # at the start, and every 100 of 120 steps and at the end
    train = 10 + 120 * 0.5 + evaluations * 1 * 20 * 0.01
    assert trained.run_hours == pytest.approx(train / 3600)
    assert recorded.run_hours == pytest.approx((train + 10 + 2 * 20 * 0.01) / 3600)  # a recorded step counts twice
    assert (recorded.runs, trained.runs, found.runs) == (2, 1, 4)
    assert found.worker_hours == pytest.approx((4 * train + 2 * (10 + 0.4)) / 3600)
    assert found.hours == pytest.approx(found.worker_hours / 2)
    assert recorded.memory_gib == pytest.approx(1 + 2 * 0.1 + 0.12, rel=1e-3)
    assert trained.disk_gib == pytest.approx(0.12 + 2, rel=1e-3)
    record = 20 * 0.01 + 2 * 3 * 0.001 + 20 * 0.002  # one episode, two start points, and what the agent draws
    assert recorded.disk_gib == pytest.approx(2.12 + record, rel=1e-3)
    assert found.disk_gib == pytest.approx(4 * 2.12 + 2 * record, rel=1e-3)


def test_the_disk_holds_no_more_of_replay_than_its_capacity_and_what_is_recorded_and_filmed(
    study: Study, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    task = EnvConfig("dmc/pendulum-swingup", render="fast", max_steps=2)
    bank_making.make_bank(task, bank, episodes=1, shifts=["color_hard"])
    config, gib = study.config(study.runs[0]), KNOWN
    small = replace(config, replay=replace(config.replay, capacity=50))
    assert plan._disk_bytes(small, Stages(), gib) / GIB == pytest.approx(0.05 + 2, rel=1e-3)
    films = replace(config, eval=replace(config.eval, video=True))
    assert plan._disk_bytes(films, Stages(), gib) / GIB == pytest.approx(2.12 + 3 * 20 / 2000, rel=1e-3)
    shifts = OodStage(episodes=5, shifts=("blur", "noise"), severities=(0.3, 1.0))
    looks = 2 * (1 + 2 * 2)  # each alone, and all of them side by side
    assert plan._disk_bytes(config, Stages(ood=shifts), gib) / GIB == pytest.approx(2.12 + looks * 20 / 2000, rel=1e-3)
    assert plan._disk_bytes(config, Stages(ood=replace(shifts, video=False)), gib) / GIB == pytest.approx(
        2.12, rel=1e-3
    )
    record = RecordStage(episodes=6, starts=2, horizon=3, bank=str(bank))
    of_bank = 2 * 6 * (20 * 0.01 + 2 * 3 * 0.001) + 4 * 20 * 0.002  # plain and one shift; four episodes are drawn
    assert plan._disk_bytes(config, Stages(record=record), gib) / GIB == pytest.approx(2.12 + of_bank, rel=1e-3)
    dreamer = load_config(["agent=dreamerv3_tiny", "steps=2000", "env.size=64"])
    assert dreamer.agent.carried > 0  # in replay and in every checkpoint
    carried = 2 * 2000 * 2 * dreamer.agent.carried
    bare = replace(gib, checkpoint=0, replay_row=0.0, film_step=0.0)
    assert plan._disk_bytes(dreamer, Stages(), bare) == carried


def test_what_cannot_fit_is_told_with_numbers(study: Study, measured: list[Any], tmp_path: Path) -> None:
    found = plan.plan(study, Local(1), tmp_path / "dir")  # resources.memory is 0.1
    assert "takes 1.3 GiB of memory, resources.memory gives it 0.1" in found.problems[0]
    roomy = replace(study, kinds=[replace(k, resources=Resources(memory=4)) for k in study.kinds])
    assert plan.plan(roomy, Local(1), tmp_path / "dir").problems == []
    many = replace(roomy, runs=[replace(roomy.runs[0], seed=seed) for seed in range(10**4)])
    (problem,) = plan.plan(many, Local(1), tmp_path / "dir").problems
    assert problem.startswith("all runs take 23,6") and "GiB of disk" in problem


@pytest.mark.parametrize(
    ("share", "taken", "told"),
    [
        (1.0, 7.9, None),
        (1.0, 8.1, "takes 8.1 GiB of GPU memory, resources.gpu=1 gives it 8.0"),
        (0.5, 4.1, "takes 4.1 GiB of GPU memory, resources.gpu=0.5 gives it 4.0"),
        (0.5, 3.9, None),
        (2.0, 15.9, None),  # of two GPUs, which have 16 together
    ],
)
def test_gpu_memory_is_shown_and_refused_with_numbers(
    share: float,
    taken: float,
    told: str | None,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    total = 8 * max(int(share), 1)
    found = replace(KNOWN, gpu=int(taken * GIB), gpu_total=total * GIB)
    monkeypatch.setattr(plan, "measure", lambda *_: found)
    tiny.write_text(tiny.read_text().replace("memory: 0.1", f"memory: 1.5, gpu: {share}"))
    assert main(["study", "plan", str(tiny), "--debug"]) == (2 if told else 0)
    out, err = capsys.readouterr()
    assert "GPU" in out.splitlines()[0] and f"{taken:.1f} of {total * min(share, 1):.1f}" in out
    assert (told or "") in err and ("GPU memory" in err) == (told is not None)


def test_gpu_memory_is_asked_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text('#!/bin/sh\ncase "$*" in *--id=0,3*memory.total*) printf "16384\\n8192\\n";; *) exit 1;; esac\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert measure._gpu_memory(["0", "3"], "total") == 24 * GIB


def test_without_measuring_a_study_for_a_larger_machine_is_planned(
    tiny: Path, measured: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(tiny.read_text().replace("    stages: {}", "    resources: {cores: 999, gpu: 1}"))
    assert main(["study", "plan", str(tiny), "--debug"]) == 2 and measured == []
    assert "resources.cores=999" in capsys.readouterr().err
    assert main(["study", "plan", str(tiny), "--debug", "--no-measure"]) == 0
    told = capsys.readouterr().out
    assert "study tiny: 4 runs" in told and "replay" in told.splitlines()[0] and "disk" not in told.splitlines()[0]
    assert "does not fit this machine: part more: a run takes resources.cores=999, this machine has" in told
    small = load_study(tiny, debug=True)
    endless = {**small.kinds[0].config, "steps": 10**9, "replay": {"capacity": 10**9}}
    big = replace(small, kinds=[replace(small.kinds[0], config=endless)], runs=small.runs[:1])
    found = plan.plan(big, Local(1), tmp_path / "dir", measured=False)
    assert any("replay of all runs takes" in note for note in found.notes)
    assert any("GB of memory are available" in note for note in found.notes)
    assert not any("disk" in problem for problem in found.problems)


def test_without_measuring_what_is_wrong_on_any_machine_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*_: Any) -> list[str]:
        raise ConfigError("these settings never go together", "agent.horizon")

    monkeypatch.setattr(plan, "try_start", wrong)
    assert main(["study", "plan", str(tiny), "--debug", "--no-measure"]) == 2
    assert "these settings never go together" in capsys.readouterr().err


def test_kinds_that_look_alike_are_told_apart(
    tmp_path: Path, measured: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "atlas.yaml"
    path.write_text(
        "parts:\n"
        "  main: {grid: {agent: [tdmpc2_tiny], encoder: [random_resnet18], encoder.truncate: [1, 2], seed: [1, 2]}}\n"
        "  other: {grid: {agent: [tdmpc2_tiny], encoder: [embedded, state], seed: [1, 2]}}\n"
    )
    assert main(["study", "plan", str(path), "--no-measure"]) == 0
    head, first, second, third, fourth, *_ = capsys.readouterr().out.splitlines()
    assert "settings" in head.split()
    assert "encoder.truncate=1" in first and "encoder.truncate=2" in second and "seed" not in first
    assert "encoder" not in third and "encoder" not in fourth  # their columns tell them apart


@pytest.mark.parametrize(
    ("part", "make"),
    [
        ("{grid: {encoder: [absent/ae.safetensors]}}", "pretrain autoencoder env=NAME --out"),
        (
            "{grid: {encoder: [state]}, stages: {record: {bank: absent/bank}}}",
            "bank make env=dmc/cartpole-swingup --dir",
        ),
    ],
)
def test_files_that_are_missing_are_told_with_the_part_and_what_makes_them(
    part: str, make: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "absent.yaml"
    path.write_text(
        f"set: {{env: dmc/cartpole-swingup}}\nparts: {{here: {{grid: {{encoder: [state]}}}}, away: {part}}}\n"
    )
    assert main(["study", "plan", str(path), "--no-measure"]) == 8
    told = capsys.readouterr().err
    assert "part away" in told and make in told and "absent/" in told.split(make)[1] and "--part NAME" in told
    assert main(["study", "plan", str(path), "--no-measure", "--part", "here"]) == 0


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
    config = study.config(study.runs[0])
    stages = Stages(OodStage(episodes=1, shifts=("noise",)), RecordStage(episodes=7, starts=5, horizon=20))
    found = measure.measure(config, Resources(cores=1, memory=1), stages=stages)
    assert found.step > found.play > 0 and found.start > 0 and found.gpu is None
    assert found.episode_length == 12  # of the counting environment
    assert 4e9 > found.learner > 100e6 > found.worker > 1e6
    assert found.checkpoint > 10_000 and found.replay_row > 500
    assert found.record_ahead == 4 * (config.agent.widths.latent_dim + 1)  # latents and rewards, float32
    assert found.record_step > 100 and found.film_step > 100 and found.drawn_step == 0  # it draws nothing
