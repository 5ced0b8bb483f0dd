"""`embed`: each picture's own feature under its own name, frames at their times, and nothing half-written."""

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

import mbrl_pvr
import pvr_zoo
from mbrl_pvr import embedding
from mbrl_pvr.cli.main import main
from mbrl_pvr.errors import ConfigError, IntegrityError, StorageError
from mbrl_pvr.features import Features
from world_models.types import ObsShapes


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Large patches, so that features differ and lossy files do not change them much."""
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]


def feature(picture: np.ndarray) -> np.ndarray:
    return pvr_zoo.create("embedded")(torch.from_numpy(picture.copy())[None]).numpy()[0]


def save(path: Path, picture: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)


def film(path: Path, pictures: list[np.ndarray], *options: str) -> Path:
    """A video of exactly these pixels, ten a second."""
    height, width, _ = pictures[0].shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "10", "-i", "-"]
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *source, *options, "-c:v", "png", str(path)]
    subprocess.run(command, input=b"".join(p.tobytes() for p in pictures), check=True)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of three sizes, and things that are none."""
    save(tmp_path / "in" / "b.png", noise(40, 90))
    save(tmp_path / "in" / "a.PNG", noise(64, 64, 1))
    save(tmp_path / "in" / "sub" / "c.bmp", noise(130, 70, 2))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "._b.png").write_text("what some systems leave beside a picture")
    return tmp_path / "in"


# -------------------------------------------------------------------------------------------------------- what it gives


def test_pictures_of_different_sizes(folder: Path) -> None:
    got = mbrl_pvr.embed(folder, "embedded", batch_size=2)
    assert got.names == ["a.PNG", "b.png", "sub/c.bmp"] and got.times is None
    wanted = [feature(noise(64, 64, 1)), feature(noise(40, 90)), feature(noise(130, 70, 2))]
    np.testing.assert_allclose(got.features, wanted, atol=1e-5)
    assert got.identity == pvr_zoo.create("embedded").identity


@pytest.mark.parametrize("encoder", ["embedded", "random_resnet18"])
def test_features_are_those_that_a_run_keeps(tmp_path: Path, encoder: str) -> None:
    """To the bit: the same preprocessing, network and rounding."""
    frames = np.stack([noise(256, 256, seed) for seed in range(4)])
    for number, frame in enumerate(frames):
        save(tmp_path / f"{number}.png", frame)
    got = mbrl_pvr.embed(tmp_path, encoder, batch_size=4, dtype="float16")
    network = pvr_zoo.create(encoder)
    run = Features(ObsShapes(feature=network.feature_shape), network)
    kept = run.view(SimpleNamespace(frame=frames)).feature
    assert kept is not None and np.array_equal(got.features, kept)


def test_the_command_writes_what_the_call_returns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "new" / "features.npz"
    args = ["embed", str(folder), "--encoder", "embedded", "--out", str(out), "--batch-size", "2"]
    assert main([*args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["count"], told["feature_shape"], told["dtype"]) == (3, [256], "float32")
    wanted = mbrl_pvr.embed(folder, "embedded")
    with np.load(out, allow_pickle=False) as held:
        assert sorted(held) == ["features", "identity", "names"]
        np.testing.assert_allclose(held["features"], wanted.features, atol=1e-5)
        assert held["features"].dtype == np.float32
        assert held["names"].tolist() == wanted.names
        assert json.loads(str(held["identity"])) == wanted.identity == told["identity"]
    loaded = embedding.load(out)
    assert isinstance(loaded.features, np.memmap) and loaded.names == wanted.names
    np.testing.assert_array_equal(loaded.features, np.load(out)["features"])
    assert [path.name for path in out.parent.iterdir()] == ["features.npz"]
    assert main([*args, "--dtype", "float16"]) == 2
    assert "there already" in capsys.readouterr().err and np.load(out)["features"].dtype == np.float32
    assert main([*args, "--dtype", "float16", "--replace"]) == 0
    assert np.load(out)["features"].dtype == np.float16
    assert "3 features of 256, float16, from embedded" in capsys.readouterr().out


def test_overrides_reach_the_encoder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--truncate", "1", "--truncate", "2", "--feature", "mean", "--input-size", "32", "--device", "cpu"]
    out = tmp_path / "o.npz"
    assert main(["embed", str(folder), "--encoder", "random:resnet18_in1k", "--out", str(out), "--json", *named]) == 0
    identity = json.loads(capsys.readouterr().out)["identity"]
    assert {key: identity[key] for key in ("name", "truncate", "feature", "input_size")} == {
        "name": "random:resnet18_in1k",
        "truncate": [1, 2],
        "feature": "mean",
        "input_size": 32,
    }
    assert np.load(out)["features"].shape == (3, 64 + 128)


def test_the_final_norm_can_be_left_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["embed", str(folder), "--encoder", "random_vits16", "--truncate", "1", "--input-size", "32", "--json"]
    features = {}
    for norm in ("keep", "none"):
        assert main([*args, "--norm", norm, "--out", str(tmp_path / f"{norm}.npz")]) == 0
        assert json.loads(capsys.readouterr().out)["identity"]["norm"] == norm
        features[norm] = np.load(tmp_path / f"{norm}.npz")["features"]
    assert not np.allclose(features["keep"], features["none"], atol=1e-2)


def test_weights_of_ones_own(folder: Path) -> None:
    own = Path(pvr_zoo.__file__).parent / "data" / "embedded.safetensors"
    got = mbrl_pvr.embed(folder, "embedded", weights=own)
    assert got.identity["weights_origin"] == "file"


@pytest.mark.parametrize(("tag", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_picture_is_turned_as_the_camera_says(tmp_path: Path, tag: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    save(tmp_path / "p.jpg", noise(48, 80), quality=100, exif=exif)
    stored = np.array(Image.open(tmp_path / "p.jpg"))
    np.testing.assert_array_equal(embedding.read_picture(tmp_path / "p.jpg"), np.rot90(stored, turns))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_other_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(noise(16, 24)).convert(mode).save(tmp_path / f"p.{suffix}")
    picture = embedding.read_picture(tmp_path / f"p.{suffix}")
    assert picture.shape == (16, 24, 3) and picture.dtype == np.uint8


def test_one_picture(folder: Path) -> None:
    got = mbrl_pvr.embed(str(folder / "b.png"), "embedded")
    assert got.names == ["b.png"] and got.features.shape == (1, 256)


# --------------------------------------------------------------------------------------------------------------- video


def test_frames_and_their_times(tmp_path: Path) -> None:
    pictures = [noise(40, 56, seed) for seed in range(5)]
    video = film(tmp_path / "v.mkv", pictures)
    got = mbrl_pvr.embed(video, "embedded", tmp_path / "v.npz", batch_size=2)
    assert got.names is None and got.times is not None
    np.testing.assert_allclose(got.times, np.arange(5) / 10, atol=1e-3)
    np.testing.assert_allclose(got.features, [feature(picture) for picture in pictures], atol=1e-5)
    with np.load(tmp_path / "v.npz") as held:
        assert sorted(held) == ["features", "identity", "times"]


def test_uneven_times_are_kept_and_no_frame_is_doubled(tmp_path: Path) -> None:
    late = "setpts='round((N*0.1+gte(N,2))/TB)'"
    video = film(tmp_path / "v.mkv", [noise(16, 16, s) for s in range(4)], "-vf", late, "-fps_mode", "passthrough")
    frames = list(embedding.read_frames(video))
    np.testing.assert_allclose([time for time, _ in frames], [0, 0.1, 1.2, 1.3], atol=1e-3)
    for number, (_, picture) in enumerate(frames):
        np.testing.assert_array_equal(picture, noise(16, 16, number))


def test_a_video_is_turned_as_the_camera_says(tmp_path: Path) -> None:
    flat = film(tmp_path / "flat.mov", [noise(16, 48)])
    turned = tmp_path / "turned.mov"
    command = [get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", str(flat), "-c", "copy", str(turned)]
    subprocess.run(command, check=True)
    ((_, picture),) = embedding.read_frames(turned)
    np.testing.assert_array_equal(picture, np.rot90(noise(16, 48)))


# --------------------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("empty", "no pictures in this folder"),
        ("absent", "no such folder or file"),
        ("notes.txt", "'.txt'|.txt is not that of a picture or a video"),
        ("noending", "no ending is not that"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, source: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "noending").write_text("x")
    args = ["embed", str(tmp_path / source), "--encoder", "embedded", "--out", str(tmp_path / "o.npz")]
    assert main(args) == 2
    err = capsys.readouterr().err
    assert any(part in err for part in what.split("|")) and str(tmp_path / source) in err
    assert not (tmp_path / "o.npz").exists()


def _cut(path: Path) -> None:
    save(path, noise(200, 200))
    path.write_bytes(path.read_bytes()[:2000])


def _pages(path: Path) -> None:
    pages = [Image.fromarray(noise(8, 8, seed)) for seed in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


BAD_FILES = {
    "text.png": (lambda path: path.write_text("no picture"), "cannot be read"),
    "nothing.jpg": (lambda path: path.write_bytes(b""), "cannot be read"),
    "cut.jpg": (_cut, "cannot be read"),
    "pages.tif": (_pages, "3 pictures"),
    "deep.png": (lambda path: Image.fromarray(np.zeros((8, 8), np.uint16)).save(path), "more than 8 bits"),
    "thin.png": (lambda path: save(path, np.zeros((1, 500, 3), np.uint8)), "500×1 pixels is too thin"),
    "text.mp4": (lambda path: path.write_text("no video"), "cannot be read"),
    "nothing.mkv": (lambda path: path.write_bytes(b""), "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write, what = BAD_FILES[name]
    write(tmp_path / name)  # type: ignore[operator]
    args = ["embed", str(tmp_path / name), "--encoder", "embedded", "--out", str(tmp_path / "o.npz")]
    assert main(args) == 3
    err = capsys.readouterr().err
    assert what in err and name in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (["--out", "o.csv"], "must end in .npz"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--dtype", "int8"], "dtype='int8'"),
        (["--device", "tpu"], "device='tpu'"),
        (["--encoder", "embeded"], "Did you mean 'embedded'"),
        (["--feature", "cls"], "no feature='cls'"),
        (["--truncate", "9"], "truncate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_requests_that_cannot_be(folder: Path, extra: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["embed", str(folder), "--encoder", "embedded", "--out", str(folder.parent / "o.npz")]
    assert main([*args, *extra]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there(folder: Path) -> None:
    args = ["embed", str(folder), "--encoder", "embedded", "--out", str(folder.parent / "o.npz"), "--device", "cuda"]
    assert main(args) == 8


def test_an_interruption_leaves_what_was_there(folder: Path) -> None:
    out = folder.parent / "o.npz"
    out.write_bytes(b"the file of before")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mbrl_pvr.embed(folder, "embedded", out, batch_size=1, replace=True, progress=stop)
    assert out.read_bytes() == b"the file of before"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["in", "o.npz"]


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    with pytest.raises(StorageError):
        mbrl_pvr.embed(folder, "embedded", folder / "b.png" / "o.npz")


def test_a_picture_too_small_to_be_meant_is_named(folder: Path) -> None:
    save(folder / "sub" / "d.png", noise(5, 64))
    with pytest.raises(pvr_zoo.FrameError, match=r"got frames of 5×64 \(sub/d\.png\)"):
        mbrl_pvr.embed(folder, "embedded")


def test_a_value_that_float16_cannot_hold_names_the_picture(folder: Path) -> None:
    encoder = pvr_zoo.create("embedded")
    network = encoder.network
    encoder.network = torch.nn.Sequential(network, torch.nn.Linear(256, 256, bias=False))
    encoder.network[1].weight = torch.nn.Parameter(1e8 * torch.eye(256))
    with pytest.raises(IntegrityError, match=r"float16 cannot hold \(a.PNG\)"):
        embedding.embed(
            embedding.find(folder), encoder, None, batch_size=4, dtype="float16", progress=lambda done, total: None
        )


def test_pictures_are_let_go_one_by_one() -> None:
    made: list[weakref.ref[np.ndarray]] = []
    most = 0

    def items() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal most
        for number in range(12):
            picture = noise(64, 64, number).copy()
            made.append(weakref.ref(picture))
            most = max(most, sum(ref() is not None for ref in made))
            yield str(number), picture
            del picture

    told: list[tuple[int, int]] = []
    source = embedding.Source(items(), 12, False)
    encoder = pvr_zoo.create("embedded")
    embedding.embed(
        source, encoder, None, batch_size=5, dtype="float32", progress=lambda done, total: told.append((done, total))
    )
    assert most <= 2
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_mistakes_and_help_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mbrl_pvr.cli.main import main\n"
        "statuses = [main(args.split()) for args in ('embed --help', 'encoders download --help',"
        " 'embed absent --encoder embedded --out o.npz', 'encoders download nonsense')]\n"
        "print(statuses, 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[0, 0, 2, 2] False"


def test_python_mistakes() -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        mbrl_pvr.embed("nowhere", "embedded")


def test_bfloat16_is_written_down_with_its_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact = mbrl_pvr.embed(folder, "embedded")
    out = folder.parent / "half.npz"
    assert main(["embed", str(folder), "--encoder", "embedded", "--precision", "bfloat16", "--out", str(out)]) == 0
    assert "computed in bfloat16: features differ from float32's by" in capsys.readouterr().out
    half = embedding.load(out)
    assert half.identity == exact.identity | {"precision": "bfloat16"}
    assert exact.error == 0 and 1e-4 < half.error < 0.05
    difference = np.square(half.features - exact.features).mean() ** 0.5
    assert 1e-4 < difference / exact.features.std() < 0.05
    with pytest.raises(ConfigError, match="precision='half' is not one of float32, bfloat16, auto"):
        mbrl_pvr.embed(folder, "embedded", precision="half")
