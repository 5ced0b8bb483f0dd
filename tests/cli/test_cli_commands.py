"""What commands print and pass on, how errors of every class end, and what stays unimported."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import mbrl_pvr
from analysis.errors import AnalysisError
from mbrl_pvr import api, doctor, errors
from mbrl_pvr.cli.main import main
from mbrl_pvr.cli.output import clean, jsonable
from mbrl_pvr.config import from_dict, load_config, read_config, shrink
from pvr_zoo.errors import WeightsError

HEAVY = {"torch", "numpy", "pandas", "hydra", "omegaconf", "timm", "mujoco", "dm_control", "gymnasium", "matplotlib"}
COLUMNS = ("kind", "split", "shift", "severity", "return", "success", "normalised")
ROWS = [
    dict(zip(COLUMNS, ("ood", *row), strict=True))
    for row in (
        ("train", "none", 0.0, 10.0, None, 0.2),
        ("train", "none", 0.0, 30.0, None, 0.3),
        ("held_out", "color_easy", 1.0, 5.0, None, None),
    )
]

MADE = {
    "page": Path("o/report.html"),
    "runs": ["r"],
    "figures": ["returns"],
    "explored": ["a"],
    "claims": "",
    "notes": ["a: 5 of 9 steps"],
    "missing": [{"figure": "latents", "run": "r", "reason": "no latents", "command": "mbrl-pvr record r"}],
    "unfinished": [{"run": "q", "state": "running", "command": "mbrl-pvr resume q"}],
}


@pytest.mark.parametrize(
    "args",
    [
        *(["--help"], ["--version"], ["train", "--help"], ["doctor", "--help"], ["encoders", "list"], ["envs", "list"]),
        *(["study", "--help"], ["study", "run", "--help"]),
    ],
    ids=" ".join,
)
def test_help_and_lists_import_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys\nfrom mbrl_pvr.cli.main import main\nstatus = main(sys.argv[2:])\n"
        "print(status, sorted(set(sys.argv[1].split()) & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, " ".join(HEAVY), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 []"
    assert done.stdout.strip()


def test_reading_a_configuration_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; from mbrl_pvr.config import load_config; load_config(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_lists_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "list", "dmc/walker*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["dmc/walker-run", "dmc/walker-stand", "dmc/walker-walk"]
    assert main(["encoders", "list", "resnet18*", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["input"], row["feature_shape"]) == ("resnet18_in1k", "224×224", [512])
    assert (row["objective"], row["data"], row["licence_class"]) == ("classification", "ImageNet-1k", "permissive")


def test_info_says_what_a_truncation_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders", "info", "resnet18_in1k", "--truncate", "2", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["truncate"], facts["feature_shape"]) == (2, [128])


def test_profile_has_a_row_for_each_choice(capfd: pytest.CaptureFixture[str]) -> None:
    command = ["encoders", "profile", "resnet18_in1k", "--truncate", "1", "--truncate", "2", "--batch", "1"]
    assert main([*command, "--json"]) == 0
    told = capfd.readouterr()
    rows = json.loads(told.out)
    assert [(row["truncate"], row["dtype"]) for row in rows] == [
        *((1, "float32"), (1, "bfloat16")),
        *((2, "float32"), (2, "bfloat16")),
    ]
    assert [row["bytes_in_replay"] for row in rows] == [128, 128, 256, 256]
    assert rows[0]["gigaflops"] < rows[2]["gigaflops"] and rows[0]["error"] == 0 < rows[1]["error"]
    assert rows[0]["weights_megabytes"] == pytest.approx(2 * rows[1]["weights_megabytes"], rel=0.01)
    assert told.err.strip().splitlines()[-1].startswith("profile step 4/4")  # the only line where a step is quick
    assert main([*command, "--dtype", "float32"]) == 0
    header, *lines = capfd.readouterr().out.splitlines()
    assert header.split()[:4] == ["encoder", "levels", "dtype", "batch"]
    assert [line.split()[:4] for line in lines[:2]] == [["random:resnet18_in1k", k, "float32", "1"] for k in "12"]


def test_print_config_can_be_given_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "demo", "seed=9", "--print-config"]) == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert read_config(file) == load_config(["seed=9"], "demo")
    assert main(["train", "--config", str(file), "--print-config", "--json"]) == 0
    assert from_dict(json.loads(capsys.readouterr().out)) == load_config(["seed=9"], "demo")


def test_dry_run_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "seed=2", "--dry-run"]) == 0
    assert "runs/tdmpc2-embedded-cartpole-balance-seed2" in capsys.readouterr().out
    assert main(["train", "--debug", "--dir", "here", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dir"] == "here" and from_dict(told["config"]) == shrink(load_config())
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MBRL_PVR_CACHE", str(tmp_path / "empty"))
    assert main(["train", "encoder=resnet34_in1k", "--dry-run"]) == 0
    assert "would be fetched: https://download.pytorch.org/models/resnet34" in capsys.readouterr().out
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("mine")
    assert main(["train", "--dir", "taken", "--dry-run"]) == 5
    assert main(["train", "encoder=resnet18_in1k", "encoder.weights=/etc/passwd", "--dry-run"]) == 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["train", "device=cuda", "--dry-run"]) == 8


@pytest.mark.parametrize(
    ("args", "function", "expected"),
    [
        (
            ["train", "seed=2", "--dir", "d"],
            "train",
            ((["seed=2"], Path("d")), {"config": None, "debug": False, "licence": None}),
        ),
        (
            ["train", "--config", "demo", "--debug"],
            "train",
            (([], None), {"config": "demo", "debug": True, "licence": None}),
        ),
        (["resume", "r"], "resume", ((Path("r"),), {})),
        (["eval", "r", "--video"], "evaluate", ((Path("r"),), {"episodes": 12, "video": True, "debug": False})),
        (["eval", "r", "--debug"], "evaluate", ((Path("r"),), {"episodes": 12, "video": False, "debug": True})),
        (
            ["ood", "r", "--shift", "color_hard", "--shift", "noise", "--severity", "0.5", "--no-video"],
            "ood",
            (
                (Path("r"),),
                {"episodes": 200, "shifts": ["color_hard", "noise"], "severities": [0.5], "each_factor": False}
                | {"video": False, "debug": False},
            ),
        ),
        (
            ["record", "r", "--context", "5"],
            "record",
            (
                (Path("r"),),
                {"episodes": 10, "context": 5, "starts": 8, "horizon": 33, "bank": None, "shift": "", "severity": None}
                | {"frames": True, "debug": False},
            ),
        ),
        (
            ["analyze", "a", "b", "--out", "o"],
            "analyze",
            (
                ([Path("a"), Path("b")], Path("o")),
                {"figures": None, "unfinished": False, "colour": "reward", "latent": "state"},
            ),
        ),
        (
            [
                "analyze",
                "a",
                "--out",
                "o",
                "--figure",
                "errors",
                "--window",
                "33",
                "--window",
                "80",
                "--format",
                "svg",
                "--colour",
                "state 2",
                "--latent",
                "z",
            ],
            "analyze",
            (
                ([Path("a")], Path("o")),
                {
                    "figures": ["errors"],
                    "unfinished": False,
                    "windows": [33, 80],
                    "formats": ["svg"],
                    "colour": "state 2",
                    "latent": "z",
                },
            ),
        ),
        (
            ["report", "a", "b", "--out", "o"],
            "report",
            (([Path("a"), Path("b")], Path("o")), {"unfinished": False, "claims": None}),
        ),
        (
            ["report", "a", "--out", "o", "--claims", "small_cpu"],
            "report",
            (([Path("a")], Path("o")), {"unfinished": False, "claims": "small_cpu"}),
        ),
        (
            ["pretrain", "autoencoder", "env=dmc/finger-spin", "frames=r1,r2", "--steps", "5", "--out", "x"],
            "pretrain",
            (
                (["env=dmc/finger-spin"], Path("x")),
                {"steps": 5, "replace": False, "debug": False, "frames": [Path("r1"), Path("r2")]},
            ),
        ),
        (
            ["pretrain", "autoencoder", "frames=1_000", "--replace"],
            "pretrain",
            (([], None), {"steps": 8000, "replace": True, "debug": False, "frames": 1000}),
        ),
        (
            ["pretrain", "autoencoder", "frames=1e3"],
            "pretrain",
            (([], None), {"steps": 8000, "replace": False, "debug": False, "frames": 1000}),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands_are_calls(
    args: list[str], function: str, expected: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("r1", "r2"):
        Path(run).mkdir()
    calls = []
    report = {"figures": {"x": [Path("x.pdf")]}, "notes": {"x": ["one seed"]}, "missing": [], "unfinished": []}
    results: dict[str, Any] = {
        "analyze": report,
        "report": MADE,
        "record": [Path("p")],
        "pretrain": Path("p"),
        "evaluate": pd.DataFrame(ROWS),
        "ood": pd.DataFrame(ROWS),
    }

    def call(*positional: Any, **named: Any) -> Any:
        calls.append((positional, named))
        return results.get(function, {})

    monkeypatch.setattr(api, function, call)
    assert main(args) == 0
    assert calls == [expected]


def test_episodes_are_summed_up_by_split(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(api, "ood", lambda *_, **__: pd.DataFrame(ROWS))
    assert main(["ood", "r"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [
        ["train", "none", "0.0", "2", "20.0", "10.0", "30.0", "0.250"],
        ["held_out", "color_easy", "1.0", "1", "5.0", "5.0", "5.0", "-"],
    ]
    assert main(["ood", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ROWS


def test_analyze_names_files_and_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack = {"figure": "latents", "run": "r", "reason": "no latents.npz", "command": "mbrl-pvr record r"}
    waiting = {"run": "q", "state": "running", "command": "mbrl-pvr resume q"}
    report = {
        "figures": {"returns": [Path("o/r.pdf"), Path("o/r.png")]},
        "notes": {"returns": ["one seed"]},
        "missing": [lack, {**lack, "figure": "errors"}, {**lack, "reason": "constant latents", "command": ""}],
        "unfinished": [waiting],
    }
    monkeypatch.setattr(api, "analyze", lambda *_, **__: report)
    assert main(["analyze", "r", "q", "--out", "o"]) == 0
    figure, note, missing, helpless, unfinished = capsys.readouterr().out.splitlines()
    assert (figure, note) == ("returns: o/r.pdf, o/r.png", "  one seed")
    assert missing == "latents, errors not drawn for r: no latents.npz. Make it: mbrl-pvr record r"
    assert helpless == "latents not drawn for r: constant latents"
    assert "mbrl-pvr resume q" in unfinished and "--unfinished" in unfinished


def test_report_names_the_page_and_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "report", lambda *_, **__: MADE)
    assert main(["report", "r", "q", "--out", "o"]) == 0
    page, note, missing, unfinished = capsys.readouterr().out.splitlines()
    assert (page, note) == ("o/report.html: 1 run, figures returns", "  a: 5 of 9 steps")
    assert missing == "latents not drawn for r: no latents. Make it: mbrl-pvr record r"
    assert "mbrl-pvr resume q" in unfinished
    monkeypatch.setattr(api, "report", lambda *_, **__: {**MADE, "claims": "configs/claims/x.yaml"})
    assert main(["report", "r", "q", "--out", "o"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  claims of configs/claims/x.yaml"
    assert main(["report", "r", "q", "--out", "o", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == "o/report.html"


ERRORS = [
    (errors.ConfigError("bad", "there", "Do this"), 2, "bad (there)\nDo this\n"),
    (errors.IntegrityError("cut"), 3, "cut\n"),
    (errors.RunLocked("busy"), 4, "busy\n"),
    (errors.StorageError("full"), 5, "full\n"),
    (errors.UnsafeFile("code"), 6, "code\n"),
    (errors.EnvError("dead"), 7, "dead\n"),
    (errors.Unavailable("absent"), 8, "absent\n"),
    (WeightsError("html"), 3, "html\n"),
    (AnalysisError("hole", "x", exit_code=3), 3, "hole (x)\n"),
    (OSError(28, "No space left on device", "/run"), 5, "the system refused: No space left on device (/run)\n"),
    (
        ModuleNotFoundError("No module named 'wandb'", name="wandb"),
        8,
        "the package 'wandb' is not installed\nInstall it: pip install wandb\n",
    ),
    (KeyboardInterrupt(), 130, "interrupted\n"),
    (KeyboardInterrupt("stopped at step 5 and saved"), 130, "stopped at step 5 and saved\n"),
    (errors.ConfigError("name \x1b[31m\x07 \u202e"), 2, "name ?[31m? ?\n"),
]


@pytest.mark.parametrize(("error", "status", "text"), ERRORS, ids=lambda v: type(v).__name__)
def test_errors_end_in_lines_and_a_status(
    error: BaseException, status: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(error, monkeypatch)
    assert main(["resume", "r"]) == status
    assert capsys.readouterr() == ("", text)


@pytest.mark.parametrize(
    "error", [KeyError("x"), ModuleNotFoundError("no", name="mbrl_pvr.gone"), RuntimeError("a\nb")]
)
def test_what_nobody_expected_is_called_a_bug(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(error, monkeypatch)
    assert main(["resume", "r"]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 2 and "bug" in err and "--traceback" in err and "Traceback" not in err


@pytest.mark.parametrize("args", [["--traceback", "resume", "r"], ["resume", "r", "--traceback"], ["resume", "r"]])
def test_traceback_on_request(
    args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(errors.EnvError("dead"), monkeypatch)
    if "--traceback" not in args:
        monkeypatch.setenv("MBRL_PVR_TRACEBACK", "1")
    assert main(args) == 7
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith("dead\n")


def test_red_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _fail_with(errors.EnvError("dead", hint="Look"), monkeypatch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["resume", "r"])
    assert capsys.readouterr().err == "\x1b[31mdead\x1b[0m\nLook\n"
    monkeypatch.setenv("NO_COLOR", "1")
    main(["resume", "r"])
    assert capsys.readouterr().err == "dead\nLook\n"


def test_closed_pipe_is_quiet() -> None:
    code = "import sys; from mbrl_pvr.cli.main import main; sys.exit(main(['envs', 'list']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 141


def test_json_knows_no_nan() -> None:
    table = pd.DataFrame({"a": [1.0, float("nan")], "b": ["x", "y"]})
    assert jsonable({"t": table, "p": Path("q"), "n": table["a"].to_numpy()}) == {
        "t": [{"a": 1.0, "b": "x"}, {"a": None, "b": "y"}],
        "p": "q",
        "n": [1.0, None],
    }
    with pytest.raises(TypeError, match="object"):
        jsonable(object())


def test_clean_keeps_text_and_lines() -> None:
    assert clean("é 漢 …\nb\r\x00") == "é 漢 …\nb??"


@pytest.mark.parametrize("name", [n for n in mbrl_pvr.__all__ if n != "__version__"])
def test_python_equivalents_are_not_shadowed_by_modules(name: str) -> None:
    assert callable(getattr(mbrl_pvr, name))
    assert importlib.util.find_spec(f"mbrl_pvr.{name}") is None, "importing this module would replace the function"


def test_lists_and_doctor_as_calls_import_no_torch() -> None:
    code = (
        "import sys, mbrl_pvr\nassert 'pvr_zoo' not in sys.modules\n"
        "print(mbrl_pvr.list_encoders('resnet18*'), mbrl_pvr.list_envs('dmc/walker-w*'), mbrl_pvr.examine.__name__,"
        " 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['resnet18_in1k'] ['dmc/walker-walk'] examine False\n"


def test_examine_gives_the_findings_of_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.Finding("disk", doctor.OK, "for 3 s")
    monkeypatch.setattr(doctor, "CHECKS", [lambda timeout: [finding] if timeout == 3 else []])
    assert mbrl_pvr.examine(timeout=3) == [finding]
    assert main(["doctor", "--timeout", "3"]) == 0


def test_a_finished_configuration_is_accepted_as_it_is() -> None:
    config = load_config(["seed=3"])
    assert api.configure(config=config) == config
    assert api.configure(config=config, debug=True) == shrink(config)
    with pytest.raises(errors.ConfigError, match="RunConfig"):
        api.configure(["seed=1"], config=config)


def _fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(api, "resume", fail)
