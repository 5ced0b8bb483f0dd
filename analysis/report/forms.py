"""Which interactive form each figure has: what of its numbers goes where. A new one is a row in `FORMS`."""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.dynamics import STUDY_WINDOWS
from analysis.figures import probes


@dataclass(frozen=True)
class Curves:
    """A line `y` over `x` with its band from `low` to `high`, of each series and each value of `dash`; a panel for each
    combination of the columns `by`. `base` is a column drawn thin in the same colour, `marks` are places on the x axis;
    where `diagonal`, y = x is drawn.
    """

    x: str
    y: str
    low: str
    high: str
    by: tuple[str, ...]
    titles: tuple[str, str]  # of the axes
    what: str = ""  # ends the titles of the panels
    log: bool = False
    dash: str = ""
    base: str = ""
    marks: tuple[int, ...] = ()
    diagonal: bool = False


@dataclass(frozen=True)
class Intervals:
    """Values with intervals from `low` to `high`, a symbol for each value of `symbol`; rows are the series, or the
    values of `row`, in each of which all series stand. `base` is a column that is drawn as a grey tick; the axis ends
    at `floor`, with what lies below.
    """

    value: str
    low: str
    high: str
    symbol: str
    by: tuple[str, ...]
    title: str
    what: str = ""
    row: str = "series"
    base: str = ""
    floor: float | None = None


@dataclass(frozen=True)
class Dots:
    """A point `y` over `x` for each row, named by `name`, or shaded by the column `shade`; rows without one of the two
    are not points.
    """

    x: str
    y: str
    by: tuple[str, ...]
    titles: tuple[str, str]
    what: str = ""
    name: str = "series"
    size: int = 10
    shade: str = ""


Form = Curves | Intervals | Dots
_PANEL = ("task", "agent")
_FIRST_K = "k, agent steps without an observation"
_CORRELATION = (
    Dots("dynamics_error", "return", (*_PANEL, "window"), ("error of the latent, scale-free", "return"), "dynamics"),
    Dots("reward_error", "return", (*_PANEL, "window"), ("error of the reward |r − r̂|", "return"), "reward"),
)


def _summed(value: str, base: str, title: str, what: str) -> Intervals:
    return Intervals(value, f"{value}_low", f"{value}_high", "", (*_PANEL, "measure", "window"), title, what, base=base)


def _shifted(value: str, title: str, what: str) -> Intervals:
    return Intervals(value, f"{value}_low", f"{value}_high", "looks", (*_PANEL, "window"), title, what)


def _cloud(name: str, what: str) -> Dots:
    return Dots(f"{name}_1", f"{name}_2", ("task", "series"), ("", ""), what, name="looks", size=4)


FORMS: Mapping[str, tuple[Form, ...]] = {
    "returns": (Curves("step", "mean", "low", "high", _PANEL, ("agent steps", "episode return")),),
    "ood": (Intervals("mean", "low", "high", "condition", _PANEL, "episode return"),),
    "dose": (
        Curves(
            "severity",
            "mean",
            "low",
            "high",
            (*_PANEL, "shift"),
            ("severity", "episode return"),
            base="in_distribution",
        ),
    ),
    "profile": (
        Curves(
            "threshold",
            "share",
            "low",
            "high",
            ("agent",),
            ("normalised return τ", "share of runs × tasks above τ"),
            dash="condition",
        ),
    ),
    "dynamics": (
        Curves(
            "k",
            "relative_first_k",
            "relative_first_k_low",
            "relative_first_k_high",
            (*_PANEL, "measure"),
            (_FIRST_K, "latent error, scale-free"),
            what="dynamics",
            log=True,
            base="relative_copy_first_k",
            marks=STUDY_WINDOWS,
        ),
        Curves(
            "k",
            "reward_error_first_k",
            "reward_error_first_k_low",
            "reward_error_first_k_high",
            (*_PANEL, "measure"),
            (_FIRST_K, "reward error |r − r̂|"),
            what="reward",
            log=True,
            base="mean_reward_error_first_k",
            marks=STUDY_WINDOWS,
        ),
    ),
    "errors": (
        _summed("error", "copy_last_error", "error of the latent, summed", "dynamics"),
        _summed("relative", "relative_copy", "error of the latent, scale-free", "dynamics, scale-free"),
        _summed("reward_error", "mean_reward_error", "|r − r̂|, summed", "reward"),
    ),
    "errors_shifted": (
        _shifted("relative", "error of the latent, scale-free", "dynamics"),
        _shifted("reward_per_step", "|r − r̂|, mean", "reward"),
    ),
    "calibration": (
        Curves(
            "true",
            "predicted",
            "predicted_low",
            "predicted_high",
            (*_PANEL, "loop"),
            ("true reward", "predicted"),
            diagonal=True,
        ),
    ),
    "latents": (
        Dots("umap_1", "umap_2", ("task", "series"), ("", ""), "UMAP", size=4, shade="reward"),
        Dots("pc_1", "pc_2", ("task", "series"), ("", ""), "PCA", size=4, shade="reward"),
    ),
    "probes": (Intervals("r2", "low", "high", "source", _PANEL, "held-out R²", row="variable", floor=probes.FLOOR),),
    "drift": (
        Intervals("relative", "relative_low", "relative_high", "", (*_PANEL, "shift"), "relative drift", row="stage"),
    ),
    "latents_shifted": (
        _cloud("umap_inside", "UMAP, fitted on own looks"),
        _cloud("umap_joint", "UMAP, fitted on all"),
        _cloud("pca_inside", "PCA of own looks"),
        _cloud("pca_joint", "PCA of all"),
    ),
    "correlation": _CORRELATION,
    "correlation_of_runs": _CORRELATION,
    "area": (Intervals("mean", "low", "high", "", _PANEL, "mean return on the way"),),
    "properties": (
        Dots("inside", "outside", ("agent",), ("IQM in distribution", "IQM out of distribution"), name="property"),
    ),
    "truncation": (Curves("setting", "mean", "low", "high", _PANEL, ("blocks kept", "return"), dash="where"),),
    "front_end": (Intervals("mean", "low", "high", "setting", (*_PANEL, "where"), "return"),),
    "cost": (
        Dots("hours", "return", _PANEL, ("hours of training", "return"), "time"),
        Dots("bytes", "return", _PANEL, ("bytes of replay", "return"), "memory"),
        Dots("flops", "return", _PANEL, ("FLOPs of the encoder per frame", "return"), "computation"),
    ),
}
