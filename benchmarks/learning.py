"""Learning curves over seeds, with the controls that a curve needs.

    python benchmarks/learning.py train  --name demo --config demo --seeds 1 2 3 --dir runs/learning [KEY=VALUE ...]
    python benchmarks/learning.py table  runs/learning/demo-seed1 ...          scores, controls, one line a run

The score is the mean return of 12 episodes without exploration noise, under the training looks. Controls on the same
environment: uniformly random actions, zero, the best of a grid of constant actions, and the trained agent whose
observations are drawn from random earlier moments of the same episode ("shuffled").
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import mbrl_pvr
from mbrl_pvr import envs
from mbrl_pvr.build import env_config
from mbrl_pvr.evaluation import MAX_PARALLEL
from mbrl_pvr.rollout import Policy, agent_policy, rounds
from mbrl_pvr.seeding import derive, rng
from mbrl_pvr.session import Trained, load_trained
from world_models.types import Obs

EPISODES = 12
CONSTANTS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # levels of each action in the grid of constant actions
GRID_EPISODES = 4  # of each constant while searching; the best one is scored on EPISODES


def score(trained: Trained, make_policy: Callable[[int], Policy], episodes: int, *, see: bool) -> list[float]:
    """Returns of `episodes` episodes; every policy meets the same starts and looks. Without `see` nothing is drawn."""
    n = min(episodes, MAX_PARALLEL)
    choice = replace(env_config(trained.config), pixels=env_config(trained.config).pixels and see)
    features = trained.features if see else _Blind()
    with envs.make(choice, num=n, seed=trained.config.seed, stream="score") as env:
        played = rounds(make_policy, features, env, stack=trained.agent.sequence.stack, device=trained.device)  # type: ignore[arg-type]
        flat = itertools.chain.from_iterable(played)
        return [episode.total_reward for episode in itertools.islice(flat, episodes)]


class _Blind:
    """Stands in for the features of a policy that looks at nothing."""

    def view(self, step: envs.EnvStep):
        from mbrl_pvr.features import View

        return View(None, None, np.zeros((len(step.is_first), 1), np.float32))


def shuffled(trained: Trained, n: int, seed: int) -> Policy:
    """The agent, shown a random moment of the episode so far in place of the present one."""
    act, past, noise = agent_policy(trained.agent, n, seed), [], rng(seed, "shuffle")

    def policy(obs: Obs, tick: int) -> np.ndarray:
        past.append(obs)
        shown = past[int(noise.integers(len(past)))]
        return act(replace(shown, is_first=obs.is_first), tick)

    return policy


def measure(run: Path) -> dict[str, object]:
    """Score and controls of one finished run."""
    with load_trained(run) as trained:
        config = trained.config
        n, dim = min(EPISODES, MAX_PARALLEL), trained.run.manifest["env"]["action_dim"]

        def constant(value: np.ndarray) -> Callable[[int], Policy]:
            return lambda k: lambda obs, tick: np.tile(value, (len(obs.is_first), 1)).astype(np.float32)

        def random(k: int) -> Policy:
            noise = rng(config.seed, "random", k)
            return lambda obs, tick: noise.uniform(-1, 1, (n, dim)).astype(np.float32)

        grid = list(itertools.product(CONSTANTS, repeat=dim)) if dim <= 2 else [(c,) * dim for c in CONSTANTS]
        tried = [np.mean(score(trained, constant(np.array(c)), GRID_EPISODES, see=False)) for c in grid]
        best = np.array(grid[int(np.argmax(tried))])
        results = {
            "agent": score(
                trained, lambda k: agent_policy(trained.agent, n, derive(config.seed, "s", k)), EPISODES, see=True
            ),
            "shuffled": score(trained, lambda k: shuffled(trained, n, derive(config.seed, "s", k)), EPISODES, see=True),
            "random": score(trained, random, EPISODES, see=False),
            "zero": score(trained, constant(np.zeros(dim)), EPISODES, see=False),
            "constant": score(trained, constant(best), EPISODES, see=False),
        }
        curve = [
            (row["step"], round(row["eval/return"], 1))
            for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            if row.get("eval/return") is not None
        ]
        return {
            "run": run.name,
            "encoder": Path(config.encoder.name).stem,
            "task": config.env.name,
            "seed": config.seed,
            "steps": trained.step,
            "curve": curve,
            "best_constant": best.tolist(),
            **{name: [round(float(np.mean(r)), 1), round(float(np.std(r)), 1)] for name, r in results.items()},
        }


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train")
    train.add_argument("--name", required=True)
    train.add_argument("--config", default="demo")
    train.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    train.add_argument("--dir", type=Path, default=Path("runs/learning"))
    train.add_argument("overrides", nargs="*")
    table = verbs.add_parser("table")
    table.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    if args.verb == "train":
        for seed in args.seeds:
            folder = args.dir / f"{args.name}-seed{seed}"
            print(mbrl_pvr.train([*args.overrides, f"seed={seed}"], folder, config=args.config), file=sys.stderr)
        return
    for run in args.runs:
        print(json.dumps(measure(run)), flush=True)


if __name__ == "__main__":
    main()
