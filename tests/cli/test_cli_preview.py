"""`mbrl-pvr envs preview`: a sheet and a film of what an agent would see, and the same as data."""

from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import count_frames_and_secs
from PIL import Image

from mbrl_pvr import preview_env
from mbrl_pvr.cli.main import main
from mbrl_pvr.envs import backend
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.preview import FILM_STEPS, SEVERITIES


@pytest.mark.skipif(bool(backend.missing("egl")), reason="no EGL here")
def test_sheet_and_film_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "looks"
    args = ["dmc/cheetah-run", "--shift", "color_hard", "--shift", "size+noise", "--size", "32", "--render", "fast"]
    assert main(["envs", "preview", *args, "--out", str(out)]) == 0
    assert "2 shifts of dmc/cheetah-run" in capsys.readouterr().out
    assert np.asarray(Image.open(out / "sheet.png")).shape == (18 + 2 * 32, 150 + 5 * 32, 3)
    assert count_frames_and_secs(out / "film.mp4")[0] == FILM_STEPS
    shown = preview_env("dmc/cheetah-run", ["color_hard", "size+noise"], size=32, render="fast")
    assert shown.frames.shape == (2, len(SEVERITIES), 32, 32, 3) and shown.film.shape == (FILM_STEPS, 3, 32, 32, 3)
    np.testing.assert_array_equal(shown.frames[0, 0], shown.frames[1, 0])  # severity 0
    assert all((shown.frames[row, 1:] != shown.frames[row, :1]).any() for row in range(2))


@pytest.mark.skipif(bool(backend.missing("egl")), reason="no EGL here")
def test_a_shift_that_changes_the_physics_is_built_anew_at_each_severity() -> None:
    shown = preview_env("dmc/cheetah-run", ["physical_size", "noise"], size=32, render="fast")
    assert shown.shifts == ("physical_size", "noise")
    np.testing.assert_array_equal(shown.frames[0, 0], shown.frames[1, 0])  # severity 0
    changed = [(shown.frames[0, 0] != frame).mean() for frame in shown.frames[0]]
    assert changed[0] == 0 and changed[-1] > 0.01 and (shown.film[:, 1] != shown.film[:, 0]).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shifts": ["sizes"]}, "unknown shift 'sizes'[\\s\\S]*Did you mean 'size'"),
        ({"shifts": ["none"]}, "'none' is no shift"),
        ({"shifts": ["objects"]}, "it cannot draw objects[\\s\\S]*It can do: study, color_easy"),
        ({"split": "test"}, "split='test'"),
        ({"bands": "inner"}, r"env\.bands must be one of"),
        ({"env": "dmc/walker-wlk"}, "unknown environment"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments: dict, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbrl_pvr.preview.make", None)
    with pytest.raises(ConfigError, match=words):
        preview_env(**{"env": "dmc/walker-walk", "size": 32, **arguments})
