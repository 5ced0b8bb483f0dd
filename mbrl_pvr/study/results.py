"""The results of a study: what `analysis` reads and writes of them, at the places of this package."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mbrl_pvr import __version__
from mbrl_pvr.errors import ConfigError
from mbrl_pvr.names import did_you_mean
from mbrl_pvr.presets import available, text
from mbrl_pvr.storage import make_folders, replace_atomic
from mbrl_pvr.yamlfile import parse_yaml, read_yaml

if TYPE_CHECKING:
    from analysis.claims import Claim, ClaimVerdict

SUFFIX = ".duckdb"
CLAIMS_OF_THE_STUDY = "schneider2024"
CLAIMS = "claims"  # the folder of configs/ with files of claims


@dataclass(frozen=True)
class Exported:
    """An export that was written, how many rows its tables have, and what of the runs was left out."""

    path: Path
    file_bytes: int
    rows: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)


def export(paths: Sequence[Path], out: Path | None) -> Exported:
    """Write the tables of all runs in `paths` into one file, by default beside the first of them. AnalysisError,
    StorageError.
    """
    from analysis.export import STUDIES, write_export
    from analysis.results import read_tables, study_names

    first = paths[0].expanduser().absolute()
    out = first.with_name(f"{first.name}{SUFFIX}") if out is None else out.absolute()
    tables, skipped = read_tables(paths)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"mbrl_pvr": __version__, "made": made, STUDIES: " ".join(study_names(paths))}
    make_folders(out.parent)
    with replace_atomic(out) as temporary:
        write_export(temporary, tables, about)
    rows = {name: table.num_rows for name, table in tables.items()}
    return Exported(out, out.stat().st_size, rows, skipped)


def verdicts(paths: Sequence[Path], source: str | Path | None = None) -> "list[ClaimVerdict]":
    """What the runs in `paths` say of the claims of a file, by default that of the package which is called as their
    study, otherwise of what Schneider et al. conclude. AnalysisError, ConfigError.
    """
    from analysis.claims import evaluate, needed_tables
    from analysis.results import read_tables, study_names

    if source is None:
        own = [name for name in study_names(paths) if name in available(CLAIMS)]
        source = own[0] if len(own) == 1 else CLAIMS_OF_THE_STUDY
    claims = read_claims(source)
    tables, _ = read_tables(paths, needed_tables(claims))
    return evaluate(claims, tables, encoder_groups())


def read_claims(source: str | Path) -> "list[Claim]":
    """The claims of a file of the package, by its name, or of any file. AnalysisError, ConfigError, UnsafeFile."""
    from analysis.claims import parse_claims

    name = str(source)
    if name in available(CLAIMS):
        where = f"configs/{CLAIMS}/{name}.yaml"
        return parse_claims(parse_yaml(text(name, CLAIMS), where), where)
    if "/" in name or name.endswith((".yaml", ".yml")):
        return parse_claims(read_yaml(Path(name).expanduser()), name)
    hint = did_you_mean(
        name, available(CLAIMS), f"There are: {', '.join(available(CLAIMS))}; or a path that ends in .yaml"
    )
    raise ConfigError(f"unknown file of claims {name!r}", hint=hint)


def encoder_groups() -> dict[str, list[str]]:
    """The study's groups of encoders, and `pretrained`: all that learned from pictures before."""
    from pvr_zoo.catalogue import groups
    from pvr_zoo.registry import list_encoders, spec

    rows = {name: spec(name) for name in list_encoders()}
    found = {"pretrained": [name for name, row in rows.items() if row.seed is None]}
    for name in found["pretrained"]:
        for group, belongs in groups(rows[name]).items():
            if belongs:
                found.setdefault(group, []).append(name)
    return found
