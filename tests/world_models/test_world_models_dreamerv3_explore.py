"""Plan2Explore: what heads disagree on, who seeks it, and who must never hear of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from world_models.dreamerv3.behaviour import Imagined
from world_models.dreamerv3.config import DreamerV3Config
from world_models.dreamerv3.explore import Ensemble
from world_models.dreamerv3.noise import UpdateNoise
from world_models.dreamerv3.rssm import State
from world_models.optim import Adam

DETER, STOCH, ACTIONS = 3, 2, 1


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def ensemble(heads: int, deter: int = DETER, stoch: int = STOCH, actions: int = ACTIONS, **settings) -> Ensemble:
    config = DreamerV3Config(**{"size": "1M", "units": 32, "layers": 2, **settings, "disagreement_heads": heads})
    return Ensemble(deter, stoch, actions, config, draws())


def say(net: Ensemble, *answers: list[float]) -> None:
    """Make every head say one thing whatever it reads."""
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor(answers).unsqueeze(1))


def inputs(*lead: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*lead, DETER + STOCH, generator=draws()), torch.randn(*lead, ACTIONS, generator=draws())


# The ensemble


def test_disagreement_by_hand():
    """Heads say 1, 2, 6 and 0, 0, 3 of two dimensions: deviations √(14/3) and √2 over heads, and their mean."""
    net = ensemble(3)
    say(net, [1.0, 0.0], [2.0, 0.0], [6.0, 3.0])
    found = net.disagreement(*inputs(4, 5))
    torch.testing.assert_close(found, torch.full((4, 5), ((14 / 3) ** 0.5 + 2**0.5) / 2))


def test_heads_that_agree_give_nothing():
    net = ensemble(4)
    assert float(net.disagreement(*inputs(2, 3)).min()) > 1e-3
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p[:1].expand_as(p))
    latent, action = inputs(2, 3)
    found = net.disagreement(latent, action.requires_grad_())
    torch.testing.assert_close(found, torch.zeros(2, 3), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(found.sum(), action)
    assert gradient.isfinite().all()


@torch.no_grad()
def test_batched_heads_equal_one_after_the_other():
    net = ensemble(3)
    for p in net.parameters():
        p.normal_(generator=draws())
    latent, action = inputs(7)
    for head, found in enumerate(net(latent, action)):
        x = torch.cat([latent, action], -1)
        for layer in net.layers:
            scale, shift = layer.scale[head, 0], layer.shift[head, 0]
            x = F.silu(F.layer_norm(x @ layer.weight[head], scale.shape, scale, shift, 1e-3))
        torch.testing.assert_close(found, x @ net.weight[head] + net.bias[head, 0])


def test_heads_are_drawn_apart():
    for p in (ensemble(3).weight, ensemble(3).layers[0].weight):
        assert not torch.equal(p[0], p[1]) and not torch.equal(p[1], p[2])


def test_ensemble_loss_by_hand():
    """Two heads, two sequences of three steps; in the second an episode begins at step 1."""
    net = ensemble(2)
    say(net, [0.5, 0.0], [1.0, 1.0])
    stoch = torch.tensor([[[0.0, 0.0]] * 2, [[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2])  # (T, B, SK)
    is_first = torch.tensor([[True, False], [False, True], [False, False]])
    state = State(torch.zeros(3, 2, DETER), stoch)
    one, two = 0.25 + 1.0, 0.25 + 1 + 1.0  # of [1, 0] and of [0, 1]
    found = net.loss(state, torch.zeros(3, 2, ACTIONS), is_first)
    torch.testing.assert_close(found, torch.tensor([[one, 0.0], [two, two]]))


def test_predictions_are_made_of_the_state_before_and_the_action_between():
    net, steps = ensemble(2), 4
    g = draws()
    parts = {"deter": torch.randn(steps, 1, DETER, generator=g), "stoch": torch.randn(steps, 1, STOCH, generator=g)}
    action, never = torch.randn(steps, 1, ACTIONS, generator=g), torch.zeros(steps, 1, dtype=torch.bool)
    before = net.loss(State(**parts), action, never)
    for name, at, moved in (("deter", 1, {1}), ("stoch", 1, {0, 1}), ("action", 1, {0}), ("deter", 3, set())):
        values = {k: v.clone() for k, v in {**parts, "action": action}.items()}
        values[name][at] += 1
        after = net.loss(State(values["deter"], values["stoch"]), values["action"], never)
        changed = {t for t in range(steps - 1) if not torch.equal(before[t], after[t])}
        assert changed == moved, (name, at)


def test_disagreement_moves_actions_but_no_head():
    net = ensemble(3)
    latent, action = inputs(2, 3)
    found = net.disagreement(latent.requires_grad_(), action.requires_grad_())
    gradients = torch.autograd.grad(found.sum(), [latent, action, *net.parameters()], allow_unused=True)
    assert all(x.abs().sum() > 0 for x in gradients[:2]) and gradients[2:] == (None,) * (len(gradients) - 2)


STATES = 10


def transitions(places: Tensor, g: torch.Generator) -> tuple[State, Tensor]:
    """A ring of ten states; pairs of steps (2, N, ...) from `places`, one state to either side."""
    action = torch.randint(0, 2, places.shape, generator=g) * 2.0 - 1
    both = torch.stack([places, (places + action.long()) % STATES])
    stoch = F.one_hot(both, STATES).float()
    return State(stoch.new_zeros(2, len(places), 1), stoch), action.expand(2, -1).unsqueeze(-1)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_was_not_seen_is_disagreed_on_until_it_is(seed):
    """Trained in one half of a ring, then in the other as well."""
    net = ensemble(5, deter=1, stoch=STATES)
    adam = Adam([(dict(net.named_parameters()), 1e-2)], 100.0)
    g = torch.Generator().manual_seed(seed)

    def train(low: int, high: int) -> None:
        for _ in range(150):
            state, action = transitions(torch.randint(low, high, (32,), generator=g), g)
            loss = net.loss(state, action, torch.zeros(2, 32, dtype=torch.bool)).mean()
            adam.step(torch.autograd.grad(loss, list(adam.parameters.values())))

    def bonus(low: int, high: int) -> float:
        state, action = transitions(torch.arange(low, high).repeat(20), g)
        with torch.no_grad():
            return float(net.disagreement(state.features()[:1], action[1:]).mean())

    train(0, 5)
    seen, unseen = bonus(0, 5), bonus(5, STATES)
    assert unseen > 3 * seen, (seen, unseen)
    train(0, STATES)
    assert bonus(5, STATES) < unseen / 3


# The agent


def update_of(agent, batch, steps: int = 2) -> dict[str, Tensor]:
    for _ in range(steps):
        metrics = agent.update(batch)
    return metrics


@pytest.mark.parametrize("critics", ["separate", "summed"])
@pytest.mark.parametrize("revision", ["published", "study"])
def test_disagreement_changes_nothing_for_the_task(dream, study, revision, critics):
    """World model, reward head, task actor and critic learn what they learn without it, to the last bit."""
    maker = dream if revision == "published" else study
    batch = maker.batch()
    without, with_it = (maker.agent(exploration=beta, exploration_critics=critics) for beta in (0.0, 5.0))
    plain, found = update_of(without, batch), update_of(with_it, batch)
    assert without.explorer is None and not any("explore" in k for k in without.state_dict())
    state = with_it.state_dict()
    for name, value in without.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name in plain.keys() - {"grad_norm"}:
        assert torch.equal(plain[name], found[name]), name
    extra = {k.split(".")[0] for k in state.keys() - without.state_dict().keys() if not k.startswith("optimizer.")}
    assert extra == {"explorer"}


def test_batch_is_left_alone(study):
    batch, agent = study.batch(), study.agent()
    kept = {k: v.clone() for k, v in vars(batch).items() if isinstance(v, Tensor)}
    agent.update(batch)
    assert all(torch.equal(getattr(batch, k), v) for k, v in kept.items())


def test_the_collecting_actor_explores_and_the_tasks_actor_is_evaluated(study):
    agent, obs = study.agent(evaluate="mode"), study.obs(16, first=True)

    def moved_by(actor) -> tuple[bool, bool]:
        before = [agent.act(agent.initial(16, 7), obs, explore)[0] for explore in (True, False)]
        with torch.no_grad():
            actor.net.out.bias.add_(0.3)
        after = [agent.act(agent.initial(16, 7), obs, explore)[0] for explore in (True, False)]
        return tuple(not torch.equal(a, b) for a, b in zip(before, after, strict=True))

    assert moved_by(agent.explorer.actor) == (True, False)
    assert moved_by(agent.actor) == (False, True)


@pytest.mark.parametrize(("critics", "names"), [("separate", ["task", "disagreement"]), ("summed", ["sum"])])
def test_rewards_of_the_collecting_actor(study, critics, names):
    agent = study.agent(exploration=3.0, exploration_critics=critics)
    explorer, model, width = agent.explorer, agent.model, agent.model.rssm.features
    assert list(explorer.critic_of) == names and explorer.percentiles.shape == (len(names), 2)
    latent = torch.randn(4, 5, width, generator=draws())
    imagined = Imagined(latent, torch.zeros(3, 5, 4), torch.rand(4, 5, 2, generator=draws()), torch.zeros(5))
    with torch.no_grad():
        task = model.predicted_reward(latent)
        bonus = explorer.ensemble.disagreement(latent, imagined.action)
        wanted = {"task": task, "disagreement": bonus, "sum": task + 3 * bonus}
        seeks = explorer.seeks(model)
        assert [f"_{name}" for name in names] == list(seeks.sought)
        for name in names:
            torch.testing.assert_close(seeks.sought[f"_{name}"].reward(imagined), wanted[name])
    shares = {"task": 0.25, "disagreement": 0.75, "sum": 1.0}
    assert [seeks.sought[f"_{name}"].share for name in names] == [shares[name] for name in names]


def test_both_rewards_have_a_normaliser_each(study):
    agent = study.agent()
    noise = UpdateNoise.draw(agent.config, 4, agent.actions, agent.seed, 0, agent.device)
    _, metrics = agent.losses(study.batch(), noise)
    names = [f"explore_{k}_{name}" for name in ("task", "disagreement") for k in ("return_5", "return_95")]
    found = torch.stack([metrics[name] for name in names]).view(2, 2)
    assert torch.equal(found, agent.explorer.percentiles) and not torch.equal(found[0], found[1])
    assert float(metrics["explore_imagined_reward_disagreement"]) > 0


def test_the_collecting_actor_alone_learns_to_seek_disagreement(study):
    """With heads that disagree the more, the larger the first action is."""
    agent, obs = study.agent(exploration=100.0, behaviour_lr=3e-3), study.obs(64, first=True)
    agent.explorer.ensemble.disagreement = lambda latent, action: 3 * action[..., 0]

    def mean(explore: bool) -> float:
        return float(agent.act(agent.initial(64, 7), obs, explore)[0][:, 0].mean())

    before = [mean(explore) for explore in (True, False)]
    for i in range(30):
        agent.update(study.batch(seed=i))
    sought, evaluated = (mean(explore) - old for explore, old in zip((True, False), before, strict=True))
    assert sought > 0.3 and sought > evaluated + 0.3, (sought, evaluated)


@pytest.mark.parametrize(
    "settings", [{"disagreement_heads": 1}, {"exploration": -1.0}, {"exploration_critics": "both"}]
)
def test_wrong_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        DreamerV3Config(**settings)
