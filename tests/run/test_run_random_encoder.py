"""A run on a random encoder does not go on where the encoder would be drawn by another recipe."""

from types import SimpleNamespace
from typing import Any

import pytest

import pvr_zoo
from mbrl_pvr.errors import IntegrityError
from mbrl_pvr.storage import plain
from mbrl_pvr.unchanged import refuse_other_encoder
from pvr_zoo.families import random


def test_another_recipe_is_another_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def features() -> Any:
        return SimpleNamespace(encoder=pvr_zoo.create("random_vits16", truncate=1, input_size=32))

    run: Any = SimpleNamespace(manifest={"encoder": plain(features().encoder.identity)}, path="run")
    refuse_other_encoder(run, features())
    monkeypatch.setattr(random, "RECIPE", 2)
    with pytest.raises(IntegrityError, match="not the one that this run began with"):
        refuse_other_encoder(run, features())
