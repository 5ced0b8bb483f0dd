"""Which looks episodes are drawn from: those of training, or those held out from it. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mbrl_pvr.config import RunConfig
from mbrl_pvr.envs import EnvConfig
from mbrl_pvr.envs.factors import check_shifts, strengths
from mbrl_pvr.envs.offers import check_offers, presets
from mbrl_pvr.errors import ConfigError


@dataclass(frozen=True)
class Split:
    """The looks that episodes are drawn from: those of training ("train") or those held out from it."""

    name: str = "train"  # train, held_out, or held_out:FACTOR, where the other factors stay as in training
    shift: str = "none"  # what differs from the training distribution
    severity: float = 0.0

    @property
    def label(self) -> str:
        """Name for files, another one for every other split."""
        name = self.name.replace(":", "_")
        return name if self.shift == "none" else f"{name}_{self.shift}_{self.severity:g}"

    @property
    def title(self) -> str:
        """Short words for a picture: training, color_easy 0.3, floor: color_easy 0.3."""
        alone = self.name.partition(":")[2]
        return "training" if self.shift == "none" else f"{alone}{': ' * bool(alone)}{self.shift} {self.severity:g}"

    def apply(self, config: EnvConfig) -> EnvConfig:
        """The environment under this split's shift; in distribution it stays as it was trained on.

        A run that was trained under some factors of a shift is tested on the same, where the shift has them all.
        """
        if self.shift == "none":
            return config
        kept = set(config.factors or ()) <= set(strengths(self.shift, config.name))
        factors = config.factors if kept else None
        return replace(config, shifts=self.shift, severity=self.severity, factors=factors)


IN_DISTRIBUTION = Split()


def held_out_splits(
    config: RunConfig, shifts: Sequence[str] = (), severities: Sequence[float] = (), *, each_factor: bool = False
) -> tuple[Split, ...]:
    """The looks to test a run on: every shift at every severity, all factors held out at once.

    By default the shift and the severity of training; severity 1 for a shift that training did not have. With
    `each_factor` also each factor of a shift held out alone, while the others are drawn as in training.
    """
    found: list[Split] = []  # without repetitions, since episodes of a split that is named twice count once
    for shift in shifts or (config.env.shifts,):
        if shift == "none":
            named = " or ".join((*presets(config.env.name), "factors joined by +"))
            raise ConfigError(
                "shift='none' is no shift to test on",
                "ood",
                f"Name one (--shift, in a study stages.ood.shifts): {named}",
            )
        check_shifts(shift)
        for severity in severities or (config.env.severity if shift == config.env.shifts else 1.0,):
            whole = Split("held_out", shift, severity)
            shifted = whole.apply(config.env)
            check_offers(shifted)
            factors = strengths(shift, config.env.name, shifted.factors)
            alone = factors if each_factor and len(factors) > 1 else ()
            found += [whole, *(replace(whole, name=f"held_out:{factor}") for factor in alone)]
    return tuple(dict.fromkeys(found))
