"""Figures from tables: the numbers in them, how they look where a program can tell, and the files."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

import analysis
from analysis import AnalysisError, latents
from analysis.figures import dose, dynamics, ood, returns, style
from analysis.figures import latents as latents_figure
from analysis.records import Latents

TASKS = ("dmc/walker-walk", "dmc/cheetah-run")


def return_rows(seeds=(1, 2, 3), encoders=("embedded", "clip_vitl14"), tasks=TASKS, steps=range(0, 5000, 1000)):
    keys = itertools.product(tasks, encoders, seeds, steps, ("train", "eval", "eval"))
    table = pd.DataFrame(keys, columns=["task", "encoder", "seed", "step", "kind"])
    return table.assign(**{"return": table["step"] / 10 + 10 * table["seed"], "frame": 2 * table["step"]})


def ood_rows(seeds=(1, 2, 3), tasks=TASKS):
    looks = [("train", "none", 0.0, 100), ("held_out", "color_easy", 1.0, 60), ("held_out", "color_hard", 1.0, 20)]
    rows = [
        dict(zip(("split", "shift", "severity"), look, strict=False))
        | {"task": task, "encoder": encoder, "seed": seed, "return": float(look[3] + 10 * seed + episode)}
        for task, encoder, seed, look, episode in itertools.product(tasks, ("scratch", "vc1"), seeds, looks, (-1, 1))
    ]
    return pd.DataFrame(rows)


def recorded(synthetic, growth=0.01, seed=0, **sizes):
    arrays = synthetic["latents"](np.random.default_rng(seed), growth=growth, **sizes)
    plain = {"context": int(arrays["context"]), "kind": str(arrays["kind"]), "classes": int(arrays["classes"])}
    return Latents(**arrays | plain)


def error_rows(synthetic):
    series = itertools.product(("embedded", "vc1"), (1, 2))
    tables = [
        dynamics.error_table(recorded(synthetic, seed=seed), task=TASKS[0], encoder=encoder, seed=seed)
        for encoder, seed in series
    ]
    return pd.concat(tables)


def clouds(synthetic, count=2, **sizes):
    names = [f"encoder_{number}, seed 1" for number in range(count)]
    return [latents_figure.cloud(name, TASKS[0], recorded(synthetic, seed=n, **sizes)) for n, name in enumerate(names)]


@pytest.fixture
def no_umap(monkeypatch):
    """PCA in the place of UMAP, which takes half a minute to compile."""
    monkeypatch.setattr(latents, "umap", lambda points, seed, neighbours: latents.pca(points)[0])


def test_returns_are_means_over_seeds_with_bands():
    drawn = returns.draw(return_rows())
    row = drawn.numbers.query("task == 'dmc/walker-walk' and series == 'embedded' and step == 2000").iloc[0]
    assert row["mean"] == pytest.approx(200 + 20) and row["seeds"] == 3
    assert (row["low"], row["high"]) == (210, 230)  # three seeds have a range and no interval
    assert drawn.caption.endswith("Band: range of 3 seeds.") and drawn.notes == []


def test_bands_are_called_what_they_are():
    many = returns.draw(return_rows(seeds=(1, 2, 3, 4, 5, 6), tasks=TASKS[:1]))
    row = many.numbers.query("series == 'embedded' and step == 2000").iloc[0]
    assert many.caption.endswith("Band: 95 % bootstrap interval over 6 seeds.")
    assert 210 < row["low"] < 235 < row["high"] < 260
    assert ood.draw(ood_rows()).caption.endswith("Bars: range of 3 seeds; ticks are seeds.")
    mixed = pd.concat([ood_rows(seeds=range(5), tasks=TASKS[:1]), ood_rows(seeds=(1, 2), tasks=TASKS[1:])])
    assert "Bars: range of 2 seeds; 95 % bootstrap interval over 5 seeds;" in ood.draw(mixed).caption
    assert style.spread([1]) == "" and style.spread([2, 1, 4]) == "range of 2-4 seeds"


def test_one_seed_has_no_band_and_says_so():
    drawn = returns.draw(return_rows(seeds=(4,), tasks=TASKS[:1]))
    assert drawn.numbers[["low", "high"]].isna().all().all()
    assert "One seed: no interval." in drawn.caption
    assert drawn.notes[0] == "dmc/walker-walk: clip_vitl14 has one seed, so no interval"
    labels = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert labels == ["clip_vitl14 (1 seed)", "embedded (1 seed)", "training episodes"]


def test_returns_without_evaluation_and_with_ragged_steps():
    rows = return_rows()
    drawn = returns.draw(rows[rows["kind"] == "train"])
    assert len(drawn.numbers) == 0 and "embedded: no evaluation yet" in drawn.notes[-1]
    ragged = rows[(rows["seed"] != 2) | (rows["step"] <= 2000)]
    assert returns.draw(ragged).numbers["step"].max() == 2000


def test_frames_are_on_the_axis_above():
    figure = returns.draw(return_rows(tasks=TASKS[:1])).figure
    (above,) = figure.axes[0].child_axes
    assert above.get_xlabel() == "environment frames"
    FigureCanvasAgg(figure).draw()
    assert above.get_xlim() == pytest.approx(np.multiply(2, figure.axes[0].get_xlim()))


def test_ood_counts_each_seed_once_and_gives_what_is_retained():
    numbers = ood.draw(ood_rows()).numbers.set_index(["task", "series", "condition"])
    inside = numbers.loc[(TASKS[0], "vc1", "in distribution")]
    assert inside["mean"] == pytest.approx(120) and inside["seeds"] == 3 and inside["episodes"] == 6
    assert (inside["low"], inside["high"]) == (110, 130)  # the range
    assert numbers.loc[(TASKS[0], "vc1", "color easy 1 (held out)"), "retained"] == pytest.approx(80 / 120)


def test_what_is_retained_counts_the_episodes_that_both_have():
    """Later episodes begin better, so that means of unequal numbers of them compare starts."""
    rows = [("none", 0.0, 8), *((f"shift {n}", 1.0, 2) for n in range(12))]
    table = pd.DataFrame(
        {"task": TASKS[0], "encoder": "vc1", "seed": 1, "split": "held_out", "shift": shift, "severity": severity,
         "episode": n, "return": 100.0 * (n + 1) * (0.5 if severity else 1)}
        for shift, severity, count in rows for n in range(count)
    )  # fmt: skip
    drawn = ood.draw(table)
    numbers = drawn.numbers.set_index("condition")
    assert numbers.loc["shift 3 1 (held out)", "mean"] == 75 and numbers.loc["in distribution", "mean"] == 450
    assert set(numbers["retained"]) == {1.0, 0.5}
    assert "vc1 was played in 2-8 episodes a condition" in drawn.notes[-1] and "unequal numbers" in drawn.caption
    FigureCanvasAgg(drawn.figure).draw()
    (axis,), (legend,) = drawn.figure.axes, drawn.figure.legends
    assert axis.get_window_extent().y0 > legend.get_window_extent().y1, "the legend lies below the panel"
    markers = [handle.get_marker() for handle in legend.legend_handles[:13]]
    assert len(set(markers)) == 13


def test_ood_names_shifts_with_their_severities():
    rows = ood_rows()
    more = rows[rows["shift"] == "color_hard"].assign(severity=0.5)
    names = set(ood.condition_names(pd.concat([rows, more])))
    assert names == {
        "in distribution",
        "color easy 1 (held out)",
        "color hard 1 (held out)",
        "color hard 0.5 (held out)",
    }
    seen = ood.condition_names(rows[rows["shift"] == "color_easy"].assign(split="train"))
    assert set(seen) == {"color easy 1 (training part)"}


def test_dynamics_numbers(synthetic):
    rollouts = recorded(synthetic, growth=0.01, context=2, steps=40)
    drawn = dynamics.draw(dynamics.error_table(rollouts, task=TASKS[0], encoder="embedded", seed=1))
    numbers = drawn.numbers.set_index("k")
    assert numbers.index.tolist() == list(range(1, 39)) and (numbers["trajectories"] == 8).all()
    np.testing.assert_allclose(numbers["error"], 0.01 * numbers.index, rtol=1e-3)
    assert numbers.loc[33, "error_sum"] == pytest.approx(0.01 * 33 * 34 / 2, rel=1e-3)  # the study's window
    variance = rollouts.posterior.reshape(-1, 64).var(axis=0).mean()
    np.testing.assert_allclose(numbers["relative"], numbers["error"] / variance, rtol=1e-5)
    assert 0 < numbers.loc[10, "skill_over_copy"] < 1
    assert "95 % bootstrap interval over 8 trajectories of one seed." in drawn.caption


def test_dynamics_draws_means_over_the_first_steps(synthetic):
    """No comb over 500 steps, and the first 33 take up half of the axis."""
    rollouts = recorded(synthetic, growth=0.01, context=1, steps=501, dims=8)
    rollouts.reward_open_loop[:, 1:] = rollouts.reward_true[:, 1:] + (np.arange(1, 501) % 2)  # wrong every other step
    drawn = dynamics.draw(dynamics.error_table(rollouts, task=TASKS[0], encoder="embedded", seed=1))
    left, right = drawn.figure.axes
    numbers = drawn.numbers.set_index("k")
    np.testing.assert_allclose(numbers["relative_first_k"], numbers["relative_sum"] / numbers.index)
    for axis, name in ((left, "relative_first_k"), (right, "reward_error_first_k")):
        np.testing.assert_allclose(axis.lines[0].get_ydata(), numbers[name])
        place = axis.transAxes.inverted().transform(axis.transData.transform([(33, 0), (500, 0)]))[:, 0]
        assert 0.4 < place[0] < 0.7 and 0.95 < place[1] < 1
        assert [int(tick.get_text()) for tick in axis.get_xticklabels()] == [1, 3, 10, 33, 100, 500]
    np.testing.assert_allclose(numbers["reward_error_sum"], (numbers.index + 1) // 2, rtol=1e-5)
    steps = np.abs(np.diff(right.lines[0].get_ydata()))
    assert steps[10:].max() < 0.05 < 0.9 < np.abs(np.diff(numbers["reward_error"])).max()


def test_dynamics_sums_each_run_by_itself(synthetic):
    """Two runs of one seed, told apart by settings that nothing reads."""
    rollouts = recorded(synthetic, steps=40)
    labels = {"task": TASKS[0], "encoder": "embedded", "seed": 1}
    once, twice = (
        dynamics.draw(pd.concat(dynamics.error_table(rollouts, **labels, run=name) for name in names)).numbers
        for names in (["a"], ["a", "b"])
    )
    np.testing.assert_allclose(once["error_sum"], twice["error_sum"])


def test_kl_has_its_unit_on_the_axis_and_a_panel_of_its_own(synthetic):
    arrays = synthetic["categorical"](np.random.default_rng(0), growth=0.01, context=2, steps=40)
    del arrays["latent"]
    plain = {"context": int(arrays["context"]), "kind": "categorical", "classes": 4}
    logits = Latents(**arrays | plain)
    labels = {"task": TASKS[0], "encoder": "embedded", "seed": 1}
    kl = dynamics.error_table(logits, 0.01, agent="dreamerv3", **labels)
    mse = dynamics.error_table(recorded(synthetic, steps=40, context=5), agent="tdmpc2", **labels)
    drawn = dynamics.draw(pd.concat([kl, mse]))
    left = [axis for axis in drawn.figure.axes if "latent" in axis.get_ylabel()]
    assert [(axis.get_title(), axis.get_ylabel().split("\n")[0]) for axis in left] == [
        ("walker-walk · dreamerv3: dynamics", "latent KL, nats / latent"),
        ("walker-walk · tdmpc2: dynamics", "latent MSE / variance"),
    ]
    assert "after 2 to 5 given" in drawn.caption
    numbers = drawn.numbers.query("measure == 'KL'").set_index("k")
    np.testing.assert_allclose(left[0].lines[0].get_ydata(), numbers["relative_first_k"])
    np.testing.assert_allclose(numbers["relative"], numbers["error"] / 8)  # latents
    np.testing.assert_allclose(numbers["skill_over_copy"], 1 - numbers["relative"] / numbers["relative_copy"])
    assert crowded(drawn.figure) == []

    with pytest.raises(AnalysisError, match=r"errors of agent 'mine' on dmc/walker-walk are KL and MSE, which cannot"):
        dynamics.draw(pd.concat([kl, mse]).assign(agent="mine"))
    with pytest.raises(AnalysisError, match=r"unknown measure 'L1' of latent errors\nKnown: MSE, KL"):
        dynamics.draw(mse.assign(measure="L1"))
    with pytest.raises(AnalysisError, match="needs the share of unimix"):
        dynamics.error_table(logits, **labels)


def test_dynamics_of_ragged_and_diverged_episodes(synthetic):
    rollouts = recorded(synthetic, steps=40)
    rollouts.length[0] = 20
    rollouts.open_loop[1, 30:] = np.nan
    drawn = dynamics.draw(dynamics.error_table(rollouts, task=TASKS[0], encoder="embedded", seed=1))
    counts = drawn.numbers.set_index("k")["trajectories"]
    assert counts[17] == 8 and counts[18] == 7 and counts[28] == 6  # k = 18 is index 20, k = 28 index 30
    assert drawn.notes == [
        "dmc/walker-walk: embedded: 1 trajectories have predictions that are not finite, left out from there on"
    ]


def test_latents_leave_out_padding_first_steps_and_nan(synthetic, no_umap):
    rollouts = recorded(synthetic, episodes=3, steps=30)
    rollouts.length[0] = 10
    rollouts.posterior[1, 5] = np.nan
    one = latents_figure.cloud("mine", TASKS[0], rollouts)
    assert len(one.points) == 9 + 29 + 29
    drawn = latents_figure.draw([one], max_points=50)
    assert len(drawn.numbers) == 50
    assert drawn.notes == [
        "mine: 1 of 67 latents are not finite and are left out",
        "mine: 50 of 66 latents, drawn at random",
    ]


def test_constant_latents_are_called_so_and_not_drawn(synthetic, monkeypatch):
    """Beside others: rounding errors alone would make a round cloud."""
    fitted = []

    def umap(points, seed, neighbours):
        fitted.append(points)
        return latents.pca(points)[0]

    monkeypatch.setattr(latents, "umap", umap)
    good, dead = clouds(synthetic, 2, episodes=3, steps=40)
    noise = np.random.default_rng(0).normal(0, 1e-8, dead.points.shape)
    drawn = latents_figure.draw([good, dataclasses.replace(dead, points=0.1 + noise)])
    assert len(fitted) == 1 and drawn.notes == [
        "encoder_1, seed 1: the latents are constant, so there is no picture of them"
    ]
    upper_good, upper_dead, _, lower_dead = drawn.figure.subfigs[0].axes[:4]
    assert len(upper_good.collections) == 1 and not upper_dead.collections and not lower_dead.collections
    assert [text.get_text() for text in upper_dead.texts] == ["constant latents"] and crowded(drawn.figure) == []
    numbers = drawn.numbers.set_index("series")
    assert numbers.loc[dead.name, ["umap_1", "pc_1", "trustworthiness_umap", "purity"]].isna().all(axis=None)
    assert numbers.loc[good.name, ["umap_1", "purity"]].notna().all(axis=None)


def test_latents_print_their_numbers(synthetic, no_umap):
    drawn = latents_figure.draw(clouds(synthetic, 1, episodes=3, steps=40))
    upper, lower = (axis.get_title() for axis in drawn.figure.subfigs[0].axes[:2])
    purity, chance, trust = drawn.numbers[["purity", "purity_chance", "trustworthiness_umap"]].iloc[0]
    assert upper.splitlines()[1:] == [
        f"reward purity {purity:.2f} (chance {chance:.2f})",
        f"UMAP, trustworthiness {trust:.2f}",
    ]
    assert lower == f"PCA, trustworthiness {trust:.2f}"


def ticks_out_of_view(figure):
    """Labels that matplotlib keeps for ticks outside of the axis and does not draw."""
    hidden = set()
    for axes in [*figure.axes, *(child for axis in figure.axes for child in axis.child_axes)]:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * max(abs(low), abs(high), 1)
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
            hidden |= {id(label) for place, label in ticks if not low - slack <= place <= high + slack}
    return hidden


def dose_rows(seeds=(1, 2, 3), tasks=TASKS):
    """The rows of one shift at five severities, returns falling with them."""
    rows = ood_rows(seeds, tasks)
    inside, shifted = rows[rows["shift"] == "none"], rows[rows["shift"] == "color_easy"]
    doses = [
        shifted.assign(severity=severity, **{"return": (1 - severity / 2) * shifted["return"]})
        for severity in (0, 0.25, 0.5, 0.75, 1)
    ]
    return pd.concat([inside, *doses])


def nothing(rows):
    """An agent that never got a reward."""
    return rows.assign(**{"return": 0.0})


FIGURES = {
    "returns": lambda synthetic: returns.draw(return_rows(), {TASKS[0]: 30.0}),
    "returns_one": lambda synthetic: returns.draw(return_rows((1,), ("embedded",), TASKS[:1])),
    "returns_long": lambda synthetic: returns.draw(return_rows(steps=range(0, 3_000_001, 500_000), tasks=TASKS[:1])),
    "ood": lambda synthetic: ood.draw(ood_rows(), {TASKS[0]: 30.0}),
    "ood_one": lambda synthetic: ood.draw(ood_rows((1,), TASKS[:1])),
    "dose": lambda synthetic: dose.draw(dose_rows(), {TASKS[0]: 30.0}),
    "dose_one": lambda synthetic: dose.draw(dose_rows((1,), TASKS[:1])),
    "returns_nothing": lambda synthetic: returns.draw(nothing(return_rows(tasks=TASKS[:1]))),
    "ood_nothing": lambda synthetic: ood.draw(nothing(ood_rows(tasks=TASKS[:1]))),
    "dynamics": lambda synthetic: dynamics.draw(error_rows(synthetic)),
    "latents_one": lambda synthetic: latents_figure.draw(clouds(synthetic, 1, episodes=3, steps=40)),
    "latents_four": lambda synthetic: latents_figure.draw(clouds(synthetic, 4, episodes=3, steps=40)),
}


def crowded(figure):
    """Pairs of texts that overlap, and texts that leave the canvas."""
    with style.paper():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        hidden = ticks_out_of_view(figure)
        shown = [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(Text)
            if text.get_text().strip() and text.get_visible() and id(text) not in hidden
        ]
    cut = [t for t, b in shown if b.x0 < -0.5 or b.y0 < -0.5 or b.x1 > width + 0.5 or b.y1 > height + 0.5]
    pairs = itertools.combinations(shown, 2)
    over = [(a, b) for (a, p), (b, q) in pairs if p.x0 < q.x1 and q.x0 < p.x1 and p.y0 < q.y1 and q.y0 < p.y1]
    return cut + over


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_overlaps_or_is_cut(name, synthetic, no_umap):
    figure = FIGURES[name](synthetic).figure
    assert crowded(figure) == []
    figure.text(0.5, 0.5, "X" * 200)
    assert "X" * 200 in crowded(figure)  # the check itself sees something


@pytest.mark.parametrize("name", ["returns_one", "ood_one", "dose_one"])
def test_one_panel_has_the_width_of_a_column(name, synthetic):
    assert FIGURES[name](synthetic).figure.get_figwidth() == style.COLUMN
    assert FIGURES[name.removesuffix("_one")](synthetic).figure.get_figwidth() == style.PAGE


def test_files_fonts_and_metadata(tmp_path):
    drawn = returns.draw(return_rows(tasks=TASKS[:1]))
    provenance = style.Provenance(["one (1234)", "two\n(5678)"], "mbrl-pvr analyze one two --out x")
    paths = style.save(drawn, tmp_path / "new", "returns", provenance, ("pdf", "png", "svg"))
    assert [path.name for path in paths] == [
        *(f"returns.{end}" for end in ("pdf", "png", "svg", "csv")),
        "returns_table.csv",
        "returns.tex",
    ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    pdf, svg = paths[0].read_bytes(), paths[2].read_text()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    assert b"one \\(1234\\), two \\(5678\\)" in pdf and b"mbrl-pvr analyze" in pdf
    assert "one (1234), two (5678)" in svg and "mbrl-pvr analyze" in svg
    with Image.open(paths[1]) as image:
        assert image.info["Source"] == "runs: one (1234), two (5678)"
        assert image.info["Comment"] == "command: mbrl-pvr analyze one two --out x"
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1) and image.width == 990
    stored, wanted = pd.read_csv(paths[3]).drop(columns="agent"), drawn.numbers.drop(columns="agent")
    pd.testing.assert_frame_equal(stored, wanted, check_dtype=False, rtol=1e-5)
    before = [path.read_bytes() for path in paths]
    style.save(
        returns.draw(return_rows(tasks=TASKS[:1])), tmp_path / "new", "returns", provenance, ("pdf", "png", "svg")
    )
    assert [path.read_bytes() for path in paths] == before  # a repeat gives the same bytes


def test_a_failed_write_leaves_the_old_figure_whole(tmp_path, monkeypatch):
    drawn = returns.draw(return_rows(tasks=TASKS[:1]))
    paths = style.save(drawn, tmp_path, "returns")
    before = {path: path.read_bytes() for path in paths}
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(AnalysisError, match="No space left on device") as caught:
        style.save(returns.draw(return_rows(seeds=(1,))), tmp_path, "returns")
    assert caught.value.exit_code == 5
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_unknown_format_and_missing_column(tmp_path):
    with pytest.raises(AnalysisError, match="unknown figure format 'jpg'"):
        style.save(returns.draw(return_rows()), tmp_path, "returns", formats=("jpg",))
    with pytest.raises(AnalysisError, match="no column 'seed'"):
        returns.draw(return_rows().drop(columns="seed"))
    with pytest.raises(AnalysisError, match="no rows"):
        ood.draw(ood_rows().iloc[:0])


def test_an_encoder_has_one_look_whatever_else_is_drawn():
    assert style.look("my_encoder") == style.look("my_encoder")
    assert style.look("scratch") == style.Look("#000000", "o")
    assert len(set(style.ENCODERS.values())) == len(style.ENCODERS)
    lines = style.line_styles(
        pd.DataFrame({"series": ["vc1 (truncate 3)", "vc1 (truncate 6)", "r3m"], "encoder": ["vc1", "vc1", "r3m"]})
    )
    assert lines["vc1 (truncate 3)"] != lines["vc1 (truncate 6)"] and lines["r3m"] == "-"


def test_encoders_of_one_figure_never_share_a_colour_while_there_are_any():
    clashing = [name for name in map("enc_{}".format, range(400)) if style.look(name) == style.look("enc_0")][:4]
    assert len(clashing) == 4
    looks = style.looks(clashing[::-1])
    assert looks == style.looks(clashing) and looks["enc_0"] == style.look("enc_0")  # the first by name keeps its own
    assert len({look.colour for look in looks.values()}) == 4
    near_embedded = next(n for n in map("enc_{}".format, range(400)) if style.look(n).colour == "#0072B2")
    known = style.looks([near_embedded, "embedded"])
    assert known["embedded"] == style.ENCODERS["embedded"] and known[near_embedded].colour != "#0072B2"
    assert style.looks(["enc_1", "scratch"])["enc_1"] == style.look("enc_1")  # nothing moves where nothing clashes
    assert len(set(style.looks(map("enc_{}".format, range(70))).values())) == 70
    both = style.looks(["resnet50_in1k", "resnet18_in1k"])  # of the table: one colour, two markers
    assert both["resnet18_in1k"] == style.ENCODERS["resnet18_in1k"]
    assert both["resnet50_in1k"].marker == "X" and both["resnet50_in1k"].colour != both["resnet18_in1k"].colour
    next_door = style.looks([*both, "r3m_resnet50", "dinov2_vits14"])  # those that clash leave the others' colours
    assert all(next_door[name] == style.ENCODERS[name] for name in ("r3m_resnet50", "dinov2_vits14"))


@pytest.mark.parametrize("figure", ["returns", "dynamics", "ood"])
def test_clashing_encoders_are_apart_in_figures_and_dashes_show(figure, synthetic):
    one, other = [n for n in map("enc_{}".format, range(400)) if style.look(n) == style.look("enc_0")][:2]
    if figure == "ood":
        drawn = ood.draw(ood_rows(tasks=TASKS[:1]).replace({"scratch": one, "vc1": other}))
        means = [line for line in drawn.figure.axes[0].lines if line.get_marker() == "o"]
        assert len(means) == 2 == len({line.get_color() for line in means})
        return
    if figure == "returns":
        drawn = returns.draw(return_rows(encoders=(one, other), tasks=TASKS[:1]))
    else:
        drawn = dynamics.draw(error_rows(synthetic).replace({"embedded": one, "vc1": other}))
    colours = [line.get_color() for line in drawn.figure.legends[0].legend_handles[:2]]
    assert len(set(colours)) == 2 and set(colours) <= {line.get_color() for line in drawn.figure.axes[0].lines}
    points = drawn.figure.legends[0].handlelength * style.PAPER["legend.fontsize"]
    longest = max(sum(dashes[1]) for dashes in style.LINES if not isinstance(dashes, str))
    assert points > 1.5 * longest * style.PAPER["lines.linewidth"]  # a whole period and half of the next


def test_colours_stay_apart_for_colour_blind_readers():
    """As deuteranopes and protanopes see them too (Machado et al. 2009, severity 1), or by marker."""
    sights = [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    ]

    def distance(one, other):
        linear = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in (one, other)]) ** 2.2
        seen = [np.clip(linear @ np.array(sight).T, 0, 1) ** (1 / 2.2) for sight in sights]
        return min(np.linalg.norm(first - second) for first, second in seen)

    for one, other in itertools.combinations(style.ENCODERS.values(), 2):
        assert one.marker != other.marker or distance(one.colour, other.colour) > 0.15
    controls = ("scratch", "state", "embedded", "resnet18_in1k", "dinov2_vits14", "random_resnet18")
    for one, other in itertools.combinations(controls, 2):
        assert distance(style.look(one).colour, style.look(other).colour) > 0.2, (one, other)


def test_names_with_dollars_and_markup_are_drawn_as_they_are(tmp_path):
    rows = return_rows(tasks=TASKS[:1], encoders=("a$_{x}$b", "<b>&"))
    drawn = returns.draw(rows)
    style.save(drawn, tmp_path, "returns", formats=("svg",))
    text = (tmp_path / "returns.svg").read_text()
    assert "<b>&</b>" not in text and "a$_{x}$b (3 seeds)" in [
        t.get_text() for t in drawn.figure.legends[0].get_texts()
    ]


def test_the_readme_works_on_a_foreign_table(tmp_path, monkeypatch):
    """The code block under "Someone else's returns", as it stands."""
    readme = Path(analysis.__file__).with_name("README.md").read_text()
    code = readme.split("## Someone else's returns")[1].split("```python\n")[1].split("```")[0]
    theirs = return_rows(encoders=("their method",)).query("kind == 'eval'").drop(columns=["kind", "frame"])
    theirs.columns = ["env", "method", "seed", "step", "score"]
    theirs.to_csv(tmp_path / "theirs.csv", index=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "figures" / "theirs.pdf").exists()


def test_equal_returns_are_not_blown_up():
    assert returns.draw(nothing(return_rows(tasks=TASKS[:1]))).figure.axes[0].get_ylim() == (0, 1)
    assert ood.draw(nothing(ood_rows(tasks=TASKS[:1]))).figure.axes[0].get_xlim() == (0, 1)
    low, high = returns.draw(return_rows(tasks=TASKS[:1])).figure.axes[0].get_ylim()
    assert low == 0 and 430 < high < 500
