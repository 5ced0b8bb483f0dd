"""Studies: many runs from one file, as processes that may be killed at any moment.

`file` reads the study file, `cells` makes runs of it, `folder` is where they lie, `work` takes one run through its
stages, `engine` starts and repeats them, `local` is the engine of this machine, `ray_engine` and `slurm_engine` are
those of clusters, `plan` says before what it costs, and `status` during and after how far it is. Another engine is a
class with the methods of `engine.Engine`, and a branch in `start.open_engine`.
"""
