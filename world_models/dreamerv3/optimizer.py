"""Which optimiser steps which weights; chosen by `DreamerV3Config.optimizer`."""

from world_models.dreamerv3.config import DreamerV3Config
from world_models.optim import Adam, Adams, LaProp, Named

MODEL_EPS, BEHAVIOUR_EPS = 1e-8, 1e-5  # of 2023


def optimizer(learnt: Named, config: DreamerV3Config) -> LaProp | Adams:
    """One LaProp for everything, or an Adam for each network, by the beginning of the names of its weights."""
    if config.optimizer == "laprop":
        return LaProp(learnt, config.lr, clip=config.agc, warmup=config.warmup)
    groups: dict[str, Named] = {}
    for name, p in learnt.items():
        groups.setdefault(network(name), {})[name] = p
    settings = {
        "model": (config.lr, config.clip, MODEL_EPS),
        "explorer.ensemble": (config.lr, config.behaviour_clip, BEHAVIOUR_EPS),
    }
    behaviour = (config.behaviour_lr, config.behaviour_clip, BEHAVIOUR_EPS)
    adams = []
    for group, own in groups.items():
        lr, clip, eps = settings.get(group, behaviour)
        adams.append(Adam([(own, lr)], clip, eps))
    return Adams(adams)


def network(name: str) -> str:
    """The network that a weight belongs to: model, actor, critic, explorer.actor, explorer.critics.task, …"""
    parts = name.split(".")
    if parts[0] != "explorer":
        return parts[0]
    return ".".join(parts[: 3 if parts[1] == "critics" else 2])
