"""Run folders: whole ones are read, all others end in an error that names the file and what is wrong with it."""

import json
import random
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, groups, load_runs
from mbrl_pvr import settings
from mbrl_pvr.config import load_config, to_dict


def test_a_whole_run(make_run):
    (run,) = load_runs([make_run("walker", "resnet18_in1k", 3)])
    assert (run.agent, run.encoder, run.task, run.seed) == ("tdmpc2", "resnet18_in1k", "dmc/walker-walk", 3)
    assert run.finished and len(run.id) == 12
    assert set(run.episodes["kind"]) == {"train", "eval"} and run.episodes["success"].dtype == float
    assert run.metrics["step"].tolist() == list(range(0, 1000, 100)) and run.metrics["train/loss"].isna().all()
    assert run.latents.posterior.shape == (8, 120, 64) and run.latents.context == 3
    assert run.latents_kind == run.latents.kind == "deterministic"
    assert run.latents.valid.all()


def test_parts_that_were_never_made_are_none(make_run):
    folder = make_run(parts=())
    (folder / "metrics.jsonl").unlink()
    (folder / "episodes.jsonl").write_text("")
    (run,) = load_runs([folder])
    assert run.metrics is run.episodes is run.ood is run.latents is run.latents_kind is None


def test_compressed_latents_are_read_too(make_run):
    folder = make_run()
    with np.load(folder / "latents.npz") as arrays:
        np.savez_compressed(folder / "latents.npz", **arrays, feature=np.zeros((8, 120, 9), np.float16))
    assert load_runs([folder])[0].latents.value.shape == (8, 120)


def fails(folder, *patterns, code=3):
    with pytest.raises(AnalysisError) as caught:
        runs = load_runs([folder])
        assert runs[0].latents is None
    text = str(caught.value)
    assert all(pattern in text for pattern in patterns), text
    assert caught.value.exit_code == code and len(text.splitlines()) <= 2
    return text


def test_folders_that_are_no_runs(tmp_path, make_run):
    with pytest.raises(AnalysisError, match="no run folders"):
        load_runs([])
    fails(tmp_path / "nowhere", "does not exist", code=2)
    (tmp_path / "file").write_text("x")
    fails(tmp_path / "file", "is a file", code=2)
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "is empty", code=2)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("hello")
    fails(tmp_path / "foreign", "not a run folder", "notes.txt", code=2)
    make_run("study/a")
    make_run("study/b", seed=2)
    fails(tmp_path / "study", "2 run folders", "study/*", code=2)


def test_half_written_folder(make_run):
    folder = make_run()
    (folder / "manifest.json").unlink()
    fails(folder, "half-written", "manifest.json")


@pytest.mark.parametrize(
    ("name", "text", "patterns"),
    [
        ("config.yaml", "seed: [1", ("config.yaml is not plain YAML",)),
        ("config.yaml", "!!python/object/apply:os.system ['true']", ("config.yaml is not plain YAML",)),
        ("config.yaml", "- a\n- b\n", ("holds a list",)),
        ("config.yaml", "seed: 1\nenv: {name: a}\nencoder: {}\nagent: {name: b}\n", ("encoder.name as str",)),
        ("config.yaml", "a: &a [x]\nb: [" + "*a, " * 50 + "]\n", ("50 aliases",)),
        ("config.yaml", "#" * 1_100_000, ("more than 1000000",)),
        ("manifest.json", '{"format": 1', ("manifest.json is not valid JSON",)),
        ("manifest.json", '{"format": 1}', ("manifest.json", "'identity'")),
        ("manifest.json", '{"format": 99, "identity": "x"}', ("format 99", "reads up to 1")),
        ("manifest.json", "[" * 100_000, ("manifest.json is not valid JSON",)),
        ("status.json", "{}", ("status.json", "'state'")),
        ("status.json", '{"state": "new", "checkpoint": "x"}', ("status.json", "'checkpoint'")),
        ("episodes.jsonl", '{"step": 1}\n', ("episodes.jsonl has no column 'kind'",)),
        ("episodes.jsonl", "7\n", ("line 1 is not a JSON object",)),
        ("episodes.jsonl", '{"a": 1}\n{"a"\n', ("line 2 is not valid JSON",)),
        ("metrics.jsonl", '{"step": "ten", "frame": 1}\n', ("column 'step' of metrics.jsonl", "whole number")),
        ("metrics.jsonl", '{"step": 1, "frame": 1}\n{"step": null, "frame": 2}\n', ("column 'step'",)),
        ("ood.parquet", "PAR1", ("ood.parquet cannot be read",)),
        ("latents.npz", "PK", ("latents.npz cannot be read",)),
    ],
)
def test_damaged_files(make_run, name, text, patterns):
    folder = make_run()
    (folder / name).write_text(text)
    fails(folder, *patterns)


@pytest.mark.parametrize(
    ("name", "compressed"), [("latents.npz", False), ("latents.npz", True), ("ood.parquet", False)]
)
def test_flipped_bytes_are_read_or_refused_in_one_line(make_run, synthetic, name, compressed):
    """Bytes that nothing depends on may pass; no other error than this package's gets out."""
    folder = make_run(parts=("ood",))
    path = folder / name
    if name == "latents.npz":
        arrays = synthetic["latents"](np.random.default_rng(0), episodes=2, steps=12, dims=4)
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
    else:
        pd.read_parquet(path).to_parquet(path, write_page_checksum=True)
    whole = path.read_bytes()
    noise, refused = random.Random(2), 0
    for _ in range(60):
        changed = bytearray(whole)
        for _ in range(noise.choice((1, 4))):
            changed[noise.randrange(len(changed))] = noise.choice((0, 255, noise.randrange(256)))
        path.write_bytes(changed)
        try:
            assert load_runs([folder])[0].latents is None or name == "latents.npz"
        except AnalysisError as error:
            refused += 1
            assert name in str(error) and error.exit_code == 3 and len(str(error).splitlines()) <= 2
    assert refused > 30


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"index_columns"', b'{"index_columnz"'),  # KeyError
        (b'{"index_columns"', b'["index_columns"'),  # JSONDecodeError
        (b'{"index_columns"', b'{"\xce\xceex_columns"'),  # UnicodeDecodeError
        (b'"numpy_type": "int64"', b'"numpy_type": "hnt64"'),  # TypeError
    ],
)
def test_damage_in_what_pandas_keeps_in_a_parquet_file(make_run, old, new):
    import pyarrow.parquet

    folder = make_run(parts=("ood",))
    table = pyarrow.parquet.read_table(folder / "ood.parquet")
    kept = table.schema.metadata[b"pandas"]
    assert old in kept
    changed = table.replace_schema_metadata({b"pandas": kept.replace(old, new)})
    pyarrow.parquet.write_table(changed, folder / "ood.parquet")
    fails(folder, "ood.parquet cannot be read")


def test_damage_in_zip_archives_that_once_escaped(make_run):
    """A member that claims to be encrypted, and compressed data that makes no sense."""
    folder = make_run()
    path = folder / "latents.npz"
    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\x03\x04") + 6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    fails(folder, "latents.npz cannot be read", "encrypted")
    start = 30 + int.from_bytes(whole[26:28], "little") + int.from_bytes(whole[28:30], "little")
    path.write_bytes(whole[:start] + b"\xff" * 16 + whole[start + 16 :])
    fails(folder, "latents.npz cannot be read", "decompressing")


@pytest.mark.parametrize("name", ["episodes.jsonl", "ood.parquet"])
@pytest.mark.parametrize("column", ["return", "seed", "encoder"])
def test_missing_column_is_named(make_run, synthetic, name, column):
    folder = make_run()
    if name == "ood.parquet":
        pd.read_parquet(folder / name).drop(columns=column).to_parquet(folder / name)
    else:
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        synthetic["write_jsonl"](folder / name, [{k: v for k, v in row.items() if k != column} for row in rows])
    fails(folder, f"{name} has no column {column!r}", str(folder))


def test_returns_that_are_no_numbers(make_run, synthetic):
    folder = make_run(parts=())
    row = {"kind": "eval", **synthetic["row"](synthetic["config"](), 10, 1.0, 0)}
    synthetic["write_jsonl"](folder / "episodes.jsonl", [row, {**row, "return": None}])
    fails(folder, "'return' of episodes.jsonl is not finite in row 2")
    synthetic["write_jsonl"](folder / "episodes.jsonl", [row, {**row, "return": "high"}])
    fails(folder, "'return' of episodes.jsonl should hold one number per row")


def test_a_torn_last_line_belongs_to_a_running_run_only(make_run):
    folder = make_run(state="running", parts=())
    whole = load_runs([folder])[0]
    with open(folder / "episodes.jsonl", "a") as file:
        file.write('{"kind": "ev')
    (run,) = load_runs([folder])
    assert not run.finished and len(run.episodes) == len(whole.episodes)
    (folder / "status.json").write_text('{"state": "finished"}')
    fails(folder, f"episodes.jsonl line {len(whole.episodes) + 1} is not valid JSON")


def test_a_run_that_has_only_begun(make_run):
    folder = make_run(parts=())
    (folder / "status.json").unlink()
    assert load_runs([folder])[0].state == "new"


def test_one_run_twice(make_run, tmp_path):
    first = make_run("a")
    with pytest.raises(AnalysisError, match=r"given twice \(.*a and .*a\)"):
        load_runs([first, first])
    copy = make_run("copy")
    with pytest.raises(AnalysisError, match="given twice") as caught:
        load_runs([first, copy])
    assert caught.value.exit_code == 2 and "copy" in str(caught.value)


def change_latents(folder, **changes):
    with np.load(folder / "latents.npz") as stored:
        arrays = {**stored, **changes}
    np.savez(folder / "latents.npz", **{k: v for k, v in arrays.items() if v is not None})


LOGITS = {"kind": np.array("categorical"), "classes": np.array(4)}


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"open_loop": None}, "no array 'open_loop'"),
        ({"value": np.zeros((8, 3), np.float32)}, "value of latents.npz should be (8, 120)"),
        ({"posterior": np.zeros((8, 120), np.float32)}, "should be (E, T, L)"),
        ({"posterior": np.zeros((8, 120, 0), np.float32)}, "no empty side"),
        ({"kind": np.array("mixed")}, "'mixed'"),
        ({"context": np.array(120)}, "1..119"),
        ({"length": np.full(8, 121)}, "1..120"),
        ({"step": np.array([1, 2])}, "step of latents.npz should be one whole number"),
        ({"length": np.full(8, 1.5)}, "length of latents.npz has type float64"),
        ({"classes": None}, "no array 'classes'"),
        ({"classes": np.array(4)}, "should be 0 for deterministic latents, but is 4"),
        (LOGITS | {"classes": np.array(0)}, "classes of latents.npz should be at least 2 and divide 64, but is 0"),
        (LOGITS | {"classes": np.array(7)}, "divide 64, but is 7"),
        (LOGITS, "latent of latents.npz should be numbers (8, 120, W), but is missing"),
        (LOGITS | {"latent": np.zeros((8, 3, 5), np.float32)}, "but is float32 of shape (8, 3, 5)"),
        (LOGITS | {"latent": np.zeros((8, 120, 5), bool)}, "but is bool of shape"),
    ],
)
def test_latents_of_the_wrong_form(make_run, changes, pattern):
    folder = make_run()
    change_latents(folder, **changes)
    fails(folder, pattern, "latents.npz")


def test_latents_that_hold_objects_are_refused(make_run):
    folder = make_run()
    np.savez(folder / "latents.npz", posterior=np.array([{}], dtype=object))
    fails(folder, "Python objects")


def test_latents_that_lie_about_their_size(make_run, tmp_path):
    folder = make_run()
    with open(tmp_path / "posterior.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**30, 2**30, 4)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\0" * 16)
    with zipfile.ZipFile(folder / "latents.npz", "w") as archive:
        archive.write(tmp_path / "posterior.npy", "posterior.npy")
    fails(folder, "has 16")
    np.savez_compressed(folder / "latents.npz", posterior=np.zeros((1, 1, 2**25), np.float32))
    fails(folder, "unpacks to")


def test_a_flipped_bit_in_latents_is_noticed(make_run):
    folder = make_run()
    data = bytearray((folder / "latents.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "latents.npz").write_bytes(data)
    (run,) = load_runs([folder])
    with pytest.raises(AnalysisError, match=r"latents\.npz cannot be read: Bad CRC"):
        _ = run.latents


def test_names_tell_experiments_apart_and_seeds_together(make_run):
    runs = load_runs(
        [
            make_run("a", seed=1, parts=()),
            make_run("b", seed=2, parts=(), device="cuda"),
            make_run("c", seed=1, parts=(), encoder__truncate=3),
            make_run("d", "resnet18_in1k", parts=()),
            make_run("e", "/data/mine.safetensors", parts=()),
            make_run("f", "/data/one/ae.safetensors", parts=()),
            make_run("g", "/data/two/ae.safetensors", parts=()),
        ]
    )
    names = list(groups.series_names(runs).values())
    assert names[:5] == ["embedded (truncate None)", *names[:1], "embedded (truncate 3)", "resnet18_in1k", "mine"]
    assert names[5:] == ["/data/one/ae.safetensors", "/data/two/ae.safetensors"]


def test_settings_that_nothing_reads_tell_no_runs_apart(make_run):
    runs = load_runs(
        [
            make_run("a", parts=()),
            make_run("b", parts=(), agent__augment="none", agent__enc_dim=64),
            make_run("c", parts=(), agent__front_end="mlp", agent__enc_dim=64),
            make_run("d", parts=(), agent__front_end="mlp", agent__enc_dim=128),
            make_run("e", "scratch", parts=()),
            make_run("f", "scratch", parts=(), agent__front_end="mlp"),
            make_run("g", "scratch", parts=(), agent__augment="none"),
            make_run("h", "state", parts=(), env__shifts="none", env__camera=1),
            make_run("i", "state", parts=()),
        ]
    )
    assert list(groups.series_names(runs).values()) == [
        "embedded (front_end linear)",
        "embedded (front_end linear)",
        "embedded (enc_dim 64, front_end mlp)",
        "embedded (enc_dim 128, front_end mlp)",
        "scratch (augment shift)",
        "scratch (augment shift)",
        "scratch (augment none)",
        "state",
        "state",
    ]
    groups.check_comparable(runs[::-1])  # an agent that sees no frame has no look


_CUBES = ["env.name=maniskill/PushCube-v1"]  # a state agent feels shifts that change the cube itself


@pytest.mark.parametrize(
    "overrides",
    [
        *([], ["agent.front_end=mlp"], ["env.shifts=color_easy"], ["agent.episodic=true"]),
        *([*_CUBES, "env.shifts=physical_size+tint"], [*_CUBES, "env.shifts=study"], [*_CUBES, "env.shifts=tint"]),
    ],
)
@pytest.mark.parametrize("encoder", ["embedded", "scratch", "state"])
def test_settings_that_training_calls_inert_are_so_here(encoder, overrides):
    """A state agent's frames are filmed, so training lets their looks be chosen; returns do not depend on them."""
    config = load_config([f"encoder={encoder}"])
    for key, value in (override.split("=") for override in overrides):
        part, name = key.split(".")
        value = {"true": True}.get(value, value)
        config = replace(config, **{part: replace(getattr(config, part), **{name: value})})
    seen = {f"env.{name}" for name in ("shifts", "render", "camera", "size")} if encoder == "state" else set()
    assert groups.inert(to_dict(config)) | seen == settings.inert(config).keys() | seen


def test_a_run_on_a_bank_reads_nothing_of_collection():
    config = replace(load_config(), data="banks/mine")
    assert groups.inert(to_dict(config)) == settings.inert(config).keys() >= {"random_steps", "env.num"}


def test_mixed_protocols_are_refused(make_run):
    runs = load_runs(
        [
            make_run("a", parts=()),
            make_run("b", task="dmc/finger-spin", parts=(), env__action_repeat=4),
            make_run("c", "resnet18_in1k", parts=(), env__shifts="none"),
        ]
    )
    groups.check_comparable(runs[:2])  # another task is another axis
    with pytest.raises(AnalysisError, match=r"env\.shifts is 'color_easy' in one and 'none' in another") as caught:
        groups.check_comparable(runs)
    assert caught.value.exit_code == 2
    blind = load_runs([make_run("d", "state", parts=(), env__shifts="none")])
    with pytest.raises(AnalysisError, match=r"env\.shifts is 'color_easy' in one and 'none' in another"):
        groups.check_comparable([*blind, *runs])


def test_import_is_light():
    code = "import sys, analysis; print(sorted({'torch', 'pandas', 'matplotlib', 'umap'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
