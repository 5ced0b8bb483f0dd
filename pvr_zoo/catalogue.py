"""Cards: what a researcher wants to know of an encoder before choosing it. Plain data, no torch.

Parameters and FLOPs stand in data/costs.json (tools/make_costs.py; a test counts again); `info` counts the parameters
of other encoders, which alone imports torch. The study's property groups
are the `Groups` of each row; `$MBRL_PVR_GROUPS` may name a YAML file {encoder: {group: true or false}} that says
otherwise, since the study's Table 3 can be read in more than one way.
"""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pvr_zoo.cards import read_card
from pvr_zoo.errors import SpecError
from pvr_zoo.registry import list_encoders, spec
from pvr_zoo.specs import EncoderSpec, WeightsSource
from pvr_zoo.study import name_in_study

COSTS = Path(__file__).parent / "data" / "costs.json"
GROUPS = ("language", "sequential", "diverse", "vit")
STUDY = "study"  # the group of what the study compared
PERMISSIVE = ("MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "CC-BY-4.0", "CC0-1.0")
COMMERCIAL_USE = {"permissive": "allowed", "non-commercial": "not allowed", "other": "read the terms"}
LICENCES = tuple(COMMERCIAL_USE)


def licence_class(licence: str) -> str:
    """ "permissive", "non-commercial", or "other": custom terms or none stated, which somebody must read."""
    if licence in PERMISSIVE:
        return "permissive"
    forbidding = ("-nc-", "non-commercial", "noncommercial")
    return "non-commercial" if any(word in licence.lower() for word in forbidding) else "other"


def groups(row: EncoderSpec) -> dict[str, bool]:
    """Membership in the study's property groups."""
    found = {name: getattr(row.groups, name) for name in ("language", "sequential", "diverse")}
    found["vit"] = row.groups.backbone == "vit"
    return found | _others().get(row.name, {})


@cache
def _others() -> dict[str, dict[str, bool]]:
    path = os.environ.get("MBRL_PVR_GROUPS")
    if not path:
        return {}
    import yaml

    try:
        table = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SpecError(f"the table of groups cannot be read: {error}", path) from error
    known = list_encoders()
    rows: Iterable[tuple[Any, Any]] = table.items() if isinstance(table, dict) else [(table, None)]
    for name, given in rows:
        fits = isinstance(given, dict) and given.keys() <= set(GROUPS)
        if name not in known or not fits or not all(isinstance(v, bool) for v in given.values()):
            hint = f"Write ENCODER: {{GROUP: true}} with groups {', '.join(GROUPS)}."
            raise SpecError(f"the table of groups has no use for {name!r}: {given!r}", path, hint)
    return dict(rows)


@cache
def _costs() -> dict[str, dict[str, int]]:
    stored: dict[str, dict[str, int]] = json.loads(COSTS.read_text())
    return stored


def card(row: EncoderSpec) -> dict[str, Any]:
    """Everything about an encoder as it would be used, as JSON values."""
    cost = _costs().get(row.name.removeprefix("random:"), {})  # a control has the cost of what it controls for
    package = "" if row.weights is None else row.weights.package
    own = read_card(Path(__file__).parent / package) if package else {}
    return {
        "name": row.name,
        "name_in_study": name_in_study(row.name),
        "objective": row.groups.objective,
        "data": row.groups.data,
        "backbone": row.groups.backbone,
        "architecture": row.architecture,
        "groups": [name for name, member in groups(row).items() if member],
        "parameters": cost.get("parameters"),
        "flops": cost.get("flops"),  # of one frame
        "parameters_and_flops_of": "the whole network at its published input size",  # whatever is asked for
        "depth": f"{row.depth} {row.unit}s",
        "truncate": row.truncate if len(row.layers) == 1 else list(row.layers),
        "input": f"{row.input_size}×{row.input_size}",
        "transform": row.transform.describe(),
        "norm": row.norm,
        "feature": row.feature,
        "feature_shape": list(row.feature_shape),
        "features": list(row.features),
        "output": row.output_is,
        "when_truncated": row.when_truncated,
        "licence": row.licence,
        "licence_class": licence_class(row.licence),
        "commercial_use": COMMERCIAL_USE[licence_class(row.licence)],
        "citation": row.citation,
        "made": {key: value for key, value in own.items() if isinstance(value, str | int | float)},
        "weights": ", ".join(source.address for source in row.sources),
        "sha256": ", ".join(dict.fromkeys(map(_checksum, row.sources))),
        "top": _of_files(row, "top"),  # the key under which the weights files nest the network
        "prefix": _of_files(row, "prefix"),  # of the keys in the weights files
        "dropped": _of_files(row, "drop"),  # what of the files is left out, by the start of its key
    }


def _of_files(row: EncoderSpec, part: str) -> list[str]:
    """A part of the layout of the row's weights files, those of a fused encoder taken together."""
    layouts = [one.layout for one in row.parts or (row,) if one.weights is not None]
    return list(dict.fromkeys(text for layout in layouts for text in getattr(layout, part)))


def info(row: EncoderSpec, **request: Any) -> dict[str, Any]:
    """The card of a row used as `EncoderSpec.request` says; parameters that are not stored are counted.

    Raises SpecError. FLOPs that are not stored stay None.
    """
    facts = card(row.request(**request))
    if facts["parameters"] is None:
        facts["parameters"] = count_parameters(row)
    return facts


def count_parameters(row: EncoderSpec) -> int:
    """Parameters of the network, which is built on the meta device: no memory, no weights."""
    from pvr_zoo.network import build

    return sum(parameter.numel() for parameter in build(row, None).parameters())


def count_flops(row: EncoderSpec) -> int:
    """FLOPs of one frame, on the meta device: two for each multiplication with its addition, of products and
    convolutions alone (torch.utils.flop_counter).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pvr_zoo.network import build

    network = build(row, None).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, row.input_size, row.input_size, device="meta"))
    return counter.get_total_flops()


def _checksum(source: WeightsSource) -> str:
    unknown = "not known in advance: " + (
        "compared with the hub's own hash" if source.hub else "what arrives is recorded"
    )
    return source.sha256 or unknown


def choose(pattern: str = "*", group: str | None = None, licence: str | None = None) -> list[EncoderSpec]:
    """The rows whose name matches, that belong to a group and have a licence of that class; raises SpecError.

    A group is one of the study's properties, or "study": the encoders that it compared.
    """
    _check_one_of("group", group, (*GROUPS, STUDY))
    check_licence_class(licence)
    rows: Iterable[EncoderSpec] = (spec(name) for name in list_encoders(pattern))
    if group == STUDY:
        rows = (row for row in rows if name_in_study(row.name))
    elif group is not None:
        rows = (row for row in rows if groups(row)[group])
    return [row for row in rows if licence in (None, licence_class(row.licence))]


def _check_one_of(what: str, value: str | None, legal: tuple[str, ...]) -> None:
    if value is not None and value not in legal:
        raise SpecError(f"there is no {what} {value!r}", hint=f"Take one of: {', '.join(legal)}.")


def check_licence_class(licence: str | None) -> None:
    """Raise SpecError where there is no such class; None stands for any."""
    _check_one_of("licence", licence, LICENCES)


def require_licence(row: EncoderSpec, licence: str | None) -> None:
    """Raise SpecError where the row's licence is not of that class; None stands for any."""
    check_licence_class(licence)
    found = licence_class(row.licence)
    if licence not in (None, found):
        raise SpecError(
            f"{row.name} is {row.licence}, which is not {licence} but {found}",
            hint=f"List what is: mbrl-pvr encoders list --licence {licence}.",
        )
