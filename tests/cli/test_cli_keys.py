"""Every configuration key is explained to whoever prints the configuration."""

from mbrl_pvr.config import RunConfig
from mbrl_pvr.schema import field_docs, leaf_keys


def test_every_key_has_an_explanation() -> None:
    docs = field_docs(RunConfig)
    assert not [key for key in leaf_keys(RunConfig) if not docs.get(key)]
