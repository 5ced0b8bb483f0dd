"""Where curves may also go: TensorBoard beside the run, and W&B, trackio or MLflow on request (`sinks=[wandb]`).

A sink has `scalars(step, values)`, `close()` and `starts_anew`: whether a resumed run must give it everything again.
To add one, write such a class and put it into `SINKS`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from mbrl_pvr.errors import ConfigError
from mbrl_pvr.extras import import_extra
from mbrl_pvr.names import did_you_mean
from mbrl_pvr.runfolder import RunFolder


class Sink(Protocol):
    """Takes scalars; may raise, the logger reports it and goes on."""

    starts_anew: bool

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars "<group>/<name>" at an agent step."""
        ...

    def close(self) -> None:
        """No more will follow."""
        ...


class TensorBoard:
    """Event files in `tensorboard/`. A new one begins at each start and takes all older points back (purge_step=0)."""

    starts_anew = True

    def __init__(self, run: RunFolder) -> None:
        self._folder = run.path / "tensorboard"
        self._writer: Any = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write the points; the first call opens the file."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writer = SummaryWriter(str(self._folder), purge_step=0)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            self._writer.close()


class WandB:
    """Weights & Biases; a resumed run continues its curve, which drops steps it has seen."""

    starts_anew = False

    def __init__(self, run: RunFolder) -> None:
        self._module, self._run = _import("wandb"), run
        self._session: Any = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values; the first call opens the session."""
        if self._session is None:
            name = {"name": self._run.path.name, "id": self._run.identity[:16], "resume": "allow"}
            self._session = self._module.init(project="mbrl_pvr", config=self._run.config, **name)
        self._session.log(dict(values), step=step)

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.finish()


class Trackio(WandB):
    """trackio, which has the interface of W&B but names runs instead of numbering them."""

    def __init__(self, run: RunFolder) -> None:
        self._module, self._run = _import("trackio"), run
        self._session = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values; the first call opens the session."""
        if self._session is None:
            config, name = self._run.config, f"{self._run.path.name}-{self._run.identity[:8]}"
            self._session = self._module.init(project="mbrl_pvr", name=name, config=config, resume="allow")
        self._session.log(dict(values), step=step)


class MLflow:
    """MLflow, at the tracking server of its own settings."""

    starts_anew = False

    def __init__(self, run: RunFolder) -> None:
        self._client: Any = None
        self._module, self._run = _import("mlflow"), run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values; the first call finds or makes the run."""
        if self._client is None:
            self._client = self._module.MlflowClient()
            self._id = self._find_or_create()
        for name, value in values.items():
            self._client.log_metric(self._id, re.sub(r"[^\w./ -]", "_", name), value, step=step)

    def _find_or_create(self) -> str:
        experiment = self._client.get_experiment_by_name("mbrl_pvr")
        number = experiment.experiment_id if experiment else self._client.create_experiment("mbrl_pvr")
        tag = {"mbrl_pvr.identity": self._run.identity}
        found = self._client.search_runs([number], f"tags.`mbrl_pvr.identity` = '{self._run.identity}'")
        run = found[0] if found else self._client.create_run(number, tags=tag, run_name=self._run.path.name)
        return run.info.run_id

    def close(self) -> None:
        """End the run."""
        if self._client is not None:
            self._client.set_terminated(self._id)


SINKS: dict[str, Callable[[RunFolder], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
    "mlflow": MLflow,
}


def check_sinks(names: Sequence[str]) -> None:
    """ConfigError for a name that is unknown or given twice; imports nothing."""
    for name in names:
        if name not in SINKS:
            hint = did_you_mean(name, SINKS, f"Available: {', '.join(SINKS)}")
            raise ConfigError(f"unknown sink {name!r}", "sinks", hint)
        if names.count(name) > 1:
            raise ConfigError(f"the sink {name!r} is given twice", "sinks")


def require_sinks(names: Sequence[str]) -> None:
    """Unavailable where a sink's package is not installed, before a run is made for it."""
    check_sinks(names)
    for name in names:
        if name != "tensorboard":  # a dependency, and slow to import
            _import(name)


def make_sinks(names: Sequence[str], run: RunFolder) -> list[Sink]:
    """The sinks of these names. ConfigError for an unknown name, Unavailable for a missing extra."""
    check_sinks(names)
    return [SINKS[name](run) for name in names]


def _import(module: str) -> ModuleType:
    return import_extra(module, f"sinks=[{module}]")
