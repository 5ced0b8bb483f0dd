"""The code of 2023, part by part, beside plain formulas."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_models.distributions import symexp, symlog
from world_models.dreamerv3 import behaviour
from world_models.dreamerv3.behaviour import Behaviour, Imagined, Sought
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.gradients import Dynamics, Reinforce, actor_gradient, frozen
from world_models.dreamerv3.nets import LayerNormedLinear, UniformLinear
from world_models.dreamerv3.noise import ActNoise
from world_models.dreamerv3.optimizer import optimizer
from world_models.dreamerv3.rssm import DenseGRU, State
from world_models.dreamerv3.strided import StridedDecoder, StridedEncoder
from world_models.dreamerv3.two_hot import SymlogTwoHot
from world_models.optim import Adam, Adams
from world_models.types import ActionSpec


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """Layer norm as the 2023 code has it, ε beside the variance."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.scale + norm.shift


def shuffled(net: nn.Module) -> nn.Module:
    """The same with scales and shifts that are not 1 and 0."""
    for name, p in net.named_parameters():
        if name.endswith(("scale", "shift", "bias")):
            nn.init.normal_(p, generator=draws())
    return net


# Layers


@torch.no_grad()
def test_dense_gru_equals_its_formula():
    deter, stoch, actions, hidden, n = 5, 6, 2, 4, 3
    net = shuffled(DenseGRU(deter, stoch, actions, hidden, draws()))
    h, z = torch.randn(n, deter, generator=draws()), torch.randn(n, stoch, generator=draws())
    action = torch.tensor([[0.5, -4.0], [1.0, 0.0], [2.0, -0.1]])
    clipped = torch.tensor([[0.5, -1.0], [1.0, 0.0], [1.0, -0.1]])
    x = F.silu(normed(torch.cat([z, clipped], -1) @ net.enter.weight.t(), net.enter.activate))
    gates = normed(torch.cat([h, x], -1) @ net.gates.weight.t(), net.gates.activate)
    reset, candidate, update = gates[:, :5], gates[:, 5:10], gates[:, 10:]
    update = torch.sigmoid(update - 1)
    wanted = update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * h
    step = net.laid_out()
    torch.testing.assert_close(step(State(h, z), step.actions(action)), wanted)


def test_initial_weights_are_drawn_by_both_fans():
    """Hidden layers normal, cut off at two deviations, last ones uniform, both of variance 2 / (inputs + outputs)."""
    hidden, last = LayerNormedLinear(300, 100, draws()), UniformLinear(300, 100, draws())
    std = math.sqrt(2 / 400)
    assert hidden.bias is None and float(last.bias.detach().abs().max()) == 0
    for layer, largest in ((hidden, 2 * 1.1368 * std), (last, math.sqrt(3) * std)):
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(std, rel=0.02)
        assert 0.97 * largest < float(weight.abs().max()) <= largest + 1e-6
    assert float(UniformLinear(3, 2, draws(), scale=0.0).weight.detach().abs().max()) == 0


@pytest.mark.parametrize(("side", "numbers"), [(64, 256 * 16), (128, 512 * 16)])
def test_strided_convolutions_end_in_four_by_four(side, numbers):
    encoder, decoder = StridedEncoder((side, side, 3), 32, draws()), StridedDecoder((side, side, 3), 7, 32, draws())
    assert encoder.outputs == numbers
    pixels = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=draws())
    assert encoder(pixels).shape == (2, numbers)
    assert decoder(torch.zeros(2, 3), torch.zeros(2, 4)).shape == (2, side, side, 3)
    assert decoder.enter.weight.shape == (numbers, 7)


@torch.no_grad()
def test_strided_convolutions_halve_and_double():
    """A kernel that is 1 at one tap takes the pixel at 2 i + tap - 1; the transposed one puts it there."""
    encoder, decoder = StridedEncoder((8, 8, 1), 1, draws()), StridedDecoder((8, 8, 1), 1, 1, draws())
    weight, image = encoder.convs[0].weight, torch.arange(64.0).view(1, 1, 8, 8)
    weight.zero_()[0, 0, 1, 2] = 1
    found = F.conv2d(image, weight, stride=2, padding=1)
    torch.testing.assert_close(found[0, 0, :, :-1], image[0, 0, 0::2, 1::2][:, :-1])
    encoder.convs[0].activate = nn.Identity()
    pixels = torch.randint(0, 256, (1, 8, 8, 1), dtype=torch.uint8, generator=draws())
    wanted = F.pad(pixels[0, :, :, 0] / 255 - 0.5, (0, 1))[0::2, 1::2]
    torch.testing.assert_close(encoder(pixels).view(4, 4), wanted)
    decoder.last.weight.zero_()[0, 0, 1, 1] = 1
    small = decoder.enter(torch.ones(1, 1)).view(4, 4)
    drawn = decoder(torch.ones(1, 1), torch.ones(1, 0))[0, :, :, 0]
    torch.testing.assert_close(drawn[0::2, 0::2], small + 0.5)
    assert (drawn[1::2] == 0.5).all() and (drawn[:, 1::2] == 0.5).all()


@pytest.mark.parametrize("shape", [(64, 32, 3), (48, 48, 3), (4, 4, 3)])
def test_strided_convolutions_refuse_other_frames(shape):
    with pytest.raises(ValueError, match=f"{shape[0]}x{shape[1]}: convolutions=strided"):
        StridedEncoder(shape, 8, draws())


def test_symlog_two_hot_means_in_symlog_space():
    """Three classes at -20, 0 and 20: half on the last two is symexp(10); 0.05 on the last is symexp(1)."""
    two_hot = SymlogTwoHot(3)
    logits = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.95, 0.05], [1.0, 0.0, 1.0]]).log()
    torch.testing.assert_close(two_hot.mean(logits), symexp(torch.tensor([10.0, 1.0, 0.0])))
    target = symexp(torch.tensor([5.0, -30.0]))
    logits = torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]).log()
    wanted = torch.tensor([-0.75 * math.log(0.3) - 0.25 * math.log(0.5), -math.log(0.2)])
    torch.testing.assert_close(two_hot.loss(logits, target), wanted)
    torch.testing.assert_close(symlog(two_hot.mean(torch.zeros(1, 3))), torch.zeros(1))


# The recurrent state of a new episode


def test_an_episode_begins_with_the_learned_state(study):
    agent = study.agent()
    rssm = agent.model.rssm
    assert float(rssm.start.detach().abs().max()) == 0
    with torch.no_grad():
        rssm.start.normal_(generator=draws())
    begin = rssm.initial(2, rssm.start)
    torch.testing.assert_close(begin.deter, torch.tanh(rssm.start).expand(2, -1))
    likeliest = rssm.prior(begin.deter[0]).view(4, 4).argmax(-1)
    assert torch.equal(begin.stoch[0].view(4, 4).argmax(-1), likeliest) and float(begin.stoch[0].sum()) == 4

    obs = study.obs(2, first=True)
    carry = agent.initial(2, 7)
    embed = agent.model.embedding(agent.model.embedding.parts(obs)).unsqueeze(0)
    uniform = ActNoise.draw(agent.config, 2, agent.actions, 7, 0, agent.device).posterior.unsqueeze(0)
    never = torch.zeros(1, 2, dtype=torch.bool)
    wanted, _ = rssm.observe(begin, embed, torch.zeros(1, 2, 2), never, uniform)
    _, after = agent.act(carry, obs, True)
    torch.testing.assert_close(after.deter, wanted.deter[0])


def test_a_replayed_sequence_begins_as_an_episode_does(study):
    """With context=zero neither the action in front of it matters nor whether an episode began there."""
    batch = study.batch()
    other = study.batch()
    other.action[:, 0] = 0.3
    other.obs.is_first[:, 0] = True
    one, two = study.agent(), study.agent()
    assert not torch.equal(batch.action, other.action)
    found = one.update(batch), two.update(other)
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    assert not batch.obs.is_first[:, 0].any(), "the batch itself was changed"


# Actor and critic


class Line(nn.Module):
    """A world of one number: s' = s + w a, rewarded with 3 s'; it never ends."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))
        self.rssm = SimpleNamespace(
            sequence=SimpleNamespace(laid_out=lambda: None),
            step=lambda step, state, action, uniform: State(state.deter + self.w * action, state.stoch),
        )

    def predicted_reward(self, latent: Tensor) -> Tensor:
        return 3 * self.w / self.w.detach() * latent[..., 0]

    def predicted_continue(self, latent: Tensor) -> Tensor:
        return torch.ones_like(latent[..., 0])


class Push(nn.Module):
    """The action p, whatever the state."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(0.5))

    def forward(self, latent: Tensor) -> Tensor:
        return self.p.expand(len(latent), 1)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return params + noise

    def entropy(self, params: Tensor) -> Tensor:
        return torch.zeros_like(params[..., 0])


class Nothing(nn.Module):
    """A critic whose value is v s."""

    def __init__(self):
        super().__init__()
        self.v = nn.Parameter(torch.tensor(0.25))

    def head(self, latent: Tensor) -> Tensor:
        return self.v * latent[..., 0]

    def value(self, logits: Tensor) -> Tensor:
        return logits

    def slow_value(self, latent: Tensor) -> Tensor:
        return torch.zeros_like(latent[..., 0])

    def loss(self, logits: Tensor, target: Tensor, slow: Tensor) -> Tensor:
        return (logits - target).square()


def test_gradients_through_the_dynamics_by_hand():
    """Two steps from s = 1 with λ = 1 and γ = 1/2: R1 = r2 + v(s2) / 2 and R0 = r1 + R1 / 2, less v(s1) and v(s0).

    s1 = 1 + 2 a0 and s2 = s1 + 2 a1, a0 = a1 = p, so that ds1 / dp = 2, ds2 / dp = 4.
    """
    model, actor, critic = Line(), Push(), Nothing()
    config = DreamerV3Config(discount_horizon=2, return_lambda=1.0, entropy=0.0, return_rate=1.0, imagination=2)
    seeks = Behaviour(actor, {"": Sought(lambda x: model.predicted_reward(x.latent), critic)}, Dynamics())
    start = State(torch.ones(1, 1), torch.zeros(1, 0))
    noise = SimpleNamespace(action=torch.zeros(2, 1, 1), prior=torch.zeros(2, 1, 1))
    imagined = behaviour.imagine(model, seeks, start, torch.zeros(1), noise, step=lambda rssm, *x: rssm.step(*x))
    assert imagined.latent.flatten().tolist() == [1.0, 2.0, 3.0]
    found, returns, percentiles, _ = behaviour.losses(model, seeks, imagined, torch.zeros(1, 2), config)
    r1 = 3 * 3 + 0.25 * 3 / 2
    r0 = 3 * 2 + r1 / 2
    torch.testing.assert_close(returns[""].flatten(), torch.tensor([r0, r1]))
    scale = max(1.0, float(percentiles[0, 1] - percentiles[0, 0]))
    assert scale == 1.0 or scale == pytest.approx(0.9 * abs(r1 - r0))
    gradients = torch.autograd.grad(
        found["policy"].sum(), [actor.p, model.w, critic.v], allow_unused=True, retain_graph=True
    )
    d1 = 3 * 4 + 0.25 * 4 / 2
    d0 = 3 * 2 + d1 / 2
    weight = [0.5, 0.25]
    wanted = -(weight[0] * (d0 - 0) + weight[1] * (d1 - 0.25 * 2)) / scale
    assert float(gradients[0]) == pytest.approx(wanted) and gradients[1:] == (None, None)
    gradients = torch.autograd.grad(found["value"].sum(), [actor.p, model.w, critic.v], allow_unused=True)
    assert gradients[:2] == (None, None) and float(gradients[2]) != 0


def test_choices_are_learnt_by_reinforce():
    config = DreamerV3Config(actor_gradient="dynamics")
    assert isinstance(actor_gradient(config, ActionSpec(2)), Dynamics)
    assert isinstance(actor_gradient(config, ActionSpec(2, discrete=True)), Reinforce)
    assert isinstance(actor_gradient(DreamerV3Config(), ActionSpec(2)), Reinforce)


def test_frozen_weights_learn_again_afterwards():
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen(net):
        assert not net.weight.requires_grad
        raise KeyError
    assert net.weight.requires_grad and not net.bias.requires_grad


def test_likeliest_ends_by_hand():
    """Probabilities 0.9, 0.6, 0.4 of going on are yes, yes, no; but the first is what replay says."""
    model = SimpleNamespace(predicted_continue=lambda latent: latent[..., 0])
    latent = torch.tensor([[0.1, 0.9], [0.6, 0.6], [0.4, 0.9]]).unsqueeze(-1)
    imagined = Imagined(latent, torch.zeros(2, 2, 1), torch.zeros(2, 2, 1), ended=torch.tensor([0.0, 1.0]))
    live, weight = behaviour.lives(model, imagined, DreamerV3Config(discount_horizon=4, ends="likeliest"))
    torch.testing.assert_close(live, 0.75 * torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(weight, torch.tensor([[1.0, 0.0], [0.75, 0.0]]))


def test_evaluation_draws_actions_where_asked(study):
    """From the task's actor, whose likeliest actions they are around."""
    obs = study.obs(64, first=True)
    mode, drawn = (study.agent(evaluate=how) for how in ("mode", "sample"))
    (a, _), (b, _) = (x.act(x.initial(64, 7), obs, False) for x in (mode, drawn))
    assert not torch.equal(a, b)
    assert torch.equal(b, drawn.act(drawn.initial(64, 7), obs, False)[0])
    drawn.collector = drawn.actor
    assert torch.equal(b, drawn.act(drawn.initial(64, 7), obs, True)[0])


# Optimisers


def test_adams_clip_network_by_network():
    """Norms 5 and 10 against 1 and 100; the first step of Adam is lr g / (|g| + ε), of clipped g."""
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    adams = Adams([Adam([({"one": one}, 0.1)], 1.0, 1.0), Adam([({"two": two}, 0.2)], 100.0, 1e-8)])
    norm = adams.step([torch.tensor([3.0, 4.0]), torch.tensor([-10.0])])
    assert float(norm) == pytest.approx(math.sqrt(125))
    torch.testing.assert_close(one.detach(), -0.1 * torch.tensor([0.6 / 1.6, 0.8 / 1.8]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(two.detach(), torch.tensor([0.2]))
    assert adams.state_dict().keys() == {f"{p}.{k}" for p in ("one", "two") for k in ("exp_avg", "exp_avg_sq", "step")}
    with pytest.raises(ValueError, match="more gradients than the 2"):
        adams.step([torch.zeros(2), torch.zeros(1), torch.zeros(1)])


def test_every_network_has_its_adam(study):
    agent = study.agent()
    learnt = {name: p for name, p in agent.nets.named_parameters() if p.requires_grad}
    found = optimizer(learnt, DreamerV3Config(optimizer="adam", lr=1e-4))
    assert list(found.parameters) == list(learnt)
    seen = {}
    for adam in found.adams:
        (group,) = adam.inner.param_groups
        networks = {name.rpartition(".layers.")[0] for name in adam.parameters if ".layers." in name}
        seen[min(networks, key=len)] = (group["lr"], group["eps"], adam.clip_norm, group["betas"])
    betas = (0.9, 0.999)
    small = (3e-5, 1e-5, 100.0, betas)
    critics = ("critic.head", "explorer.critics.task.head", "explorer.critics.disagreement.head")
    wanted = dict.fromkeys(("actor.net", "explorer.actor.net", *critics), small)
    wanted["explorer.ensemble"] = (1e-4, 1e-5, 100.0, betas)
    model = next(k for k in seen if k.startswith("model"))
    assert seen.pop(model) == (1e-4, 1e-8, 1000.0, betas)
    assert seen == wanted
