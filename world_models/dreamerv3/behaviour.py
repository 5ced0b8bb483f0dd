"""Actors and critics, learnt in imagination (arXiv 2301.04104v2, equations 6 to 11) and from replayed steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from world_models.dreamerv3.actor import Actor
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.critic import Critic
from world_models.dreamerv3.gradients import Dynamics, Reinforce
from world_models.dreamerv3.model import WorldModel
from world_models.dreamerv3.noise import ExploreNoise, UpdateNoise
from world_models.dreamerv3.returns import lambda_return, move_percentiles, return_scale
from world_models.dreamerv3.rssm import RSSM, Open, State


@dataclass(frozen=True)
class Imagined:
    """Open-loop sequences of H steps from N states; gradients as the actor's `Reinforce` or `Dynamics` has them."""

    latent: Tensor  # (H + 1, N, L)
    params: Tensor  # (H, N, ...) of the policy at all but the last
    action: Tensor  # (H, N, A) taken there; (H + 1, N, A) where the noise has one for the last state too
    ended: Tensor  # (N,) 1.0 where the replayed state that imagination starts from has ended its episode


@dataclass(frozen=True)
class Sought:
    """A reward that an actor seeks."""

    reward: Callable[[Imagined], Tensor]  # (H + 1, N), arriving with each state; the first is not read
    critic: Critic
    share: float = 1.0  # of its normalised advantage in that of the actor


@dataclass(frozen=True)
class Behaviour:
    """An actor, what it seeks, and how it learns."""

    actor: Actor
    sought: dict[str, Sought]  # by what is put behind the names of losses and metrics
    gradient: Reinforce | Dynamics


def imagine(
    model: WorldModel,
    behaviour: Behaviour,
    start: State,
    ended: Tensor,
    noise: UpdateNoise | ExploreNoise,
    *,
    step: Open = RSSM.step,
) -> Imagined:
    """Follow the policy from states (N, ...) outside the graph."""
    actor, gradient = behaviour.actor, behaviour.gradient
    with gradient.path(model):
        sequence = model.rssm.sequence.laid_out()
    state, latents, params, actions = start, [start.features()], [], []
    for t, action_noise in enumerate(noise.action):
        chosen = actor(latents[-1].detach())
        with gradient.path(model):
            actions.append(actor.sample(chosen, action_noise))
            if t == len(noise.prior):
                break
            state = step(model.rssm, sequence, state, actions[-1], noise.prior[t])
        params.append(chosen)
        latents.append(state.features())
    return Imagined(torch.stack(latents), torch.stack(params), torch.stack(actions), ended)


def lives(model: WorldModel, imagined: Imagined, config: DreamerV3Config) -> tuple[Tensor, Tensor]:
    """γ where episodes go on behind each state, (H + 1, N), and how likely all but the last are reached, (H, N)."""
    going = model.predicted_continue(imagined.latent)
    if config.ends == "expected":
        live = config.discount * going
        return live, live.detach().cumprod(0)[:-1]
    going = torch.cat([1 - imagined.ended.unsqueeze(0), (going[1:] > 0.5).to(going.dtype)])
    live = config.discount * going
    return live, live.cumprod(0)[:-1] / config.discount


def losses(
    model: WorldModel, behaviour: Behaviour, imagined: Imagined, percentiles: Tensor, config: DreamerV3Config
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Policy and value losses (H, N), λ-returns (H, N) of each reward sought, moved percentiles (K, 2), and metrics.

    `percentiles` are those of the returns of each of K rewards, in the order of `behaviour.sought`.
    """
    actor, latent, gradient = behaviour.actor, imagined.latent, behaviour.gradient
    with gradient.path(model):
        live, weight = lives(model, imagined, config)
    keep = torch.full_like(live, config.return_lambda)
    found: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    returns: dict[str, Tensor] = {}
    moved, advantages = [], []
    for (name, sought), running in zip(behaviour.sought.items(), percentiles, strict=True):
        critic = sought.critic
        logits = critic.head(latent[:-1].detach())  # (H, N, K)
        with gradient.path(model, critic):
            reward = sought.reward(imagined)
            value = gradient.values(critic, latent, logits)
            returned = lambda_return(reward, live, keep, value)  # (H, N)
            returns[name] = returned.detach()
            moved.append(move_percentiles(running, returns[name], config.return_rate))
            advantages.append(sought.share * (returned - value[:-1]) / return_scale(moved[-1]))
        slow = critic.slow_value(latent[:-1])
        found[f"value{name}"] = weight * critic.loss(logits, returns[name], slow)
        metrics |= {
            f"imagined_reward{name}": reward.detach().mean(),
            f"imagined_return{name}": returns[name].mean(),
            f"return_5{name}": moved[-1][0],
            f"return_95{name}": moved[-1][1],
        }
    advantage, params = torch.stack(advantages).sum(0), imagined.params
    gain = gradient.gain(actor, params, imagined.action[: len(params)], advantage)
    entropy = actor.entropy(params)
    found["policy"] = -weight * (gain + config.entropy * entropy)
    metrics |= {
        "imagined_continue": live.detach().mean() / config.discount,
        "advantage": advantage.detach().mean(),
        "entropy": entropy.detach().mean(),
    }
    return found, returns, torch.stack(moved), metrics


def replay_value_loss(
    critic: Critic,
    latent: Tensor,
    boot: Tensor,
    reward: Tensor,
    last: Tensor,
    terminal: Tensor,
    config: DreamerV3Config,
) -> Tensor:
    """The value loss (T - 1, B) on replayed latents (T, B, L), with gradients into the world model.

    Returns are bootstrapped with those imagined from each step, `boot` (T, B).
    """
    logits = critic.head(latent[:-1])
    live = config.discount * (1 - terminal)
    returns = lambda_return(reward, live, config.return_lambda * (1 - last), boot)
    return (1 - last[:-1]) * critic.loss(logits, returns, critic.slow_value(latent[:-1]))
