"""DreamerV3 beside r2dreamer in interleaved rounds: updates of the 12M model from 64×64 pixels and from 768 numbers.

    PEERS=peers python benchmarks/dreamerv3_speed.py [--cases pixels feature] [--rounds 7] [--write]
    python benchmarks/dreamerv3_speed.py --profile                       where the time of our update goes

$PEERS holds a clone of NM512/r2dreamer (commit 546e4fa) and a virtual environment `.venv` with torch 2.13.0, tensordict
0.12.0, numpy and omegaconf. Both run `rep_loss=dreamer` as the published algorithm has it, eager, in float32 (the
float16 of r2dreamer takes ten times as long on a CPU), 16 sequences of 64 steps, 15 imagined steps, 6 actions; features
go through three layers in both. Each runs in a process of its own that keeps freed memory; the processes stay alive and
take turns. `CPU s` counts the work of all threads, and so says most on a machine that others use. `ratio` is a time
over r2dreamer's. GFLOP are the matrix products and convolutions that ours runs; their share is of the 1024-cube
product's rate in the same rounds. Memory is a process's peak. --write puts the table into benchmarks/README.md. Run it
on a quiet machine: a thread that waits for its core makes every parallel region wait.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tdmpc2_speed import count_gflop, keep_freed_memory, processor, product_rate

HERE = Path(__file__).resolve().parent
LOADER = HERE.parent / "tests" / "world_models" / "official_r2dreamer.py"
CASES = {"pixels": "64×64 pixels", "feature": "768 numbers"}
SIDES = ("r2dreamer", "ours")
BATCH, LENGTH, ACTIONS, NUMBERS, IMAGE = 16, 64, 6, 768, (64, 64, 3)
MARKS = ("<!-- dreamerv3_speed: begin -->", "<!-- dreamerv3_speed: end -->")


def r2dreamer(case: str):
    """One update of r2dreamer's Dreamer."""
    import torch

    spec = importlib.util.spec_from_file_location("official_r2dreamer", LOADER)
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    from omegaconf import OmegaConf

    sizes = OmegaConf.load(loader.ROOT / "configs" / "model" / "size12M.yaml")
    sizes.pop("defaults")
    shapes = {"image": IMAGE} if case == "pixels" else {"state": (NUMBERS,)}
    agent = loader.make(shapes, ACTIONS, sizes, compile=False)
    sys.modules["dreamer"].autocast = lambda **_: contextlib.nullcontext()
    lead = (BATCH, LENGTH)
    nothing = torch.zeros(lead, dtype=torch.bool)
    data = {"action": torch.rand(*lead, ACTIONS) * 2 - 1, "reward": torch.randn(*lead, 1), "is_first": nothing}
    data |= {"is_last": nothing.unsqueeze(-1), "is_terminal": nothing.unsqueeze(-1)}
    if case == "pixels":
        data["image"] = torch.randint(0, 256, (*lead, *IMAGE), dtype=torch.uint8)
    else:
        data["state"] = torch.randn(*lead, NUMBERS)
    replay = loader.Replay(agent, data)
    return lambda: agent.update(replay)


def ours(case: str):
    """One update of our agent."""
    import torch

    from world_models.dreamerv3.agent import DreamerV3
    from world_models.dreamerv3.config import DreamerV3Config
    from world_models.types import ActionSpec, Batch, Obs, ObsShapes

    pixels = case == "pixels"
    shapes = ObsShapes(pixels=IMAGE) if pixels else ObsShapes(feature=(NUMBERS,))
    config = DreamerV3Config(size="12M", batch_size=BATCH, batch_length=LENGTH, front_end="mlp")
    agent = DreamerV3(shapes, ActionSpec(ACTIONS), config, seed=0)
    lead = (BATCH, LENGTH)
    nothing = torch.zeros(lead, dtype=torch.bool)
    obs = Obs(
        nothing,
        feature=None if pixels else torch.randn(*lead, 1, NUMBERS).half(),
        pixels=torch.randint(0, 256, (*lead, 1, *IMAGE), dtype=torch.uint8) if pixels else None,
    )
    states = torch.zeros(BATCH, LENGTH + 1, config.carried, dtype=torch.float16)
    batch = Batch(obs, torch.rand(*lead, ACTIONS) * 2 - 1, torch.randn(lead), nothing, nothing, states)
    return lambda: agent.update(batch)


KINDS = {
    "products": ("mm", "addmm", "bmm", "baddbmm"),
    "convolutions": ("mkldnn_convolution", "convolution_backward", "thnn_conv2d", "slow_conv2d_forward"),
    "copies, joins, clearing": (
        "copy_",
        "cat",
        "stack",
        "clone",
        "fill_",
        "zero_",
        "index",
        "gather",
        "scatter_",
        "repeat",
    ),
}


def profile(case: str) -> list[str]:
    """Rows of a table: the share of each kind of operator in the time of our update, and how many calls it makes."""
    import torch
    from torch.profiler import ProfilerActivity

    step = ours(case)
    for _ in range(2):
        step()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    rows = {kind: [0.0, 0] for kind in (*KINDS, "everything else")}
    for event in found.key_averages():
        name = event.key.removeprefix("aten::").removeprefix("mkldnn::")
        row = rows[next((kind for kind, names in KINDS.items() if name in names), "everything else")]
        row[0] += event.self_cpu_time_total
        row[1] += event.count
    total = sum(time for time, _ in rows.values())
    return [f"| {CASES[case]} | {kind} | {time / total:.1%} | {count:,} |" for kind, (time, count) in rows.items()]


def work(side: str, case: str, threads: int) -> None:
    """A worker: every line read is a number of updates to time; every line written holds their seconds."""
    out, sys.stdout = sys.stdout, sys.stderr
    keep_freed_memory()
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = (r2dreamer if side == "r2dreamer" else ours)(case)
    gflop = count_gflop(step) if side == "ours" else None
    step()
    print(json.dumps({"gflop": gflop}), file=out, flush=True)
    for line in sys.stdin:
        wall, cpu = [], []
        for _ in range(int(line)):
            start, start_cpu = time.perf_counter(), time.process_time()
            step()
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({"wall": wall, "cpu": cpu, "rate": product_rate(), "peak": peak}), file=out, flush=True)


class Worker:
    """A process that runs one side of one case."""

    def __init__(self, side: str, case: str, threads: int):
        python = str(Path(os.environ["PEERS"]) / ".venv" / "bin" / "python") if side == "r2dreamer" else sys.executable
        command = [python, str(Path(__file__).resolve()), "--worker", side, "--cases", case, "--threads", str(threads)]
        env = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.rates: list[float] = []
        self.peak = 0.0
        self.gflop = self._read()["gflop"]

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self.process.wait()}; its message is above")
        return json.loads(line)

    def run(self, steps: int) -> None:
        """Time some updates."""
        print(steps, file=self.process.stdin, flush=True)
        answer = self._read()
        self.wall += answer["wall"]
        self.cpu += answer["cpu"]
        self.rates.append(answer["rate"])
        self.peak = answer["peak"]

    def stop(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def measure(case: str, rounds: int, steps: int, threads: int) -> list[str]:
    """Rows of the table for one case."""
    workers = {side: Worker(side, case, threads) for side in SIDES}
    for _ in range(rounds):
        for worker in workers.values():
            worker.run(steps)
    rate = statistics.median(r for w in workers.values() for r in w.rates)
    gflop, base = workers["ours"].gflop, workers["r2dreamer"]
    rows = []
    for side, worker in workers.items():
        wall, cpu = statistics.median(worker.wall), statistics.median(worker.cpu)
        ratio, cpu_ratio = wall / statistics.median(base.wall), cpu / statistics.median(base.cpu)
        share = f"{gflop / wall / rate:.0%}" if side == "ours" else ""
        span = f"{min(worker.wall):.2f}-{max(worker.wall):.2f}"
        rows.append(
            f"| {CASES[case]} | {side} | {wall:.2f} | {span} | {ratio:.0%} | {cpu:.2f} | {cpu_ratio:.0%} | "
            f"{len(worker.wall)} | {gflop:.0f} | {rate:.0f} | {share} | {worker.peak:.1f} |"
        )
        worker.stop()
    return rows


def write(table: str) -> None:
    """Put the table between its marks in benchmarks/README.md, at the end where it is new."""
    readme = HERE / "README.md"
    text, block = readme.read_text(), f"{MARKS[0]}\n{table}\n{MARKS[1]}"
    if MARKS[0] in text:
        head, rest = text.split(MARKS[0], 1)
        text = head + block + rest.split(MARKS[1], 1)[1]
    else:
        text = f"{text.rstrip()}\n\n## DreamerV3 beside r2dreamer\n\n{block}\n"
    readme.write_text(text)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="timed updates of each worker in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what else the machine was doing, for the table's first line")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help="where the time of our update goes; needs no PEERS")
    args = parser.parse_args()
    if args.profile:
        keep_freed_memory()
        print("| from | operators | of the time | calls |\n|---|---|---|---|")
        return print("\n".join(row for case in args.cases for row in profile(case)))
    if args.worker:
        return work(args.worker, args.cases[0], args.threads)
    if "PEERS" not in os.environ:
        raise SystemExit("PEERS is not set: the folder with the clone r2dreamer and the environment .venv (see --help)")
    head = "| from | side | s | min-max | ratio | CPU s | ratio | n | GFLOP | GEMM GFLOP/s | share | peak GB |"
    about = f"{processor()}; {args.threads} threads; {time.strftime('%Y-%m-%d')}{args.note and '; ' + args.note}"
    rows = [about, "", head, "|---" * 12 + "|"]
    print("\n".join(rows), flush=True)
    for case in args.cases:
        found = measure(case, args.rounds, args.steps, args.threads)
        print("\n".join(found), flush=True)
        rows += found
    if args.write:
        write("\n".join(rows))


if __name__ == "__main__":
    main()
