"""Learning curves over seeds, with the controls that a curve needs.

    python benchmarks/learning.py train  --name demo --config demo --seeds 1 2 3 --dir runs/learning [KEY=VALUE ...]
    python benchmarks/learning.py table  runs/learning/demo-seed1 ...          scores, controls, one line a run

The score is the mean return of 12 episodes without exploration noise, under the training looks. Controls on the same
environment: uniformly random actions, zero (null where actions are choices), the best constant action of those tried
(`constants`), and the trained agent whose observations are drawn from random earlier moments of the same episode
("shuffled").
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import mbrl_pvr
from mbrl_pvr import envs
from mbrl_pvr.build import env_config
from mbrl_pvr.envs.actions import ActionSpec, random_actions
from mbrl_pvr.evaluation import MAX_PARALLEL
from mbrl_pvr.rollout import Blind, Policy, agent_policy, play_round, rounds
from mbrl_pvr.seeding import derive, rng
from mbrl_pvr.session import Trained, load_trained
from world_models.types import Obs

EPISODES = 12
PARALLEL = min(EPISODES, MAX_PARALLEL)
LEVELS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of each action in the grid of constant actions
RANDOM_CONSTANTS = 100  # where a grid over all actions would be too large


def score(trained: Trained, make_policy: Callable[[int], Policy], *, see: bool) -> list[float]:
    """Returns of `EPISODES` episodes; every policy meets the same starts and looks. Without `see` nothing is drawn."""
    features = trained.features if see else Blind()
    with _environments(trained, see=see) as env:
        played = rounds(make_policy, features, env, stack=trained.agent.sequence.stack, device=trained.device)  # type: ignore[arg-type]
        flat = itertools.chain.from_iterable(played)
        return [episode.total_reward for episode in itertools.islice(flat, EPISODES)]


def _environments(trained: Trained, *, see: bool) -> envs.VectorEnv:
    choice = env_config(trained.config)
    choice = replace(choice, pixels=choice.pixels and see)
    return envs.make(choice, num=PARALLEL, seed=trained.config.seed, stream="score")


def shuffled(trained: Trained, n: int, seed: int) -> Policy:
    """The agent, shown a random moment of the episode so far in place of the present one."""
    act, past, noise = agent_policy(trained.agent, n, seed), [], rng(seed, "shuffle")

    def policy(obs: Obs, tick: int) -> np.ndarray:
        past.append(obs)
        shown = past[int(noise.integers(len(past)))]
        return act(replace(shown, is_first=obs.is_first), tick)

    return policy


def constants(spec: ActionSpec) -> np.ndarray:
    """The constant actions (n, dim) that are tried: every choice; of continuous ones a grid, and of more than two the
    same level for all of them, and `RANDOM_CONSTANTS` drawn at random, the same ones for every run.
    """
    dim = spec.dim
    if spec.discrete:
        return np.eye(dim)
    if dim <= 2:
        return np.array(list(itertools.product(LEVELS, repeat=dim)))
    same = np.repeat(np.array(LEVELS)[:, None], dim, axis=1)
    return np.concatenate([same, rng(0, "constants").uniform(-1, 1, (RANDOM_CONSTANTS, dim))])


def constant(action: np.ndarray) -> Policy:
    """Always the same action."""
    return lambda obs, tick: np.tile(action, (len(obs.is_first), 1)).astype(np.float32)


def best_constant(trained: Trained, candidates: np.ndarray) -> np.ndarray:
    """The one with the highest mean return over the first `PARALLEL` of the episodes that are scored."""

    def mean_return(action: np.ndarray) -> float:
        first = env.reset(episode=0)
        episodes = play_round(constant(action), Blind(), env, first, trained.agent.sequence.stack, trained.device)  # type: ignore[arg-type]
        return float(np.mean([episode.total_reward for episode in episodes]))

    with _environments(trained, see=False) as env:
        return candidates[np.argmax([mean_return(action) for action in candidates])]


def measure(run: Path) -> dict[str, object]:
    """Score and controls of one finished run."""
    with load_trained(run) as trained:
        config = trained.config
        facts = trained.run.manifest["env"]
        spec = ActionSpec(facts["action_dim"], facts["discrete"])

        def agent(k: int) -> Policy:
            return agent_policy(trained.agent, PARALLEL, derive(config.seed, "s", k))

        def confused(k: int) -> Policy:
            return shuffled(trained, PARALLEL, derive(config.seed, "s", k))

        def random(k: int) -> Policy:
            noise = rng(config.seed, "random", k)
            return lambda obs, tick: random_actions(spec, PARALLEL, noise)

        tried = constants(spec)
        best = best_constant(trained, tried)
        results = {
            "agent": score(trained, agent, see=True),
            "shuffled": score(trained, confused, see=True),
            "random": score(trained, random, see=False),
            "zero": [] if spec.discrete else score(trained, lambda k: constant(np.zeros(spec.dim)), see=False),
            "constant": score(trained, lambda k: constant(best), see=False),
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
            "best_constant": best.round(2).tolist(),
            "constants_tried": len(tried),
            **{
                name: [round(float(np.mean(r)), 2), round(float(np.std(r)), 2)] if r else None
                for name, r in results.items()
            },
        }


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line; KEY=VALUE may stand anywhere in it, behind `--seeds 1 2 3` too."""
    training = words[:1] == ["train"]
    overrides = [word for word in words if training and "=" in word and not word.startswith("-")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train")
    train.add_argument("--name", required=True)
    train.add_argument("--config", default="demo")
    train.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    train.add_argument("--dir", type=Path, default=Path("runs/learning"))
    train.set_defaults(overrides=overrides)
    table = verbs.add_parser("table")
    table.add_argument("runs", type=Path, nargs="+")
    return parser.parse_args([word for word in words if word not in overrides])


def main() -> None:
    """Train, or print the table."""
    args = parse(sys.argv[1:])
    if args.verb == "train":
        for seed in args.seeds:
            folder = args.dir / f"{args.name}-seed{seed}"
            print(mbrl_pvr.train([*args.overrides, f"seed={seed}"], folder, config=args.config), file=sys.stderr)
        return
    for run in args.runs:
        print(json.dumps(measure(run)), flush=True)


if __name__ == "__main__":
    main()
