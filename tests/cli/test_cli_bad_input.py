"""Every slip ends in one or two lines and the exit status of its class, and leaves nothing on the disk."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mbrl_pvr.cli.main import main

CONFIG, INTEGRITY, STORAGE, UNSAFE, UNAVAILABLE = 2, 3, 5, 6, 8
LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@dataclass(frozen=True)
class Case:
    """Arguments of the command, its exit status, and words that the error must hold; `file` becomes bad.yaml."""

    args: list[str]
    status: int
    words: list[str]
    file: bytes | None = None
    id: str = field(default="")


def train(*overrides: str) -> list[str]:
    return ["train", *overrides]


def override(text: str, *words: str, status: int = CONFIG) -> Case:
    return Case(train(text), status, list(words), id=text[:40])


def inert(text: str, setting: str) -> Case:
    words = [f"{text.partition('=')[0]} means nothing with {setting}", f"override {text!r}"]
    return Case(train(setting, text), CONFIG, words, id=f"{text} beside {setting}")


def yaml(name: str, text: str | bytes, *words: str, status: int = CONFIG) -> Case:
    raw = text.encode() if isinstance(text, str) else text
    return Case(["train", "--config", "bad.yaml"], status, list(words), raw, id=name)


CASES = [
    # names
    override("agent=dreamer3", "unknown agent 'dreamer3'", "dreamerv3"),
    override("agent=tdmpc", "'tdmpc2'"),
    override("encoder=resnet18_in2k", "resnet18_in1k"),
    override("encoder=dinov2_vits16", "dinov2_vits14"),
    override("env=dmc/walker-fly", "dmc/walker-walk"),
    override("env=dcm/walker-walk", "dmc/walker-walk"),
    override("env=dmc_walker_wlak", "dmc/walker-walk"),
    override("env=miniworld/PickupObject", "'miniworld/PickupObjects'"),
    override("env=gym/CartPole-v1", "gym:ID"),
    override("env=gym:Cart Pole", "gym:ID or gym:MODULE:ID"),
    override("lr_rate=1", "unknown key 'lr_rate'", "'agent.enc_lr_scale'"),
    override("agent.batchsize=8", "'agent.batch_size'"),
    override("sed=1", "'seed'"),
    override("replay=5", "section", "replay.capacity"),
    override("hydra.run.dir=/tmp", "unknown key"),
    override("env.name.x=1", "unknown key"),
    # types
    override("seed=abc", "seed wants an integer", "'abc'"),
    override("seed=1.5", "seed wants an integer", "1.5"),
    override("seed=", "seed wants an integer"),
    override("seed=null", "seed wants an integer", "null"),
    override("seed=[1,2]", "seed wants an integer"),
    override("env.proprio=1", "true or false"),
    override("env.name=7", "env.name wants text"),
    override("encoder.truncate=all", "encoder.truncate wants an integer or a list of integers or null"),
    override("device=gpu", "auto, cpu, cuda"),
    override("compile=maybe", "auto, on, off"),
    override("agent.front_end=conv", "linear", "mlp"),
    override("encoder.norm=kept", "'keep'"),
    override("sinks=[wandv]", "unknown sink 'wandv'", "'wandb'"),
    override("sinks=[wandb,wandb]", "'wandb'", "twice"),
    override("sinks=wandb", "sinks wants a list"),
    override("tensorboard=false", "unknown key 'tensorboard'"),
    override("env.pixels=false", "unknown key 'env.pixels'"),
    override("env={pixels: false}", "unknown key 'env.pixels'"),
    override("agent_preset=tdmpc2_tiny", "agent_preset follows from the agent"),
    override("agent.name=dreamerv3", "agent.name follows from the agent"),
    override("agnt=tdmpc2", "Did you mean 'agent'"),
    # ranges
    override("agent.batch_size=0", "batch_size=0", "at least 1"),
    override("agent.batch_size=-1", "batch_size=-1"),
    override("agent.batch_size=1e12", "at most"),
    override("agent.lr=nan", "finite"),
    override("agent.lr=inf", "finite"),
    override("agent.lr=-inf", "finite"),
    override("agent.lr=0", "lr=0", "greater than 0"),
    override("agent.size=6", "1, 5, 19, 48, 317"),
    override("seed=-1", "seed=-1"),
    override("seed=1e300", "seed="),
    override("steps=0", "steps=0"),
    override("checkpoint_every=0", "checkpoint_every=0"),
    override("env.size=0", "env.size"),
    override("env.severity=2", "env.severity", "2"),
    override("env.factors=[sky]", "env.factors", "sky"),
    override("env.shifts=colour", "color_easy"),
    override("updates_per_step=0", "updates_per_step=0"),
    override("encoder.trainable=3", "trainable=3", "1 stages"),
    # combinations
    Case(train("agent.horizon=20", "replay.capacity=10"), CONFIG, ["20", "10"], id="sequence longer than the buffer"),
    Case(train("replay.capacity=10"), CONFIG, ["batch_size=256", "10"], id="batch larger than the buffer"),
    Case(train("env=counting/discrete"), CONFIG, ["discrete", "tdmpc2"], id="discrete actions"),
    override("env=miniworld/Hallway", "miniworld/Hallway has discrete actions", "agent=dreamerv3"),
    *(
        Case(train("agent=dreamerv3", "env=miniworld/Hallway", key), CONFIG, words, id=f"miniworld, {key}")
        for key, words in {
            "env.proprio=true": ["env.proprio=True means nothing in miniworld/Hallway", "no state vector"],
            "encoder=state": ["encoder=state, but miniworld/Hallway", "no state vector", "encoder=scratch"],
            "env.shifts=tint": ["env.shifts=tint means nothing in miniworld/Hallway", "study"],
            "env.backend=osmesa": ["env.backend=osmesa", "EGL alone"],
            "env.render=fast": ["env.render=fast", "env.render=standard"],
            "env.camera=2": ["env.camera=2", "what the agent sees"],
            "env.time_limit=9": ["env.time_limit=9.0", "env.max_steps"],
        }.items()
    ),
    override("env=maniskill/PickCub-v1", "'maniskill/PickCube-v1'"),
    Case(train("env=maniskill/TurnFaucet-v1"), CONFIG, ["no dense reward", "env.reward=sparse"], id="no dense reward"),
    Case(train("env.reward=sparse"), CONFIG, ["env.reward=sparse", "the task's own"], id="reward of dm_control"),
    Case(
        train("env=maniskill/PickCube-v1", "env.shifts=shadows"),
        CONFIG,
        ["cannot draw shadows", "It can do: study, color_easy"],
        id="maniskill, shift",
    ),
    Case(train("env=gym:Pendulum-v1", "env.camera=2"), CONFIG, ["env.camera=2"], id="gym, env.camera=2"),
    Case(train("encoder=dinov2_vits14", "encoder.truncate=13"), CONFIG, ["13", "12"], id="layer 13 of 12"),
    Case(train("encoder=resnet18_in1k", "encoder.truncate=0"), CONFIG, ["0", "4"], id="no stage at all"),
    Case(train("encoder=resnet18_in1k", "encoder.feature=cls"), CONFIG, ["cls", "mean"], id="feature not on offer"),
    Case(train("encoder=dinov2_vits14", "env.size=64"), CONFIG, ["64", "256"], id="frames too small"),
    Case(train("encoder=state", "encoder.feature=cls"), CONFIG, ["state", "feature"], id="encoder key without encoder"),
    override("steps=500", "random_steps=1000", "steps=500"),
    override("env=dmc/lqr-lqr_2_1", "dmc/lqr-lqr_2_1 terminate", "agent.episodic=true"),
    *(inert(key, f"encoder={name}") for name in ("scratch", "state") for key in ("agent.front_end=mlp",)),
    *(
        inert(key, "encoder=state")
        for key in (
            *("agent.augment=none", "agent.feature_norm=running", "agent.stack=2", "env.proprio=true"),
            *("env.shifts=color_easy", "agent.num_channels=8"),
        )
    ),
    *(inert(key, "encoder=embedded") for key in ("agent.augment=none", "agent.num_channels=8")),
    inert("agent.enc_dim=8", "encoder=scratch"),
    Case(
        train("agent=dreamerv3", "encoder=scratch", "agent.symlog=false"),
        CONFIG,
        ["agent.symlog means nothing with encoder=scratch"],
        id="symlog of nothing but pixels",
    ),
    inert("agent.enc_dim=8", "agent.front_end=linear"),
    inert("env.severity=0.5", "env.shifts=none"),
    inert("env.factors=[agent]", "env.shifts=none"),
    inert("agent.termination_coef=2", "agent.episodic=false"),
    Case(train("encoder=state", "env={proprio: true}"), CONFIG, ["env.proprio", "encoder=state"], id="inert, nested"),
    # grammar
    override("seed=1,2", "several values", "one command"),
    override("encoder=a,b", "several values"),
    override("seed=range(1,4)", "several values"),
    override("seed=choice(1,4)", "several values"),
    override("seed", "KEY=VALUE"),
    override("~seed", "KEY=VALUE"),
    override("+new=1", "KEY=VALUE"),
    override("seed={", "cannot be read"),
    override("seed=${oc.env:HOME}", "interpolation"),
    override("env.name=${env.render}", "interpolation"),
    override("agent._target_=os.system", "_target_", status=UNSAFE),
    override("agent={lr: 1}", "unknown agent"),
    override("encoder=" + "x" * 5000, "unknown encoder"),
    override("env=\x1b[31mred", "env"),
    # files of the user
    override("encoder=/nowhere/x.safetensors", "/nowhere/x.safetensors", status=UNAVAILABLE),
    override("encoder.weights=/nowhere/x.pth", "/nowhere/x.pth", status=UNAVAILABLE),
    Case(["train", "--config", "dmeo"], CONFIG, ["unknown preset 'dmeo'", "'demo'"], id="unknown preset"),
    Case(["train", "--config", "./none.yaml"], CONFIG, ["none.yaml"], id="no such file"),
    Case(["train", "--config", "./"], CONFIG, ["directory"], id="a folder as file"),
    yaml("syntax", "seed: 1\nenv: [a, b\n", "line 3", "column 1"),
    yaml("tab", "env:\n\tsize: 1\n", "line 2", "column 1"),
    yaml("duplicate key", "seed: 1\nsteps: 2\nseed: 3\n", "'seed'", "lines 1 and 3"),
    yaml("duplicate key inside", "env:\n  size: 64\n  size: 65\n", "lines 2 and 3"),
    yaml("code by key", "agent:\n  _target_: os.system\n", "_target_", status=UNSAFE),
    yaml("code by key, in a list", "env: {factors: [{_target_: os.system}]}\n", "env.factors"),
    yaml("code by tag", "seed: !!python/object/apply:os.system [id]\n", "python/object", "line 1", status=UNSAFE),
    yaml("code by name tag", "seed: !!python/name:os.system\n", "python/name", status=UNSAFE),
    yaml("own tag", "seed: !env HOME\n", "!env", status=UNSAFE),
    yaml("alias bomb", LAUGHS, "aliases expand", "20,000"),
    yaml("alias to itself", "env: &a\n  x: *a\n", "alias", "itself"),
    yaml("too deep", "[" * 30 + "]" * 30, "deeper than 20"),
    yaml("far too deep", "[" * 100_000, "deeper than 20"),
    yaml("too large", b"#" * 1_000_001, "1,000,001", "1,000,000"),
    yaml("not UTF-8", b"seed: 1 # \xff\n", "UTF-8", "byte 10"),
    yaml("binary", bytes(range(256)), "bad.yaml"),
    yaml("control characters", "seed: \x07\n", "bad.yaml"),
    yaml("interpolation", "encoder: {name: '${oc.env:HOME}'}\n", "interpolation"),
    yaml("interpolation in a key", "'${seed}': 1\n", "interpolation"),
    yaml("missing marker", "seed: ???\n", "seed wants an integer"),
    yaml("unknown key", "env: {sizze: 3}\n", "'env.sizze'", "'env.size'"),
    yaml("key that follows from another", "env: {pixels: false}\n", "unknown key 'env.pixels'"),
    yaml("dotted key", "env.size: 3\n", "unknown key 'env.size'", "Nest it: env: {size: …}"),
    yaml("number as key", "1: 2\n", "unknown key '1'"),
    yaml("list as key", "[a, b]: 2\n", "key must be text"),
    yaml("a list", "- seed\n", "named values"),
    yaml("two documents", "seed: 1\n---\nseed: 2\n", "bad.yaml"),
    yaml("type", "seed: yes\n", "seed wants an integer", "'yes'"),
    yaml("not a number", "agent: {lr: .nan}\n", "finite"),
    yaml("huge integer", "seed: " + "9" * 5000 + "\n", "digits"),
    yaml("unknown agent", "agent: dreamer\n", "unknown agent 'dreamer'"),
    # other commands
    Case(["tran"], CONFIG, ["train"], id="unknown command"),
    Case(["train", "--dirr", "x"], CONFIG, ["--dir"], id="unknown option"),
    Case(["eval"], CONFIG, ["RUN"], id="no run given"),
    Case(["eval", "nowhere", "--episodes", "0"], CONFIG, ["episodes=0"], id="no episodes"),
    Case(["eval", "nowhere", "--episodes", "many"], CONFIG, ["--episodes"], id="episodes in words"),
    Case(["ood", "nowhere", "--severity", "7"], CONFIG, ["severity=7"], id="severity"),
    Case(["ood", "nowhere", "--severity", "nan"], CONFIG, ["severity=nan"], id="severity nan"),
    Case(["ood", "nowhere", "--shift", "color_eazy"], CONFIG, ["color_easy"], id="unknown shift"),
    Case(["record", "nowhere", "--context", "0"], CONFIG, ["context=0"], id="no context"),
    *(Case([c, "nowhere"], STORAGE, ["nowhere"], id=f"{c}: no run") for c in ("resume", "eval", "ood", "record")),
    Case(["analyze", "nowhere", "--out", "figures"], CONFIG, ["nowhere"], id="analyze: no run"),
    Case(["analyze", "--out", "figures"], CONFIG, ["RUNS"], id="analyze: no runs"),
    Case(["report", "nowhere", "--out", "figures"], CONFIG, ["nowhere"], id="report: no run"),
    Case(["report", "--out", "figures"], CONFIG, ["RUNS"], id="report: no runs"),
    Case(["pretrain", "autoencoder", "env=dmc/walker-fly"], CONFIG, ["dmc/walker-walk"], id="pretrain: unknown task"),
    Case(["pretrain", "autoencoder", "frames=0"], CONFIG, ["frames=0"], id="pretrain: no frames"),
    Case(["pretrain", "autoencoder", "frames=abc"], CONFIG, ["abc", "run folders"], id="pretrain: frames of nothing"),
    Case(["doctor", "--timeout", "-1"], CONFIG, ["--timeout", "equal to 1"], id="doctor: no time"),
    Case(["pretrain", "autoencoder", "--steps", "0"], CONFIG, ["steps=0"], id="pretrain: no steps"),
    Case(["encoders", "info", "resnet18_in2k"], CONFIG, ["resnet18_in1k"], id="info of an unknown encoder"),
    Case(["encoders", "info", "vitb16_dino", "--truncate", "13"], CONFIG, ["12"], id="info beyond the depth"),
    Case(["encoders", "list", "*resnt*"], CONFIG, ["nothing matches"], id="no encoder matches"),
    Case(["encoders", "profile", "resnet18_in1k", "--truncate", "9"], CONFIG, ["4 stages"], id="profile beyond depth"),
    Case(["encoders", "profile", "embedded", "--batch", "0"], CONFIG, ["--batch", "batch=0"], id="profile of nothing"),
    Case(["encoders", "profile", "embedded", "--dtype", "half"], CONFIG, ["bfloat16", "'half'"], id="profile: dtype"),
    Case(["encoders", "profile", "embedded", "--device", "tpu"], CONFIG, ["cuda:N", "tpu"], id="profile: device"),
    Case(["envs", "list", "dmc/wlker-walk"], CONFIG, ["dmc/walker-walk"], id="no environment matches"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id.encode("ascii", "replace").decode())
def test_bad_input(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = case.args
    before = []
    if case.file is not None:
        (tmp_path / "bad.yaml").write_bytes(case.file)
        before, args = ["bad.yaml"], [a.replace("bad.yaml", "./bad.yaml") for a in args]
    status = main(args)
    out, err = capsys.readouterr()
    assert (status, out) == (case.status, "")
    assert 1 <= len(err.splitlines()) <= 2, err
    assert "Traceback" not in err and err.replace("\n", "").isprintable()
    assert [word for word in case.words if word not in err] == [], err
    assert [path.name for path in tmp_path.iterdir()] == before


@pytest.mark.parametrize(
    "args", [["train", "encoder=resnet18_in2k"], ["train", "env=dmc/walker-fly"], ["resume", "no"]]
)
def test_told_before_torch_or_a_simulator_is_imported(args: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mbrl_pvr.cli.main import main\n"
        "print(main(sys.argv[1:]), sorted({'torch', 'mujoco', 'dm_control', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == f"{STORAGE if args[0] == 'resume' else CONFIG} []"


def test_the_installed_command_exits_with_the_status(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "mbrl-pvr"
    if not script.exists():
        pytest.skip("mbrl-pvr is not installed beside this Python")
    done = subprocess.run([script, "train", "sed=1"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (CONFIG, "")
    assert done.stderr == "unknown key 'sed' (override 'sed=1')\nDid you mean 'seed' or 'encoder.seed'?\n"
    assert list(tmp_path.iterdir()) == []
