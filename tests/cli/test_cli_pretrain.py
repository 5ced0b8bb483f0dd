"""`pretrain --out`: what cannot become an encoder file is told before any frame is drawn, and stays as it is."""

import os
from pathlib import Path

import pytest

from mbrl_pvr import pretraining
from mbrl_pvr.cli.main import main
from pvr_zoo import ConvAutoencoder, save_encoder

CONFIG, STORAGE = 2, 5


def test_help_says_which_runs_have_frames(capsys: pytest.CaptureFixture) -> None:
    for command in (["pretrain"], ["pretrain", "autoencoder"]):
        assert main([*command, "--help"]) == 0
        assert "runs with encoder=scratch" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("out", "status", "words"),
    [
        ("notes.txt", CONFIG, "ends in .safetensors"),
        ("mine.safetensors", CONFIG, "is no encoder file"),
        ("pipe.safetensors", CONFIG, "is no encoder file"),
        ("encoder.safetensors", CONFIG, "--replace"),
        ("/proc/nope/x.safetensors", STORAGE, "(/proc)"),
    ],
)
def test_out_is_checked_first(
    out: str, status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("frames were drawn before --out was checked")

    monkeypatch.setattr(pretraining, "random_frames", work)
    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").write_text("weights of another kind")
    os.mkfifo("pipe.safetensors")
    save_encoder(Path("encoder.safetensors"), ConvAutoencoder(), {})
    encoder = Path("encoder.safetensors").read_bytes()
    assert main(["pretrain", "autoencoder", "env=counting/default", "frames=5", "--steps", "2", "--out", out]) == status
    shown = capsys.readouterr()
    assert shown.out == "" and words in shown.err and len(shown.err.splitlines()) == 2
    assert Path("encoder.safetensors").read_bytes() == encoder
    assert sorted(os.listdir()) == ["encoder.safetensors", "mine.safetensors", "pipe.safetensors"]
    assert Path("mine.safetensors").read_text() == "weights of another kind" and Path("pipe.safetensors").is_fifo()
