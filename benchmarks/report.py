"""Time, memory and size of reports: python benchmarks/report.py [--runs 100] [--rows 10000] [--points 50000]

Runs of synthetic logs are read and reported on (no latents: those are the second part); then UMAP is fitted on as many
latents of 1024 numbers as asked for, after PCA to 50. Each part is a process of its own, whose peak memory is given.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

KEYS = 20  # numbers in a row of metrics, beside step and frame
EVALUATIONS, EPISODES, TRAINED = 20, 10, 200  # evaluations of a run, episodes of each, training episodes
ENCODERS = ("embedded", "scratch", "vc1_vitb", "dinov2_vits14", "r3m_resnet50")
TASKS = ("dmc/walker-walk", "dmc/cheetah-run")


def metrics(rows: int) -> str:
    """The lines of metrics.jsonl, the same for all runs."""
    lines = []
    for step, values in enumerate(np.random.default_rng(0).random((rows, KEYS)).round(6).tolist()):
        named = {f"train/value_{n}": value for n, value in enumerate(values)}
        lines.append(json.dumps({"step": 10 * step, "frame": 20 * step, **named}) + "\n")
    return "".join(lines)


def write_run(folder: Path, number: int, rows: int, log: str) -> None:
    """A finished run with `rows` rows of metrics, those of `log`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    encoder, task, seed = ENCODERS[number % 5], TASKS[number // 5 % 2], number // 10
    names = {"agent": {"name": "tdmpc2"}, "encoder": {"name": encoder}, "env": {"name": task, "action_repeat": 2}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, **names}))
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "identity": f"{number:012d}" + 52 * "0"}))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "checkpoint": 10 * rows}))
    (folder / "metrics.jsonl").write_text(log)
    common = {"agent": "tdmpc2", "encoder": encoder, "task": task, "shift": "none", "severity": 0.0, "seed": seed}
    kinds = [("train", n * 10 * rows // TRAINED) for n in range(TRAINED)]
    kinds += [("eval", (n // EPISODES + 1) * 10 * rows // EVALUATIONS) for n in range(EVALUATIONS * EPISODES)]
    with (folder / "episodes.jsonl").open("w") as file:
        for episode, (kind, step) in enumerate(kinds):
            result = {"return": float(rng.normal(500, 50)), "length": 500, "success": None}
            place = {"kind": kind, "step": step, "frame": 2 * step, "episode": episode}
            file.write(json.dumps({**common, **place, **result}) + "\n")


def report_on(folder: Path) -> None:
    """Report on all runs of a folder, and print what it took."""
    start = time.perf_counter()
    from analysis import write_report

    made = write_report(sorted(folder.iterdir()), folder.parent / "out")
    _print_cost("report", start, f"{made['page'].stat().st_size / 1e6:.1f} MB of HTML")


def embed(points: int) -> None:
    """UMAP of points that lie around a curved sheet in 1024 dimensions, and print what it took."""
    rng = np.random.default_rng(0)
    sheet = rng.uniform(-3, 3, (points, 2))
    curved = np.concatenate([sheet, np.sin(sheet), np.cos(sheet), sheet**2 / 5], axis=1)
    latents = (curved @ rng.normal(size=(8, 1024)) + rng.normal(0, 0.1, (points, 1024))).astype(np.float32)
    start = time.perf_counter()
    from analysis.latents import umap

    umap(latents)
    _print_cost("UMAP, compiling included", start, "")


def _print_cost(what: str, start: float, size: str) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall, own = time.perf_counter() - start, time.process_time()
    print(f"| {what} | {wall:.0f} s | {own:.0f} s | {peak:.2f} GiB | {size} |", flush=True)


def main() -> None:
    """Print a row for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000, help="of metrics in each run")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "umap":
        return embed(options.points)
    if options.part:
        return report_on(Path(options.part))
    print("| what | time | processor time | peak memory | size |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        log = metrics(options.rows)
        for number in range(options.runs):
            write_run(Path(scratch) / "runs" / f"run{number}", number, options.rows, log)
        again = [sys.executable, __file__, "--points", str(options.points), "--part"]
        subprocess.run([*again, str(Path(scratch) / "runs")], check=True)
        if options.points:
            subprocess.run([*again, "umap"], check=True)


if __name__ == "__main__":
    main()
