"""One file per source of encoders; each has the `build(spec, state)` that its specs name."""
