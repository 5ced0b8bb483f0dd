"""`encoders download`: what a study names is fetched into a folder that a machine without a network can use."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

import mbrl_pvr
import pvr_zoo
from mbrl_pvr import build, downloads
from mbrl_pvr.cli.main import main
from mbrl_pvr.config import load_config
from mbrl_pvr.errors import ConfigError, IntegrityError, Unavailable
from pvr_zoo import checkpoint, registry, weights
from pvr_zoo.rows.fused import fuse
from pvr_zoo.specs import WeightsSource

DATA = Path(pvr_zoo.__file__).parent / "data"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three encoders whose files a server on this machine has, has wrong, and has not."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(DATA)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    sha256 = hashlib.sha256((DATA / "embedded.safetensors").read_bytes()).hexdigest()
    files = {"lab_good": ("embedded.safetensors", sha256), "lab_wrong": ("calibration.npz", sha256)}
    files["lab_gone"] = ("gone.safetensors", sha256)
    for name, (file, expected) in files.items():
        url = f"http://127.0.0.1:{server.server_address[1]}/{file}"
        pvr_zoo.register(replace(pvr_zoo.spec("embedded"), name=name, weights=WeightsSource(url=url, sha256=expected)))
    yield
    for name in files:
        registry.unregister(name)
    server.shutdown()
    thread.join()
    server.server_close()


STUDIES: list[tuple[str, list[Any]]] = [
    ("encoder: a", ["a"]),
    ("encoder: [a, b, a]", ["a", "b"]),
    ("encoder: {name: a, truncate: 3}", ["a"]),
    ("encoder: {name: [a, b], truncate: [1, 2]}", ["a", "b"]),
    ("encoder.name: [a, b]", ["a", "b"]),
    ("grid: {encoder: [a, {name: b, feature: cls}], seed: [1, 2]}", ["a", "b"]),
    ("runs: [{encoder: a, env: x}, {grid: [{encoder.name: b}]}]", ["a", "b"]),
    ("encoder: {name: a, weights: w.pth}", [Path("w.pth")]),
    ("encoder: {name: a, weights: [null, w.pth]}", [Path("w.pth"), "a"]),
    ("encoder: null\ngrid: {encoder: a}", ["a"]),
]


@pytest.mark.parametrize(("text", "names"), STUDIES, ids=[text for text, _ in STUDIES])
def test_names_in_a_study(tmp_path: Path, text: str, names: list[Any]) -> None:
    (tmp_path / "study.yaml").write_text(text)
    assert downloads.names_in(tmp_path / "study.yaml") == names


@pytest.mark.parametrize(
    ("text", "what"),
    [("seed: 1", "names no encoder"), ("", "names no encoder"), ("encoder: 3", "a name is expected"), ("a: [", "YAML")],
)
def test_studies_that_name_none(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ConfigError, match=what):
        downloads.names_in(tmp_path / "study.yaml")


def test_a_study_is_fetched_for_a_machine_without_a_network(
    rows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("grid:\n  encoder: [lab_good, embedded, random_resnet18, scratch, state, ./mine.safetensors]\n")
    folder = tmp_path / "for nodes"
    assert main(["encoders", "download", "--for", str(study), "--to", str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    told = {row["encoder"]: row for row in json.loads(captured.out)}
    size = (DATA / "embedded.safetensors").stat().st_size
    assert told["lab_good"]["bytes"] == size and told["lab_good"]["file"].startswith(str(folder))
    assert f"embedded.safetensors ({size / 1e6:,.1f} MB) to {folder}" in captured.err
    assert f"embedded.safetensors: {size / 1e6:,.1f} of {size / 1e6:,.1f} MB" in captured.err
    assert {name: row["note"] for name, row in told.items() if row["file"] is None} == {
        "embedded": "part of the package",
        "random_resnet18": "drawn from a seed",
        "scratch": "pixels, trained along",
        "state": "no pictures",
        "./mine.safetensors": downloads.OWN,
    }
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(pvr_zoo.WeightsUnavailable):
        pvr_zoo.create("lab_good")
    monkeypatch.setenv("MBRL_PVR_CACHE", str(folder))
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    assert torch.equal(pvr_zoo.create("lab_good")(frames), pvr_zoo.create("embedded")(frames))
    assert main(["encoders", "download", "lab_good", "--to", str(folder)]) == 0
    out = capsys.readouterr().out
    assert str(folder / "") in out and f"MBRL_PVR_CACHE={folder} HF_HUB_OFFLINE=1" in out


def test_every_file_of_a_fused_encoder_is_fetched(rows: None, tmp_path: Path) -> None:
    other = pvr_zoo.spec("lab_wrong")
    assert other.weights is not None
    other = replace(other, weights=replace(other.weights, sha256=checkpoint.file_sha256(DATA / "calibration.npz")))
    pvr_zoo.register(fuse("lab_both", (pvr_zoo.spec("lab_good"), other)))
    try:
        fetched = mbrl_pvr.download_encoders(["lab_both"], tmp_path / "nodes")
        assert [(f.encoder, f.file.name) for f in fetched if f.file is not None] == [
            ("lab_both", "embedded.safetensors"),
            ("lab_both", "calibration.npz"),
        ]
        with pytest.raises(IntegrityError, match=r"lab_pair: .* hashes to"):
            pvr_zoo.register(fuse("lab_pair", (pvr_zoo.spec("lab_good"), pvr_zoo.spec("lab_wrong"))))
            mbrl_pvr.download_encoders(["lab_pair"], tmp_path / "others")
    finally:
        registry.unregister("lab_both")
        registry.unregister("lab_pair")


def test_what_a_name_of_the_hub_is_looked_up_by_goes_along(
    rows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = pvr_zoo.spec("lab_good")
    assert row.weights is not None
    url = row.weights.url.replace("embedded.safetensors", "calibration.npz")
    description = WeightsSource(url=url)

    def look_up(name: str) -> pvr_zoo.EncoderSpec:
        pvr_zoo.weights.locate(description)
        return replace(row, name=name)

    monkeypatch.setattr("pvr_zoo.passthrough.spec_of", look_up)
    mbrl_pvr.download_encoders(["hf:lab/net"], tmp_path / "nodes")
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "nodes"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pvr_zoo.create("hf:lab/net").identity["name"] == "hf:lab/net"


def test_a_run_and_embed_say_what_they_fetch_and_how_far_it_is(
    rows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pvr_zoo.spec("lab_good").weights
    assert source is not None
    size = f"{(DATA / 'embedded.safetensors').stat().st_size / 1e6:,.1f}"
    config = load_config(["encoder=lab_good", "env=dmc/walker-walk"])

    def told() -> list[str]:
        encoder, *_ = build.build_encoder(config, torch.device("cpu"))
        assert encoder is not None and encoder.identity["name"] == "lab_good"
        return capsys.readouterr().err.splitlines()

    place = weights.place(source)
    assert told() == [
        f"fetching {source.url} ({size} MB) to {place}",
        f"embedded.safetensors: {size} of {size} MB",
    ]
    assert told() == []  # it is there
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "other"))
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "a.png")
    assert main(["embed", str(tmp_path / "pictures"), "--encoder", "lab_good", "--out", str(tmp_path / "o.npz")]) == 0
    assert capsys.readouterr().err.startswith(f"fetching {source.url} ({size} MB) to {tmp_path / 'other'}")


def test_a_terminal_has_a_bar_for_each_file(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = partial(Console, file=screen, force_terminal=True, width=200)
    monkeypatch.setattr("rich.console.Console", lambda stderr: console())
    with downloads.Bars() as bars:
        mbrl_pvr.download_encoders(["lab_good"], progress=bars.show)
    shown = screen.getvalue()
    assert "fetching http://127.0.0.1" in shown and "━" in shown and "3.5/3.5 MB" in shown


def test_one_that_fails_does_not_stop_the_others(rows: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unavailable, match=r"lab_gone: .*404") as caught:
        mbrl_pvr.download_encoders(["lab_gone", "lab_good"])
    assert caught.value.hint.startswith("1 of 2 encoders are there")
    source = pvr_zoo.spec("lab_good").weights
    assert source is not None and pvr_zoo.weights.place(source).is_file()
    assert main(["encoders", "download", "lab_wrong", "lab_gone"]) == 3
    err = capsys.readouterr().err
    assert "lab_wrong: " in err and "lab_gone: " in err and "calibration.npz.bad" in err


def test_a_file_that_was_damaged_since_is_told(rows: None) -> None:
    (fetched,) = mbrl_pvr.download_encoders(["lab_good"])
    assert fetched.file is not None
    fetched.file.write_bytes(fetched.file.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"lab_good: .* hashes to"):
        mbrl_pvr.download_encoders(["lab_good"])


@pytest.mark.parametrize(
    ("args", "status", "what"),
    [
        ([], 2, "no encoder to download"),
        (["resnet81_in1k"], 2, "Did you mean 'resnet18_in1k'"),
        (["--for", "absent.yaml"], 2, "absent.yaml"),
        (["resnet18_in1k"], 8, "HF_HUB_OFFLINE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_requests_that_cannot_be(
    args: list[str], status: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["encoders", "download", *args]) == status
    assert what in capsys.readouterr().err
