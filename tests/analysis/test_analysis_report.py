"""The report: what it says of known runs, that it needs nothing from elsewhere, stays small, and that names stay text.

A real browser opens it in test_analysis_report_browser.py.
"""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

import analysis
from analysis import latents as space
from analysis.errors import AnalysisError
from analysis.figures import style
from analysis.records import read_frames, read_states
from analysis.report import explorer, overview, page, plots
from analysis.runs import load_run
from analysis.tables import Options

PAYLOAD = "</script><script>alert(1)</script>&\"'<b>%{x}{{ 7*7 }}"
FOLDER = PAYLOAD.replace("/", "")


class Page(HTMLParser):
    """Elements with their attributes and the text in them up to the next tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.text, self._inside = path.read_text(), False
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.elements[-1][2].append(data)

    def texts(self, tag: str) -> list[str]:
        return ["".join(inside).strip() for name, _, inside in self.elements if name == tag]

    def scripts(self, kind: str | None) -> list[str]:
        return ["".join(text) for name, have, text in self.elements if name == "script" and have.get("type") == kind]

    def clouds(self) -> list[dict[str, Any]]:
        return [one for one in map(json.loads, self.scripts("application/json")) if "frames" in one]


@pytest.fixture
def small(make_run: Any, add_frames: Any, synthetic: Any) -> Any:
    """Runs whose recorded episodes are short, with pictures unless told otherwise."""

    def make(name: str = "run", *args: Any, frames: bool = True, **kwargs: Any) -> Path:
        run = make_run(name, *args, parts=("ood",), **kwargs)
        np.savez(run / "latents.npz", **synthetic["latents"](np.random.default_rng(1), episodes=3, steps=25, dims=8))
        if frames:
            add_frames(run)
        return Path(run)

    return make


def test_points_carry_what_was_recorded(small: Any, tmp_path: Path) -> None:
    run = small()
    made = analysis.write_report([run], tmp_path / "out", options=Options(max_points=40))
    assert made["page"] == tmp_path / "out" / "report.html"
    assert {"returns", "ood", "dynamics", "errors", "latents"} <= set(made["figures"])
    (cloud,) = Page(made["page"]).clouds()
    with np.load(run / "latents.npz") as stored:
        arrays = dict(stored)
    place = (np.array(cloud["episode"]), np.array(cloud["time"]))
    assert len(set(zip(*place, strict=True))) == 40 and min(place[1]) >= 1, "the first step of an episode has no reward"
    for name, array in (("reward", "reward_true"), ("predicted", "reward_pred"), ("value", "value")):
        np.testing.assert_allclose(cloud[name], arrays[array][place], rtol=1e-3)
    for picture, frame in zip(cloud["frames"], arrays["frame"][place], strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        assert shown.shape == (64, 64, 3)
        np.testing.assert_allclose(shown.mean(axis=(0, 1)), frame[0, 0], atol=4)
    scores, share = space.pca(arrays["posterior"][place])
    np.testing.assert_allclose(np.transpose(cloud["pca"]), scores, atol=1e-3)
    np.testing.assert_allclose(cloud["share"], 100 * share, rtol=1e-2)
    embedding = space.umap(arrays["posterior"][place], seed=0)
    np.testing.assert_allclose(np.transpose(cloud["umap"]), embedding, rtol=1e-3)
    assert made["notes"] == [f"{made['explored'][0]}: 40 of 72 steps, drawn at random"]
    beside = {path.name for path in (tmp_path / "out").iterdir()} - {"report.html"}
    assert {f"{name}.csv" for name in made["figures"]} <= beside
    assert {Path(name).suffix for name in beside} == {".csv", ".tex"}


def test_the_page_asks_for_nothing_and_runs_its_own_scripts_alone(small: Any, tmp_path: Path) -> None:
    shown = Page(analysis.write_report([small()], tmp_path / "out", options=Options(max_points=20))["page"])
    for tag, attributes, _ in shown.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    assert not re.search(r"url\(|@import", "".join(shown.texts("style")))
    (policy,) = [
        have["content"] for tag, have, _ in shown.elements if have.get("http-equiv") == "Content-Security-Policy"
    ]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in shown.scripts(None)]
    assert policy is not None and len(digests) == 2
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]


def test_names_are_text_everywhere(make_run: Any, tmp_path: Path) -> None:
    runs = [make_run(FOLDER, PAYLOAD, env__name=f"dmc/{PAYLOAD}", agent__name=PAYLOAD), make_run("plain", seed=2)]
    made = analysis.write_report(runs, tmp_path / "out", options=Options(max_points=20), command=PAYLOAD)
    shown = Page(made["page"])
    alike = Page(
        analysis.write_report([make_run("a"), make_run("b", seed=2)], tmp_path / "b", options=Options(max_points=20))[
            "page"
        ]
    )
    assert len(shown.scripts(None)) == len(alike.scripts(None)) == 2
    assert "<script>alert" not in shown.text.lower() and "</script><script>alert" not in "".join(shown.scripts(None))
    assert {tag for tag, _, _ in shown.elements} <= {tag for tag, _, _ in alike.elements} | {
        "code",
        "details",
        "summary",
    }
    cells = shown.texts("td")
    assert FOLDER in cells and PAYLOAD in cells and f"dmc/{PAYLOAD}" in cells and PAYLOAD in shown.texts("code")
    figures = [one for one in map(json.loads, shown.scripts("application/json")) if "layout" in one]
    assert len(figures) == 8
    drawn = json.dumps(figures)
    for ours in ("<extra>", "</extra>", "<br>"):
        drawn = drawn.replace(ours, "")
    assert "<" not in drawn and "&lt;script&gt;" in drawn


def test_templates_of_hover_texts_hold_no_names() -> None:
    """Plotly would fill in `%{x}` of a name."""
    numbers = pd.DataFrame([{"task": "t", "agent": "a", "series": "%{x}", "condition": "in distribution"}] * 1)
    numbers = numbers.assign(mean=1.0, low=0.5, high=2.0, step=10)
    for name in ("returns", "ood"):
        found = plots.interactive(name, numbers, plots.Palette.of({"%{x}": "embedded"}))
        assert found is not None
        assert all("%{x}" not in trace.get("hovertemplate", "").replace("%{x:", "") for trace in found["data"])


def test_a_page_keeps_within_its_bytes(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [small("one"), small("two", seed=2)]
    monkeypatch.setattr(explorer, "LEAST_BYTES", 8_000)
    whole = analysis.write_report(runs, tmp_path / "whole")
    assert whole["notes"] == [] and [len(cloud["time"]) for cloud in Page(whole["page"]).clouds()] == [72, 72]
    bare = whole["page"].stat().st_size - sum(len(json.dumps(cloud)) for cloud in Page(whole["page"]).clouds())

    monkeypatch.setattr(page, "MOST_BYTES", bare + page.SPARE + 20_000)
    tight = analysis.write_report(runs, tmp_path / "tight")
    counts = [len(cloud["time"]) for cloud in Page(tight["page"]).clouds()]
    assert len(counts) == 2 and all(10 < count < 72 for count in counts)
    assert tight["page"].stat().st_size < page.MOST_BYTES
    assert "as many as their frames leave room for" in tight["notes"][0]

    monkeypatch.setattr(page, "MOST_BYTES", bare + page.SPARE + 12_000)
    one = analysis.write_report(runs, tmp_path / "one")
    assert len(one["explored"]) == 1
    assert one["notes"][0].startswith("1 of 2 recorded runs fit into this page; left out: embedded, tdmpc2")

    monkeypatch.setattr(page, "MOST_BYTES", bare - 1000)
    with pytest.raises(AnalysisError, match=r"the page would have .* MB, more than") as error:
        analysis.write_report(runs, tmp_path / "none")
    assert "fewer runs" in error.value.hint and not (tmp_path / "none" / "report.html").exists()


def test_what_is_missing_stands_in_the_page_with_its_command(small: Any, make_run: Any, tmp_path: Path) -> None:
    old, bare, going = (
        small("old", frames=False),
        make_run("bare", seed=2, parts=()),
        make_run("going", state="running", seed=3),
    )
    made = analysis.write_report([old, bare, going], tmp_path / "out", options=Options(max_points=20))
    shown = Page(made["page"])
    assert f"no frames were recorded; record it again: mbrl-pvr record {old}" in shown.texts("p")
    assert [cloud["frames"] for cloud in shown.clouds()] == [None]
    commands = shown.texts("code")
    assert (
        f"mbrl-pvr record {bare}" in commands
        and f"mbrl-pvr ood {bare}" in commands
        and f"mbrl-pvr resume {going}" in commands
    )
    recorded = [cell for cell in shown.texts("td") if cell == "no" or "episodes, " in cell]
    assert recorded == ["3 episodes, 75 steps, without frames", "no", "8 episodes, 960 steps, without frames"]
    assert "Nothing" not in " ".join(shown.texts("p")) and {"drift", "truncation"} <= {*shown.texts("td")}
    both = analysis.write_report([old, going], tmp_path / "both", unfinished=True, options=Options(max_points=20))
    assert len(both["runs"]) == 2


def test_a_figure_without_an_interactive_form_keeps_picture_and_numbers(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "FORMS", {})
    monkeypatch.setattr(page, "TABLE_ROWS", 2)
    shown = Page(analysis.write_report([make_run(parts=())], tmp_path / "out")["page"])
    picture, *_ = [have["src"] for tag, have, _ in shown.elements if tag == "img"]  # of `returns`
    assert picture is not None and b"<svg" in base64.b64decode(picture.removeprefix("data:image/svg+xml;base64,"))
    assert "This figure has no interactive form." in shown.texts("p")
    assert "The first 2 of 10 rows; all are in returns.csv beside this page." in shown.texts("p")
    numbers = pd.read_csv(tmp_path / "out" / "returns.csv")
    assert f"{numbers['mean'][1]:.4g}" in shown.texts("td") and f"{numbers['mean'][2]:.4g}" not in shown.texts("td")


def test_a_large_picture_becomes_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = style.new_figure(1, 1)
    assert page._picture(figure).startswith("data:image/svg+xml")
    monkeypatch.setattr(page, "VECTOR_BYTES", 10)
    assert page._picture(figure).startswith("data:image/png")


def test_curves_have_the_numbers_and_one_entry_in_the_legend() -> None:
    step = np.arange(400)
    numbers = pd.concat(
        pd.DataFrame(
            {"task": task, "agent": "a", "series": name, "step": step, "mean": step * k, "low": step * k - 1.0}
        )
        for task in ("dmc/walk", "dmc/run")
        for k, name in enumerate(("one", "two"), 1)
    ).assign(high=lambda rows: rows["mean"] + 1)
    palette = plots.Palette.of({"one": "embedded", "two": "embedded"})
    found = plots.interactive("returns", numbers, palette)
    figure = go.Figure(found)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [trace.name for trace in lines] == ["one", "two"] * 2
    assert [trace.showlegend for trace in lines] == [True, True, False, False]
    assert {trace.line.color for trace in lines} == {style.look("embedded").colour}
    assert [trace.line.dash for trace in lines[:2]] == ["solid", "dash"]
    x, y, interval = (_array(part) for part in (lines[1].x, lines[1].y, lines[1].customdata))
    assert (x[0], x[-1]) == (0, 399) and len(x) <= plots.MOST
    np.testing.assert_array_equal(y, 2 * x)
    np.testing.assert_array_equal(interval, np.stack([y - 1, y + 1], 1))
    assert [title.text for title in figure.layout.annotations] == ["run", "walk"]


def _array(packed: dict[str, Any]) -> np.ndarray:
    """Numbers as plotly packs them."""
    shape = [int(side) for side in str(packed.get("shape", "-1")).split(",")]
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"]).reshape(shape)


def test_what_has_no_numbers_has_no_interactive_form() -> None:
    palette = plots.Palette.of({})
    assert plots.interactive("returns", pd.DataFrame(columns=["task", "agent", "series", "step"]), palette) is None
    assert plots.interactive("unheard_of", pd.DataFrame({"x": [1]}), palette) is None


def test_single_seeds_have_no_band(make_run: Any) -> None:
    numbers = pd.DataFrame({"task": "t", "agent": "a", "series": "s", "step": [1, 2], "mean": [1.0, 2.0]})
    found = plots.interactive("returns", numbers.assign(low=np.nan, high=np.nan), plots.Palette.of({"s": "embedded"}))
    assert found is not None
    (trace,) = found["data"]
    assert "[" not in trace["hovertemplate"].replace("%{customdata[", "")
    assert "customdata[" not in trace["hovertemplate"]


def test_overview_of_known_episodes(make_run: Any, synthetic: Any) -> None:
    run = make_run(parts=())
    nested = synthetic["config"]()
    rows = [{"kind": "eval", **synthetic["row"](nested, step, value, n)} for step in (10, 20)
            for n, value in enumerate((step, 2 * step, 6 * step))]  # fmt: skip
    synthetic["write_jsonl"](run / "episodes.jsonl", rows)
    shifted = {"split": "held_out", "shift": "color_easy", "severity": 1.0}
    inside = {"split": "train", "severity": 0.0}
    table = [{**synthetic["row"](nested, step, value, 0), **where} for step, value, where in
             ((10, 1.0, shifted), (20, 5.0, shifted), (20, 8.0, shifted), (20, 99.0, inside),
              (20, 50.0, {**shifted, "severity": 0.5}),
              (20, 70.0, {**shifted, "split": "held_out:agent"}))]  # fmt: skip
    pd.DataFrame(table).to_parquet(run / "ood.parquet")
    (row,) = overview.rows([load_run(run)])
    assert dict(zip(overview.COLUMNS, row.cells, strict=True)) == {
        **{"run": "run", "agent": "tdmpc2", "encoder": "embedded", "task": "dmc/walker-walk", "seed": "1"},
        **{"steps": "100,000", "state": "finished", "final return": "60.0 [20.0, 120.0]"},
        "out of distribution": "6.5 (2), beside 99.0 (1)",
    }
    assert row.record == "no"


def test_constant_latents_have_no_picture(small: Any, tmp_path: Path) -> None:
    run = small()
    with np.load(run / "latents.npz") as stored:
        arrays = dict(stored)
    arrays["posterior"][:] = 0.5
    np.savez(run / "latents.npz", **arrays)
    made = analysis.write_report([run], tmp_path / "out")
    (cloud,) = Page(made["page"]).clouds()
    assert cloud["umap"] is None and cloud["pca"] is None and len(cloud["frames"]) == 72
    assert "the latents are constant, so there is no picture of them" in made["notes"][0]


def test_frames_are_read_one_episode_at_a_time_and_checked(small: Any, tmp_path: Path) -> None:
    run = small()
    with np.load(run / "latents.npz") as stored:
        arrays = dict(stored)
    place = (np.array([0, 0, 2, 2]), np.array([3, 1, 24, 0]))
    np.testing.assert_array_equal(read_frames(run / "latents.npz", *place), arrays["frame"][place])
    assert read_states(run / "latents.npz", "deterministic").shape == (3, 25, 8)
    np.savez(run / "latents.npz", **{**arrays, "frame": arrays["frame"][:, :-1]})
    with pytest.raises(
        AnalysisError, match=r"frame of latents\.npz should be \(3, 25, h, w, 3\) uint8, but is \(3, 24"
    ):
        analysis.write_report([run], tmp_path / "out")
    assert not (tmp_path / "out" / "report.html").exists()


def test_bad_requests_are_those_of_analyze(make_run: Any, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no run folders were given"):
        analysis.write_report([], tmp_path / "out")
    run = make_run(parts=())
    with pytest.raises(AnalysisError, match="is given twice"):
        analysis.write_report([run, run], tmp_path / "out")
    with pytest.raises(AnalysisError, match="no run has finished"):
        analysis.write_report([make_run("going", state="running", seed=2)], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(AnalysisError, match="cannot write") as error:
        analysis.write_report([run], tmp_path / "file")
    assert error.value.exit_code == 5
