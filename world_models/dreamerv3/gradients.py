"""How an actor learns from what it imagined; chosen by `DreamerV3Config.actor_gradient`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from world_models.dreamerv3.actor import Actor
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.critic import Critic
from world_models.types import ActionSpec


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Gradients pass through the modules, but their weights get none from what is computed inside."""
    weights = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)


class Reinforce:
    """Actions are made likelier by their advantages; nothing that is imagined carries gradients."""

    def path(self, *modules: nn.Module) -> AbstractContextManager[object]:
        """What imagining with modules, and rating what was imagined, runs in."""
        return torch.no_grad()

    def values(self, critic: Critic, latent: Tensor, logits: Tensor) -> Tensor:
        """Values (H + 1, N) of latents; `logits` (H, N, K) are the critic's for all but the last."""
        return torch.cat([critic.value(logits.detach()), critic.value(critic.head(latent[-1:]))])

    def gain(self, actor: Actor, params: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
        """What the actor raises, (H, N)."""
        return actor.log_prob(params, action) * advantage


class Dynamics:
    """Advantages are raised themselves, through states, rewards and values that followed from the actions (2023)."""

    def path(self, *modules: nn.Module) -> AbstractContextManager[object]:
        """What imagining with modules, and rating what was imagined, runs in."""
        return frozen(*modules)

    def values(self, critic: Critic, latent: Tensor, logits: Tensor) -> Tensor:
        """Values (H + 1, N) of latents, with gradients into these, which `logits` have not."""
        return critic.value(critic.head(latent))

    def gain(self, actor: Actor, params: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
        """What the actor raises, (H, N)."""
        return advantage


def actor_gradient(config: DreamerV3Config, action: ActionSpec) -> Reinforce | Dynamics:
    """`config.actor_gradient`; choices have no gradient to pass on."""
    return Dynamics() if config.actor_gradient == "dynamics" and not action.discrete else Reinforce()
