"""Configurations that differ from the dataclass defaults; installed as `mbrl_pvr._configs`."""
