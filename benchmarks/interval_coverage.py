"""How often bootstrap intervals of 95 % hold the truth, by number of runs: python benchmarks/interval_coverage.py

1,000 simulated studies each, 1,000 bootstrap draws. The table of benchmarks/README.md, section "Coverage".
"""

from collections.abc import Callable

import numpy as np

from analysis import stats

RUNS, STUDIES, DRAWS, POPULATION = (3, 5, 10, 20), 1000, 1000, 200_000
LEVELS = np.linspace(0.3, 0.8, 5)  # mean scores of five tasks


def normal(rng: np.random.Generator, runs: int, tasks: int) -> np.ndarray:
    """Scores (runs, tasks) around each task's level."""
    return rng.normal(LEVELS[:tasks], 0.1, (runs, tasks))


def failing(rng: np.random.Generator, runs: int, tasks: int) -> np.ndarray:
    """The same, but one run in five learns next to nothing: two humps, as returns often have."""
    return np.where(rng.random((runs, tasks)) < 0.2, rng.normal(0.05, 0.03, (runs, tasks)), normal(rng, runs, tasks))


Population = Callable[[np.random.Generator, int, int], np.ndarray]


def coverage(population: Population, statistic: stats.Statistic, runs: int, tasks: int) -> float:
    """Share of studies whose interval holds the statistic of the population."""
    truth = float(statistic(population(np.random.default_rng(0), POPULATION, tasks)))
    hits = 0
    for study in range(STUDIES):
        scores = population(np.random.default_rng([1, study]), runs, tasks)
        interval = stats.bootstrap(scores, statistic, repetitions=DRAWS, seed=study)
        hits += interval.low <= truth <= interval.high
    return hits / STUDIES


def main() -> None:
    """Print the table of the README."""
    print("| scores | tasks | statistic |" + "".join(f" {runs} runs |" for runs in RUNS))
    print("|---|---|---|" + "---|" * len(RUNS))
    for name, population in {"normal": normal, "one run in five fails": failing}.items():
        for tasks in (1, 5):
            for called, statistic in {"mean": stats.mean, "IQM": stats.iqm}.items():
                cells = [f" {100 * coverage(population, statistic, runs, tasks):.1f} % |" for runs in RUNS]
                print(f"| {name} | {tasks} | {called} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
