"""Time and memory over the folders of many finished runs: python benchmarks/study_scale.py FOLDER [--runs 10000]

FOLDER becomes a study of so many runs of the size that `small_cpu` makes: 110 lines of metrics, 35 episodes, 20 under
shifts, and the errors of 10 recorded ones; what is there already is kept. Status, queries, the export and the tables of
a report are then measured, each in a process of its own, whose peak memory is given.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

AGENTS = ("tdmpc2_tiny", "dreamerv3_tiny")
ENCODERS = (
    *("scratch", "state", "embedded", "random_resnet18", "clip_rn50x64", "clip_vitl14", "imagebind_vith14"),
    *("dinov2_vitg14", "vc1_vitl", "r3m_resnet50", "vip_resnet50", "taskonomy_depth_zbuffer", "r2d2", "resnet18_in1k"),
)
TASKS = (
    *("cartpole-swingup", "cheetah-run", "ball_in_cup-catch", "finger-spin", "walker-walk", "pendulum-swingup"),
    *("reacher-easy", "hopper-stand", "walker-run"),
)
RATES = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3)
SEEDS = range(1, 7)
LOGGED = 110  # lines of metrics
PLAIN = {"shift": "none", "severity": 0.0, "length": 500, "success": None}
HELD_OUT = "SELECT encoder, avg(normalised) FROM ood WHERE shift <> 'none' GROUP BY ALL"
PARTS = {
    "status": "api.study_status(folder)",
    "query runs": "api.query(folder, 'SELECT state, count(*) FROM runs GROUP BY ALL')",
    "query ood": f"api.query(folder, {HELD_OUT!r})",
    "query metrics": "api.query(folder, 'SELECT run, max(\"time/elapsed\") FROM metrics GROUP BY ALL')",
    "query errors": "api.query(folder, 'SELECT \"window\", avg(error) FROM errors GROUP BY ALL')",
    "load_study": "api.load_study(folder)",
    "export": "api.study_export(folder, folder.parent / 'scale.duckdb')",
    "query the export": f"api.query(folder.parent / 'scale.duckdb', {HELD_OUT!r})",
    "claims": "api.study_claims(folder)",
    "report's tables": "tables(folder)",
}


def write_study(folder: Path, count: int) -> None:
    """Write study.json and the folders of its runs."""
    from mbrl_pvr.config import load_config, to_dict
    from mbrl_pvr.storage import digest, sealed_json
    from mbrl_pvr.study.cells import Kind, Run, Study
    from mbrl_pvr.study.file import OodStage, RecordStage, Resources, Stages

    bases = {agent: to_dict(load_config([f"agent={agent}"])) for agent in AGENTS}
    stages, kinds, runs = Stages(OodStage(10), RecordStage()), list[Kind](), list[Run]()
    for agent, rate, task, encoder in itertools.product(AGENTS, RATES, TASKS, ENCODERS):
        config = json.loads(json.dumps(bases[agent]))
        config["env"]["name"], config["encoder"]["name"], config["agent"]["lr"] = f"dmc/{task}", encoder, rate
        kinds.append(Kind("main", {**config, "steps": 10_000}, stages, Resources()))
        for seed in SEEDS:
            settings = {"agent": agent, "agent.lr": rate, "env": f"dmc/{task}", "encoder": encoder, "seed": seed}
            name, sha = f"{agent}-{encoder}-{task}-seed{seed}", digest(settings)
            command = "mbrl-pvr train " + " ".join(f"{key}={value}" for key, value in settings.items())
            runs.append(Run(sha, f"{name}-{sha[:8]}", len(kinds) - 1, seed, settings, command))
    if count > len(runs):
        raise SystemExit(f"at most {len(runs)} runs")
    study = Study("scale", 2, kinds[: runs[count - 1].kind + 1], runs[:count], "")
    for name in ("runs", "progress"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "mbrl_pvr": "0", "study": study.to_json()}
    (folder / "study.json").write_bytes(sealed_json(content))
    for number, run in enumerate(study.runs):
        if not (folder / "progress" / f"{run.name}.json").exists():
            write_run(folder, number, run, {**study.kind(run).config, "seed": run.seed})


def write_run(study: Path, number: int, run: Any, config: dict[str, Any]) -> None:
    """One finished run, whose record is an empty file: what counts is stored beside it."""
    from mbrl_pvr.storage import digest, sealed_json

    folder, rng = study / "runs" / run.name, np.random.default_rng(number)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(f"seed: {run.seed}\n{_yaml(json.dumps({**config, 'seed': None}))}")
    cost = {"replay_bytes_per_step": 1000, "encoder_flops_per_frame": 1e9}
    manifest = {"format": 1, "identity": digest({"sha256": run.id}), "command": run.command.split(), "cost": cost}
    (folder / "manifest.json").write_bytes(sealed_json(manifest))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "step": 10_000, "checkpoint": 10_000}))
    (folder / "metrics.jsonl").write_text(metrics(config["agent"]["name"], number % 10))
    names = {key: config[key]["name"] for key in ("agent", "encoder", "env")}
    same = {"agent": names["agent"], "encoder": names["encoder"], "task": names["env"], "seed": run.seed, **PLAIN}
    level = 300 + 300 * rng.random()

    def episode(kind: str, step: int, at: int, **more: Any) -> dict[str, Any]:
        value = float(np.clip(rng.normal(level, 40), 0, 1000))
        return {"kind": kind, **same, "step": step, "frame": 2 * step, "episode": at, "return": value, **more}

    episodes = [episode("train", 500 * (n + 1), n) for n in range(20)]
    episodes += [episode("eval", 2500 * (n // 3), n % 3) for n in range(15)]
    (folder / "episodes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in episodes))
    ood = [episode("ood", 10_000, n, split="train") for n in range(10)]
    ood += [episode("ood", 10_000, n, split="held_out", shift="color_easy", severity=0.3) for n in range(10)]
    rows = pd.DataFrame([{**one, "normalised": one["return"] / 1000} for one in ood])
    rows.to_parquet(folder / "ood.parquet", index=False)
    (folder / "latents.npz").write_bytes(b"")
    (folder / "errors.parquet").write_bytes(errors(number % 10))
    done = {stage: {"time/seconds": 100.0} for stage in ("train", "ood", "record")}
    progress = {"state": "finished", "stage": "", "finished": done, "error": ""}
    (study / "progress" / f"{run.name}.json").write_text(json.dumps(progress))


@lru_cache(maxsize=4)
def _yaml(config: str) -> str:
    from mbrl_pvr.yamlfile import dump_yaml

    return dump_yaml({key: value for key, value in json.loads(config).items() if key != "seed"})


@cache
def metrics(agent: str, seed: int) -> str:
    """The lines of metrics.jsonl; each agent has keys of its own."""
    rng = np.random.default_rng(seed)
    keys = [*(f"time/{key}" for key in ("encode", "env", "plan", "update")), *(f"train/{agent}_{n}" for n in range(16))]
    lines = [
        json.dumps({"step": 100 * n, "frame": 200 * n, **dict(zip(keys, row, strict=True)), "time/elapsed": 11.0 * n})
        for n, row in enumerate(rng.random((LOGGED, len(keys))).tolist())
    ]
    return "\n".join(lines) + "\n"


@cache
def errors(seed: int) -> bytes:
    """The file with the errors of 10 recorded episodes."""
    from analysis.window_errors import ERROR_COLUMNS, WINDOWS

    rng = np.random.default_rng(seed)
    windows = np.repeat([w for w in WINDOWS if w <= 500], 10)
    table = pd.DataFrame({"window": windows, "trajectory": np.arange(len(windows)) % 10})
    for name in ("error", "copy_last_error", "reward_error", "mean_reward_error"):
        table[name] = windows * rng.random(len(windows))
    same = {"bank": "", "shift": "", "record_step": 10_000, "points": 8, "context": 1, "measure": "MSE"}
    return table.assign(**same, scale=1.0, constant=0.0)[list(ERROR_COLUMNS)].to_parquet(index=False)


def tables(folder: Path) -> None:
    """The table of runs and the numbers of the figures of a report, without its pictures."""
    from analysis import groups
    from analysis.figures import ood
    from analysis.report import overview
    from analysis.results import load_sources
    from analysis.tables import Names, final, newest_ood, stack

    runs, _ = load_sources([folder])
    names = Names(groups.series_names(runs), groups.encoder_names(runs))
    overview.rows(runs)
    final(runs, names)
    episodes = stack(runs, names, newest_ood)
    ood.summarise(episodes.assign(condition=ood.condition_names(episodes)))


def measure(part: str, folder: Path) -> None:
    """Do one part and print what it took."""
    from mbrl_pvr import api

    start = time.perf_counter()
    eval(PARTS[part], {"api": api, "folder": folder, "tables": tables})  # our own words above
    seconds, computed = time.perf_counter() - start, time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{part}: {seconds:.1f} s ({computed:.1f} s of a core), {memory:.2f} GiB", flush=True)


def main() -> None:
    """Write what is missing, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_process:
        measure(args.part[0], args.folder)
        return
    write_study(args.folder, args.runs)
    for part in args.part or PARTS:
        command = [sys.executable, __file__, str(args.folder), "--in-process", "--part", part]
        subprocess.run(
            command,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )


if __name__ == "__main__":
    main()
