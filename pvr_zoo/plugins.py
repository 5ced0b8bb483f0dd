"""Encoders of other packages, found through the entry-point group `pvr_zoo.encoders`: see docs/add_encoder.md.

An entry point names a module that registers its rows when it is imported, or a function that does so when it is called.
"""

import logging
from importlib.metadata import entry_points

from pvr_zoo.errors import SpecError
from pvr_zoo.specs import EncoderSpec

GROUP = "pvr_zoo.encoders"
_log = logging.getLogger("pvr_zoo")


def load(specs: dict[str, EncoderSpec]) -> None:
    """Let each installed plugin register its rows in `specs`.

    One that fails, or touches rows that are not its own, is named in a warning, leaves no row, and stops no other.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        before = dict(specs)
        try:
            found = point.load()
            if callable(found):
                found()
            touched = sorted(name for name, row in before.items() if specs.get(name) is not row)
            if touched:
                raise SpecError(f"it replaced {', '.join(touched)}")
        except (Exception, SystemExit) as error:
            specs.clear()
            specs.update(before)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _log.warning("encoder plugin %s (%s) is left out: %s", point.name, point.value, reason)
