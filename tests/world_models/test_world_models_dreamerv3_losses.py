"""DreamerV3's losses on numbers worked by hand, with parts that say what they are told."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from world_models.distributions import symlog
from world_models.dreamerv3 import behaviour
from world_models.dreamerv3.behaviour import Behaviour, Imagined, Sought
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.gradients import Reinforce
from world_models.dreamerv3.noise import UpdateNoise

CONFIG = DreamerV3Config(discount_horizon=2, return_lambda=0.5, entropy=0.1, return_rate=1.0, imagination=2)  # γ = 1/2


def close(found: Tensor, wanted: list) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted))


def told() -> SimpleNamespace:
    """A critic whose value and slow value stand in a latent's last two numbers; its loss shows what it was given."""
    return SimpleNamespace(
        head=lambda latent: latent[..., 2],
        value=lambda logits: logits,
        slow_value=lambda latent: latent[..., 3],
        loss=lambda logits, target, slow: logits + 10 * target + 100 * slow,
    )


def test_policy_and_value_losses_by_hand():
    model = SimpleNamespace(predicted_reward=lambda x: x[..., 0], predicted_continue=lambda x: x[..., 1])
    actor = SimpleNamespace(log_prob=lambda params, action: params[..., 0], entropy=lambda params: params[..., 1])
    #            reward  continue  value  slow
    latent = [[7.0, 0.8, 2.0, 1.0], [4.0, 0.5, 4.0, 2.0], [8.0, 1.0, 16.0, 3.0]]
    params = torch.tensor([[-1.0, 3.0], [-2.0, 5.0]]).unsqueeze(1)  # log probability, entropy
    imagined = Imagined(torch.tensor(latent).unsqueeze(1), params, torch.zeros(2, 1, 1), torch.zeros(1))
    seeks = Behaviour(actor, {"": Sought(lambda x: model.predicted_reward(x.latent), told())}, Reinforce())
    # live = γ continue = 0.4, 0.25, 0.5; R1 = 8 + 0.5 · 16 = 16; R0 = 4 + 0.25 (0.5 · 4 + 0.5 · 16) = 6.5
    found, returns, percentiles, metrics = behaviour.losses(model, seeks, imagined, torch.zeros(1, 2), CONFIG)
    close(returns[""], [[6.5], [16.0]])
    close(percentiles[0], [6.5 + 0.05 * 9.5, 6.5 + 0.95 * 9.5])
    scale = 0.9 * 9.5
    weight = [0.4, 0.4 * 0.25]
    close(found["policy"], [[-weight[0] * (-1 * 4.5 / scale + 0.3)], [-weight[1] * (-2 * 12 / scale + 0.5)]])
    close(found["value"], [[weight[0] * (2 + 65 + 100)], [weight[1] * (4 + 160 + 200)]])
    assert float(metrics["imagined_reward"]) == pytest.approx((7 + 4 + 8) / 3)
    assert float(metrics["imagined_continue"]) == pytest.approx(2.3 / 3)


def test_replayed_value_loss_by_hand():
    """A termination in state 1, a break in state 2 and a sequence without either."""
    value, slow = torch.tensor([2.0, 3.0, 4.0]), torch.tensor([0.1, 0.2, 0.3])
    latent = torch.stack([torch.zeros(3), torch.zeros(3), value, slow], -1).unsqueeze(1).expand(3, 3, 4)
    boot = torch.tensor([10.0, 20.0, 40.0]).unsqueeze(1).expand(3, 3)
    reward = torch.tensor([9.0, 1.0, 2.0]).unsqueeze(1).expand(3, 3)
    terminal, last = torch.zeros(3, 3), torch.zeros(3, 3)
    terminal[1, 0] = last[1, 0] = last[2, 1] = 1
    found = behaviour.replay_value_loss(told(), latent, boot, reward, last, terminal, CONFIG)
    # R2 = 40; R1 = 2 + 0.5 · 40 = 22 in all three, unused behind an end
    # R0 = 1 + 0 at a termination; else 1 + 0.5 (0.5 · 20 + 0.5 · 22)
    zero, one = (lambda target: 2 + 10 * target + 10), 3 + 220 + 20
    close(found, [[zero(1.0), zero(11.5), zero(11.5)], [0.0, one, one]])


def test_critic_learns_returns_and_stays_near_its_slow_copy(dream):
    critic = dream.agent().critic
    bins = critic.two_hot.bins
    logits = torch.randn(2, len(bins), generator=torch.Generator().manual_seed(0))
    found = critic.loss(logits, bins[[3, 20]], bins[[5, 20]])
    log_probs = logits.log_softmax(-1)
    torch.testing.assert_close(found, -log_probs[[0, 1], [3, 20]] - log_probs[[0, 1], [5, 20]])


def world_losses(agent, batch, embed_gradient: bool = False):
    """The world model's losses and the embedding, which is cut off from the states where its gradient is asked for."""
    obs = batch.obs.map(lambda x: x.transpose(0, 1))
    model, uniform = agent.model, UpdateNoise.draw(agent.config, 4, agent.actions, 0, 0, agent.device).posterior
    parts = model.embedding.parts(obs)
    embed = model.embedding(parts)
    start = model.rssm.initial(4, embed)
    state, logits = model.rssm.observe(start, embed, batch.action.transpose(0, 1), obs.is_first, uniform)
    if embed_gradient:
        embed = embed.detach().requires_grad_()
    return model.losses(
        parts, embed, state, logits, batch.reward.t().contiguous(), batch.is_terminal.t().float()
    ), embed


def say(head: torch.nn.Module, bias: float) -> None:
    """Make a head say one number whatever it reads."""
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.fill_(bias)


def test_continue_head_learns_that_termination_is_the_end(dream):
    agent, batch = dream.agent(), dream.batch()
    assert 0 < int(batch.is_terminal.sum()) < int(batch.is_last.sum()), "truncations must not count as ends"
    say(agent.model.cont, math.log(3))
    found = world_losses(agent, batch)[0]["continue"]
    wanted = torch.where(batch.is_terminal.t(), math.log(4), math.log(4 / 3))
    torch.testing.assert_close(found, wanted)
    latent = torch.zeros(1, agent.model.rssm.features)
    assert float(agent.model.predicted_continue(latent).detach()) == pytest.approx(0.75)


@pytest.mark.parametrize("squashed", [True, False])
def test_reconstruction_is_the_summed_squared_error(dream_any, squashed):
    agent, batch = dream_any.agent(symlog=squashed), dream_any.batch()
    for name, decoder in agent.model.decoders.items():
        if name == "pixels":
            with torch.no_grad():
                last = decoder.last if agent.config.convolutions == "strided" else decoder.convs[-1]
                last.weight.zero_()  # grey: a sigmoid of 0, or 0.5 and nothing
        else:
            say(decoder.each if hasattr(decoder, "each") else decoder, 0.3)
    losses, _ = world_losses(agent, batch)
    for name in agent.model.decoders:
        value = getattr(batch.obs, name).transpose(0, 1).float().flatten(2)  # (T, B, all)
        squash = symlog if squashed else (lambda x: x)
        error = value / 255 - 0.5 if name == "pixels" else squash(value) - 0.3
        torch.testing.assert_close(losses[name], error.square().sum(-1))


def test_redundancy_reduction_does_not_move_its_target(dream):
    losses, embed = world_losses(dream.agent(target="none"), dream.batch(), embed_gradient=True)
    assert losses["barlow"].requires_grad
    assert torch.autograd.grad(losses["barlow"].mean(), embed, allow_unused=True) == (None,)
