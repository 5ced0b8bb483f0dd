"""TD-MPC2 beside the official implementation in interleaved rounds: updates from pixels and from 512 numbers, one plan.

    PEERS=peers python benchmarks/tdmpc2_speed.py [--cases pixels state plan] [--rounds 7] [--write]

$PEERS holds a clone of nicklashansen/tdmpc2 (commit e9f5932) and a virtual environment `.venv` with torch 2.13.0,
tensordict 0.12.0, numpy, omegaconf and hydra-core. Each implementation runs eager and compiled, each in a process of
its own that keeps freed memory; the processes stay alive and take turns. 5 M parameters, batch 256, horizon 3, 6
actions. `ratio` is a time over the official time in its fastest mode. GFLOP are the matrix products and convolutions
that ours runs; their share is of the 1024-cube product's rate in the same rounds. --write puts the table into
benchmarks/README.md. Run it on a quiet machine: a thread that waits for its core makes every parallel region wait.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOADER = HERE.parent / "tests" / "world_models" / "official_tdmpc2.py"
CASES = {"pixels": "update, 9×64×64 pixels", "state": "update, 512 numbers", "plan": "one plan, 512 samples × 6"}
MODES = ("eager", "compiled")
ACTIONS, HORIZON, BATCH, NUMBERS = 6, 3, 256, 512
MARKS = ("<!-- tdmpc2_speed: begin -->", "<!-- tdmpc2_speed: end -->")


def keep_freed_memory() -> None:
    """As mbrl_pvr.process does; written out here because the official process has no mbrl_pvr."""
    libc = ctypes.CDLL(None)
    for key, value in ((-3, 1 << 30), (-1, 1 << 30), (-4, 0)):  # mmap threshold, trim threshold, mmap count
        libc.mallopt(key, value)


def official(case: str, compiled: bool):
    """One step of the official agent."""
    import torch

    spec = importlib.util.spec_from_file_location("official_tdmpc2", LOADER)
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    kind, shape = ("rgb", (9, 64, 64)) if case == "pixels" else ("state", (NUMBERS,))
    agent = loader.make(kind, shape, ACTIONS, episode_length=500)
    if case == "plan":
        if compiled:
            agent._plan_val = torch.compile(agent._plan)
        obs = torch.randn(shape)
        return lambda: agent.act(obs)
    if compiled:
        agent._update = torch.compile(agent._update)
    size = (HORIZON + 1, BATCH, *shape)
    obs = torch.randint(0, 256, size, dtype=torch.uint8) if kind == "rgb" else torch.randn(size)
    action, reward = torch.rand(HORIZON, BATCH, ACTIONS) * 2 - 1, torch.randn(HORIZON, BATCH, 1)
    return lambda: agent._update(obs, action, reward, torch.zeros_like(reward))


def ours(case: str, compiled: bool):
    """One step of our agent."""
    import torch

    from world_models.tdmpc2 import TDMPC2Config
    from world_models.tdmpc2.agent import TDMPC2
    from world_models.types import ActionSpec, Batch, Obs, ObsShapes

    shapes = ObsShapes(pixels=(64, 64, 3)) if case == "pixels" else ObsShapes(proprio=NUMBERS)
    agent = TDMPC2(shapes, ActionSpec(ACTIONS), TDMPC2Config(), episode_length=500, seed=0, compile=compiled)
    if case == "plan":
        state = {"carry": agent.initial(1, 0)}
        obs = Obs(torch.zeros(1, dtype=torch.bool), proprio=torch.randn(1, NUMBERS))

        def act() -> None:
            _, state["carry"] = agent.act(state["carry"], obs, explore=True)

        return act
    lead = (BATCH, HORIZON + 1)
    nothing = torch.zeros(lead, dtype=torch.bool)
    pixels = torch.randint(0, 256, (*lead, 3, 64, 64, 3), dtype=torch.uint8) if case == "pixels" else None
    obs = Obs(nothing, pixels=pixels, proprio=None if case == "pixels" else torch.randn(*lead, NUMBERS))
    batch = Batch(obs, torch.rand(*lead, ACTIONS) * 2 - 1, torch.randn(lead), nothing, nothing)
    return lambda: agent.update(batch)


def count_gflop(step) -> float:
    """Matrix products and convolutions of one step, 2 operations a multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


def product_rate() -> float:
    """GFLOP/s of a 1024-cube matrix product."""
    import torch

    a = torch.randn(1024, 1024)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / statistics.median(times) / 1e9


def work(side: str, case: str, mode: str, threads: int) -> None:
    """A worker: every line read is a number of steps to time; every line written holds their seconds."""
    out, sys.stdout = sys.stdout, sys.stderr  # the official code prints
    keep_freed_memory()
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = (official if side == "official" else ours)(case, mode == "compiled")
    start = time.perf_counter()
    gflop = count_gflop(step) if (side, mode) == ("ours", "eager") else None
    for _ in range(3):
        step()
    ready = {"gflop": gflop, "warm_up": time.perf_counter() - start, "torch": torch.__version__}
    print(json.dumps(ready), file=out, flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "rate": product_rate()}), file=out, flush=True)


class Worker:
    """A process that runs one implementation of one case in one mode."""

    def __init__(self, side: str, case: str, mode: str, threads: int):
        python = str(Path(os.environ["PEERS"]) / ".venv" / "bin" / "python") if side == "official" else sys.executable
        command = [python, str(Path(__file__).resolve()), "--worker", side, mode]
        command += ["--cases", case, "--threads", str(threads)]
        env = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.seconds: list[float] = []
        self.rates: list[float] = []
        self.ready = self._read()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self.process.wait()}; its message is above")
        return json.loads(line)

    def run(self, steps: int) -> None:
        """Time some steps; the first, which finds cold caches, does not count."""
        print(steps + 1, file=self.process.stdin, flush=True)
        answer = self._read()
        self.seconds += answer["seconds"][1:]
        self.rates.append(answer["rate"])

    def stop(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def measure(case: str, rounds: int, steps: int, threads: int) -> list[str]:
    """Rows of the table for one case."""
    workers = {(side, mode): Worker(side, case, mode, threads) for side in ("official", "ours") for mode in MODES}
    for _ in range(rounds):
        for worker in workers.values():
            worker.run(steps)
    rate = statistics.median(r for w in workers.values() for r in w.rates)
    gflop = workers["ours", "eager"].ready["gflop"]
    medians = {key: statistics.median(w.seconds) for key, w in workers.items()}
    best = min(medians["official", mode] for mode in MODES)
    rows = []
    for (side, mode), worker in workers.items():
        median, span = medians[side, mode], f"{min(worker.seconds):.3f}-{max(worker.seconds):.3f}"
        share = f"{gflop / median / rate:.0%}" if side == "ours" else ""
        warm = f"{worker.ready['warm_up']:.0f}"
        rows.append(
            f"| {CASES[case]} | {side} | {mode} | {median:.3f} | {span} | {len(worker.seconds)} | {warm} | "
            f"{median / best:.0%} | {gflop:.1f} | {rate:.0f} | {share} |"
        )
        worker.stop()
    return rows


def processor() -> str:
    """The processor's name, and whether it has AVX-512."""
    text = Path("/proc/cpuinfo").read_text()
    name = next((x.split(":")[1].strip() for x in text.splitlines() if x.startswith("model name")), platform.machine())
    return f"{name}{', AVX-512' if 'avx512f' in text else ''}, {os.cpu_count()} cores"


def write(table: str) -> None:
    """Put the table between its marks in benchmarks/README.md, at the end where it is new."""
    readme = HERE / "README.md"
    text = readme.read_text() if readme.exists() else ""
    block = f"{MARKS[0]}\n{table}\n{MARKS[1]}"
    if MARKS[0] in text:
        head, rest = text.split(MARKS[0], 1)
        text = head + block + rest.split(MARKS[1], 1)[1]
    else:
        text = f"{text.rstrip()}\n\n## TD-MPC2 beside the official implementation\n\n{block}\n".lstrip()
    readme.write_text(text)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each worker in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker[0], args.cases[0], args.worker[1], args.threads)
    if "PEERS" not in os.environ:
        raise SystemExit("PEERS is not set: the folder with the clone tdmpc2 and the environment .venv (see --help)")
    head = "| case | side | mode | median s | min-max | n | first calls s | ratio | GFLOP | GEMM GFLOP/s | share |"
    rows = [f"{processor()}; {args.threads} threads; {time.strftime('%Y-%m-%d')}", "", head, "|---" * 11 + "|"]
    print("\n".join(rows), flush=True)
    for case in args.cases:
        found = measure(case, args.rounds, args.steps, args.threads)
        print("\n".join(found), flush=True)
        rows += found
    if args.write:
        write("\n".join(rows))


if __name__ == "__main__":
    main()
