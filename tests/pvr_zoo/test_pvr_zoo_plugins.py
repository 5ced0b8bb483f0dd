"""Rows of other packages, good and bad, and names that are not in the table."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pvr_zoo
from pvr_zoo import SpecError, UnknownEncoder, registry

ROW = "from dataclasses import replace\nimport pvr_zoo\nrow = pvr_zoo.spec('resnet18_in1k')\n"
MODULES = {
    "a_module": ROW + "pvr_zoo.register(replace(row, name='of_module'))",
    "b_function": ROW + "def add():\n    pvr_zoo.register(replace(row, name='of_function'))",
    "c_broken": "raise RuntimeError('no\\n  such thing')",
    "d_thief": ROW + "pvr_zoo.register(replace(row, licence='mine'))",
    "e_sneak": ROW + "from pvr_zoo import registry\nregistry.unregister(row.name)\n"
    "pvr_zoo.register(replace(row, licence='mine'))",
    "f_quits": "import sys\nsys.exit(3)",
    "g_half": ROW + "pvr_zoo.register(replace(row, name='half'))\nimport a_package_that_is_not_there",
    "h_again": ROW + "pvr_zoo.register(replace(row, name='of_module'))",
    "z_last": ROW + "pvr_zoo.register(replace(row, name='of_last'))",
}
CODE = """
import json, sys
from dataclasses import fields
import pvr_zoo
from pvr_zoo.specs import EncoderSpec, Groups, Transform
taken = ""
try:  # before anything else has asked for a row
    pvr_zoo.register(EncoderSpec("resnet18_in1k", "f", "a", "b", Transform(32, 32), (1,), (1,), ("mean",),
                                 Groups("", "", ""), "", ""))
except pvr_zoo.SpecError as error:
    taken = error.what
listed = pvr_zoo.list_encoders()
again = pvr_zoo.list_encoders()
print(json.dumps({
    "taken": taken,
    "plugins": [name for name in listed if name.startswith(("of_", "half"))],
    "same": listed == again,
    "licence": pvr_zoo.spec("resnet18_in1k").licence,
    "torch": "torch" in sys.modules,
}))
"""


def install(folder: Path, modules: dict[str, str]) -> None:
    """What pip leaves: a module and the metadata of its distribution, each a plugin."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        target = f"{name}:add" if "def add" in text else name
        (info / "entry_points.txt").write_text(f"[pvr_zoo.encoders]\n{name} = {target}\n")


def test_plugins_good_and_bad(tmp_path: Path) -> None:
    install(tmp_path, MODULES)
    (tmp_path / "gone-1.0.dist-info").mkdir()
    (tmp_path / "gone-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (tmp_path / "gone-1.0.dist-info" / "entry_points.txt").write_text("[pvr_zoo.encoders]\ngone = not_there:add\n")
    root = str(Path(pvr_zoo.__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["plugins"] == ["of_function", "of_last", "of_module"]
    assert seen["same"] and not seen["torch"]
    assert seen["licence"] == pvr_zoo.spec("resnet18_in1k").licence
    assert "registered already" in seen["taken"]
    reasons = {
        "c_broken (c_broken)": "RuntimeError: no such thing",
        "d_thief (d_thief)": "registered already",
        "e_sneak (e_sneak)": "it replaced resnet18_in1k",
        "f_quits (f_quits)": "SystemExit: 3",
        "g_half (g_half)": "a_package_that_is_not_there",
        "gone (not_there:add)": "not_there",
        "h_again (h_again)": "registered already",
    }
    warnings = done.stderr.splitlines()
    assert len(warnings) == len(reasons)
    for warning, (plugin, reason) in zip(warnings, reasons.items(), strict=True):
        assert warning.startswith(f"encoder plugin {plugin} is left out: ") and reason in warning


@pytest.mark.parametrize("name", ["hf:mine", "a/b", "net.safetensors", "random:x"])
def test_names_that_mean_something_else_cannot_be_registered(name: str) -> None:
    with pytest.raises(SpecError, match="cannot be the name"):
        pvr_zoo.register(replace(pvr_zoo.spec("resnet18_in1k"), name=name))


def test_random_is_the_control_of_any_row(frames: torch.Tensor) -> None:
    control = pvr_zoo.spec("random:resnet18_in1k", truncate=2)
    published = pvr_zoo.spec("resnet18_in1k", truncate=2)
    assert (control.seed, control.weights, control.licence) == (0, None, "MIT")
    assert control.groups.objective == "none (random weights)"
    assert (control.feature_shape, control.transform) == (published.feature_shape, published.transform)
    encoder = pvr_zoo.create("random:resnet18_in1k", truncate=2, input_size=64)
    assert encoder.identity["name"] == "random:resnet18_in1k" and encoder.identity["weights_sha256"] is None
    named = pvr_zoo.create("random_resnet18", truncate=2, input_size=64)
    torch.testing.assert_close(encoder(frames), named(frames), atol=0, rtol=0)
    with pytest.raises(SpecError, match="random by definition"):
        pvr_zoo.create("random:resnet18_in1k", weights="net.pth")


@pytest.mark.parametrize("name", ["random:random_resnet18", "random:random:resnet18_in1k"])
def test_what_is_random_has_no_control(name: str) -> None:
    with pytest.raises(SpecError, match="is random already"):
        pvr_zoo.spec(name)


def test_random_of_a_file_carries_no_path() -> None:
    path = Path(pvr_zoo.__file__).parent / "data" / "embedded.safetensors"
    assert pvr_zoo.spec(f"random:{path}").name == f"random:{pvr_zoo.spec(path).name}"


@pytest.mark.parametrize("name", ["random:resnet81_in1k", "random:", "unknown:resnet18_in1k"])
def test_unknown_names_behind_a_colon(name: str) -> None:
    with pytest.raises(UnknownEncoder):
        pvr_zoo.spec(name)


@pytest.mark.parametrize("name", ["timm:resnet18.a1_in1k", "openclip:ViT-B-32/laion2b", "hf:org/name"])
def test_names_of_other_libraries_are_passed_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = pvr_zoo.spec("resnet18_in1k")
    monkeypatch.setattr("pvr_zoo.passthrough.spec_of", lambda asked: replace(row, name=asked))
    assert pvr_zoo.spec(name, truncate=1).name == name
    assert pvr_zoo.spec(f"random:{name}").name == f"random:{name}"
    assert not registry.is_file_name(name)
