"""Nearest names for what was mistyped, names that are safe as folder names, and text in quotes for Hydra."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

_NEAR = 0.2  # suggestions that are this much worse than the best are left out
_THRESHOLD = 0.55  # below this similarity a suggestion confuses more than it helps


def _similarity(a: str, b: str) -> float:
    letters = SequenceMatcher(None, a, b).ratio()
    words_a, words_b = set(re.split(r"[^a-z0-9]+", a)), set(re.split(r"[^a-z0-9]+", b))
    return letters + 0.3 * len(words_a & words_b) / max(len(words_a), len(words_b))


def nearest(name: str, options: Iterable[str], limit: int = 3) -> list[str]:
    """Up to `limit` of `options` that resemble `name`, best first; dotted names also match by their last part alone."""
    wanted = name[:200].lower()

    def score(option: str) -> float:
        full = _similarity(wanted, option.lower())
        last = _similarity(wanted.rpartition(".")[2], option.lower().rpartition(".")[2])
        return max(full, 0.98 * last)

    ranked = sorted(((score(option), option) for option in options), key=lambda pair: (-pair[0], pair[1]))
    floor = max(_THRESHOLD, ranked[0][0] - _NEAR) if ranked else 0.0
    return [option for value, option in ranked[:limit] if value >= floor]


def did_you_mean(name: str, options: Iterable[str], otherwise: str = "") -> str:
    """A hint that names the nearest options, or `otherwise` where nothing is near."""
    close = nearest(name, options)
    return f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else otherwise


def safe_name(text: str) -> str:
    """`text` as a folder name: [A-Za-z0-9._-]{1,100} without a leading dot or dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:100] or "run"


def quoted(text: str) -> str:
    """`text` in quotes as Hydra's grammar reads it back: a backslash is itself there, unless a quote follows it."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), text)
    return f"'{escaped}'"
