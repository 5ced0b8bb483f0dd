"""Which optimiser steps which weights; chosen by `DreamerV3Config.optimizer`."""

from world_models.dreamerv3.config import DreamerV3Config
from world_models.optim import Adam, Adams, LaProp, Named

MODEL_EPS, BEHAVIOUR_EPS = 1e-8, 1e-5  # of 2023


def optimizer(learnt: Named, config: DreamerV3Config) -> LaProp | Adams:
    """One LaProp for everything, or an Adam for each network, by the beginning of the names of its weights."""
    if config.optimizer == "laprop":
        return LaProp(learnt, config.lr, clip=config.agc, warmup=config.warmup)
    behaviour = (config.behaviour_lr, config.behaviour_clip, BEHAVIOUR_EPS)
    settings = {"model.": (config.lr, config.clip, MODEL_EPS), "actor.": behaviour, "critic.": behaviour}
    adams = []
    for prefix, (lr, clip, eps) in settings.items():
        own = {name: p for name, p in learnt.items() if name.startswith(prefix)}
        adams.append(Adam([(own, lr)], clip, eps))
    found = Adams(adams)
    assert list(found.parameters) == list(learnt), "a weight has no optimiser"
    return found
