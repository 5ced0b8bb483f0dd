"""Rows, means that survive a checkpoint, sinks that may fail, and the display."""

import sys
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from mbrl_pvr.display import Display
from mbrl_pvr.errors import ConfigError, Unavailable
from mbrl_pvr.logger import Logger
from mbrl_pvr.runfolder import RunFolder
from mbrl_pvr.sinks import SINKS, make_sinks


@pytest.fixture
def run(tmp_path):
    with RunFolder.open(tmp_path / "run", {"a": 1}, identity="a", diff=lambda a, b: []) as opened:
        yield opened


class Recorder:
    starts_anew = False

    def __init__(self):
        self.points, self.closed = [], False

    def scalars(self, step, values):
        self.points.append((step, values))

    def close(self):
        self.closed = True


class Broken(Recorder):
    def scalars(self, step, values):
        raise RuntimeError("the server is gone")

    def close(self):
        raise RuntimeError("still gone")


def rows(run, name):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.journal(name).rows()]


def test_a_row_holds_the_means_since_the_last_and_nan_is_null(run):
    sink = Recorder()
    with Logger(run, [sink], frames_per_step=2) as logger:
        logger.flush(5)  # nothing to say, no row
        for value in (1.0, 2.0, 6.0):
            logger.metrics({"train/loss": torch.tensor(value), "train/rate": value / 2})
        logger.metrics({"train/bad": float("nan"), "eval/return": 4})
        logger.flush(10)
        logger.metrics({"train/loss": 7.0})
        logger.flush(20)
    first = {"train/loss": 3.0, "train/rate": 1.5, "eval/return": 4.0}
    assert rows(run, "metrics.jsonl") == [
        {"step": 10, "frame": 20, **first, "train/bad": None},
        {"step": 20, "frame": 40, "train/loss": 7.0},
    ]
    assert [(s, {k: v for k, v in p.items() if k != "time/elapsed"}) for s, p in sink.points] == [
        (10, first),
        (20, {"train/loss": 7.0}),
    ]
    assert sink.closed
    assert all("time/elapsed" in row for row in run.journal("metrics.jsonl").rows())


def test_time_counts_on_from_the_last_row(run):
    for start in (100.0, 1000.0):
        now = [start]
        logger = Logger(run, clock=lambda now=now: now[0])
        now[0] += 7
        logger.metrics({"train/loss": 1.0})
        logger.flush(1)
        now[0] += 2
        logger.episode({"kind": "train", "step": 1, "return": 0.0})
    elapsed = [row["time/elapsed"] for name in ("metrics.jsonl", "episodes.jsonl") for row in run.journal(name).rows()]
    assert elapsed == [7.0, 16.0, 9.0, 18.0]


def test_means_continue_exactly_after_a_checkpoint(run):
    values = [0.1, 1e16, torch.tensor(0.3), float("nan"), 3.0]
    whole, half = Logger(run), Logger(run)
    for value in values:
        whole.metrics({"train/x": value, "train/y": 0.1, "time/speed": 1.0})
    for value in values[:3]:
        half.metrics({"train/x": value, "train/y": 0.1, "time/speed": 1.0})
    state = half.state_dict()
    assert state.keys() == {"train/x", "train/y"}  # no time/ field gets into a checkpoint
    back = Logger(run)
    back.load_state_dict(state)
    for value in values[3:]:
        back.metrics({"train/x": value, "train/y": 0.1})
    assert back.state_dict() == whole.state_dict()


def test_a_failing_sink_never_stops_the_run_and_complains_once_a_minute(run):
    now, said, good = [0.0], [], Recorder()
    logger = Logger(run, [Broken(), good], warn=said.append, clock=lambda: now[0])
    for second in range(150):
        now[0] = float(second)
        logger.metrics({"train/loss": 1.0})
        logger.flush(second)
    logger.close()
    assert said == ["Broken failed, the run goes on: RuntimeError: the server is gone"] * 3
    assert len(good.points) == len(rows(run, "metrics.jsonl")) == 150
    assert good.closed


def test_training_episodes_are_drawn_and_evaluation_episodes_only_kept(run):
    sink = Recorder()
    logger = Logger(run, [sink])
    logger.episode({"kind": "train", "step": 3, "return": 5.0, "length": 3, "success": None})
    logger.episode({"kind": "eval", "step": 3, "return": 6.0, "length": 3, "success": 1.0})
    assert [r["return"] for r in rows(run, "episodes.jsonl")] == [5.0, 6.0]
    assert sink.points[0] == (3, {"episode/return": 5.0, "episode/length": 3})
    assert [p for p in sink.points[1:] if p[1]] == []


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("time/")
    }


def test_tensorboard_has_no_point_twice_after_a_resume(run):
    with Logger(run, make_sinks(["tensorboard"], run)) as logger:
        for step in (10, 20):
            logger.metrics({"train/loss": float(step)})
            logger.flush(step)
            if step == 10:
                committed = run.journal("metrics.jsonl").commit()
        logger.episode({"kind": "train", "step": 20, "return": 5.0})
    run.journal("metrics.jsonl").cut(**committed)
    run.journal("episodes.jsonl").cut(0, 0)
    with Logger(run, make_sinks(["tensorboard"], run)) as logger:
        for step in (20, 30):
            logger.metrics({"train/loss": float(step)})
            logger.flush(step)
        logger.episode({"kind": "train", "step": 30, "return": 6.0})
    assert curves(run.path / "tensorboard") == {
        "train/loss": [(10, 10.0), (20, 20.0), (30, 30.0)],
        "episode/return": [(30, 6.0)],
    }


def test_unknown_and_missing_sinks(run, monkeypatch):
    with pytest.raises(ConfigError, match=r"unknown sink 'tensorbord'(.|\n)*tensorboard"):
        make_sinks(["tensorbord"], run)
    for name in ("wandb", "trackio", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(Unavailable, match=rf'pip install "mbrl-pvr\[{name}\]"'):
            make_sinks([name], run)
    assert set(SINKS) == {"tensorboard", "wandb", "trackio", "mlflow"}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_sinks_that_speak_like_wandb(run, monkeypatch, name):
    said = []
    session = SimpleNamespace(log=lambda values, step: said.append((step, values)), finish=lambda: said.append("end"))
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(init=lambda **k: said.append(k) or session))
    with Logger(run, make_sinks([name], run)) as logger:
        logger.metrics({"train/loss": 2.0})
        logger.flush(7)
    assert (said[0]["project"], said[0]["config"], said[0]["resume"]) == ("mbrl_pvr", {"a": 1}, "allow")
    assert said[1][0] == 7
    assert said[1][1]["train/loss"] == 2.0
    assert said[2:] == ["end"]


def test_mlflow_continues_the_run_of_the_same_identity(run, monkeypatch):
    class Client:
        known, logged = [], []

        def get_experiment_by_name(self, name):
            return SimpleNamespace(experiment_id="7")

        def search_runs(self, experiments, text):
            return [r for r in self.known if run.identity in text]

        def create_run(self, experiment, tags, run_name):
            self.known.append(SimpleNamespace(info=SimpleNamespace(run_id=f"r{len(self.known)}")))
            return self.known[-1]

        def log_metric(self, number, name, value, step):
            self.logged.append((number, name, value, step))

        def set_terminated(self, number):
            pass

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    for step in (1, 2):
        with Logger(run, make_sinks(["mlflow"], run)) as logger:
            logger.metrics({"train/loss": 1.0})
            logger.flush(step)
    losses = [entry for entry in Client.logged if entry[1] == "train/loss"]
    assert losses == [("r0", "train/loss", 1.0, 1), ("r0", "train/loss", 1.0, 2)]


def test_progress_without_a_terminal_is_a_plain_line_now_and_then():
    now, out = [0.0], StringIO()
    display = Display(Console(file=out, force_terminal=False), clock=lambda: now[0])
    for step in range(0, 101):
        now[0] = float(step)
        display.note({"step": step, "eval/return": 12.5})
        display.progress(step, 100)
    display.close()
    lines = out.getvalue().splitlines()
    assert lines == [
        "step 30/100 · 1.0 steps/s · 0:01:10 left · eval return 12.5",
        "step 60/100 · 1.0 steps/s · 0:00:40 left · eval return 12.5",
        "step 90/100 · 1.0 steps/s · 0:00:10 left · eval return 12.5",
        "step 100/100 · 1.0 steps/s · 0:00:00 left · eval return 12.5",
    ]


def test_progress_in_a_terminal_is_a_bar_with_time_left():
    now, out = [0.0], StringIO()
    display = Display(Console(file=out, force_terminal=True, width=100), clock=lambda: now[0])
    for step in (0, 1800):
        now[0] = step / 2
        display.progress(step, 7200)
    display.close()
    assert "1800/7200" in out.getvalue()
    assert "0:45:00 left" in out.getvalue()


def test_the_heartbeat_follows_the_progress(run):
    Logger(run).progress(3, 10)
    assert (run.status["state"], run.status["step"]) == ("running", 3)
