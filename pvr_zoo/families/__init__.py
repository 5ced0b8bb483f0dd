"""One file per source of encoders; each has `build(spec, state)`, which the spec names. Import them through the registry."""
