"""An update of DreamerV3: sequences that cross episodes, gradients, noise, hard input."""

import math
from dataclasses import replace

import pytest
import torch

from world_models.dreamerv3.noise import UpdateNoise
from world_models.dreamerv3.rssm import State


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def act(agent, obs, n, *, seed=7, explore=True):
    return agent.act(agent.initial(n, seed), obs, explore)[0]


def noise_of(agent, count: int = 0):
    return UpdateNoise.draw(agent.config, agent.config.batch_size, agent.actions, agent.seed, count, agent.device)


# Sequences that cross episodes


def observed(agent, batch, uniform):
    """Embeddings, states and posterior logits of a batch, time first, with gradients."""
    obs = batch.obs.map(lambda x: x.transpose(0, 1))
    embed = agent.model.embedding(agent.model.embedding.parts(obs)).detach().requires_grad_()
    start = agent.model.rssm.initial(embed.shape[1], embed)
    state, logits = agent.model.rssm.observe(start, embed, batch.action.transpose(0, 1), obs.is_first, uniform)
    return embed, state, logits


def test_a_reset_inside_a_sequence_equals_two_sequences(dream_any):
    agent, cut = dream_any.agent(), 3
    batch = dream_any.batch(t=6)
    first = torch.zeros(4, 6, dtype=torch.bool)
    first[:, cut] = True
    batch = replace(batch, obs=replace(batch.obs, is_first=first))
    uniform = torch.rand(6, 4, agent.config.latents, generator=torch.Generator().manual_seed(1))
    embed, state, logits = observed(agent, batch, uniform)
    for part in (slice(0, cut), slice(cut, None)):
        cropped = {k: v[:, part] for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
        short = replace(batch, obs=batch.obs.map(lambda x, part=part: x[:, part]), **cropped)
        _, state_part, logits_part = observed(agent, short, uniform[part])
        torch.testing.assert_close(state.deter[part], state_part.deter)
        assert torch.equal(state.stoch[part], state_part.stoch)
        torch.testing.assert_close(logits[part], logits_part)
    weight = torch.randn(state.deter[-1].shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((state.deter[-1] * weight).sum(), embed)
    assert (gradient[:cut] == 0).all(), "gradients cross the reset"
    assert gradient[cut].abs().sum() > 0


def test_what_came_before_a_reset_does_not_reach_losses_behind_it(dream):
    """Nor does the action that is written at the reset."""
    agent, batch = dream.agent(), dream.batch()
    first = torch.zeros_like(batch.is_last)
    first[:, 2] = True
    one = replace(batch, obs=replace(batch.obs, is_first=first))
    feature, action = one.obs.feature.clone(), one.action.clone()
    feature[:, :2] += 1
    action[:, :3] = -action[:, :3]
    other = replace(one, action=action, obs=replace(one.obs, feature=feature))
    found = []
    for x in (one, other):
        noise = noise_of(agent)
        found.append(agent.losses(x, noise)[0])
    for name in ("dynamics", "representation", "feature", "reward", "continue"):
        a, b = (x[name] for x in found)
        assert torch.equal(a[2:], b[2:]), name
        assert not torch.equal(a[:2], b[:2]), name
    a, b = (x["value"].view(3, 5, 4) for x in found)  # (H, T, B): imagination starts from each state
    assert torch.equal(a[:, 2:], b[:, 2:]) and not torch.equal(a[:, :2], b[:, :2])


# Learning


MODULES = {
    "embedding": "model.embedding",
    "sequence": "model.rssm.sequence",
    "posterior": "model.rssm.posterior",
    "prior": "model.rssm.prior",
    "decoder": "model.decoders",
    "projection": "model.projection",
    "reward": "model.reward",
    "continue": "model.cont",
    "start": "model.rssm.start",
    "actor": "actor",
    "critic": "critic.head",
    "explorer": "explorer.actor",
    "task critic": "explorer.critics.task.head",
    "disagreement critic": "explorer.critics.disagreement.head",
    "sum critic": "explorer.critics.sum.head",
    "ensemble": "explorer.ensemble",
}
CLOSED_LOOP = {"embedding", "sequence", "posterior"}  # what makes the states that heads read
REACHES = {
    "dynamics": CLOSED_LOOP | {"prior"},
    "representation": CLOSED_LOOP,
    "reward": CLOSED_LOOP | {"reward"},
    "continue": CLOSED_LOOP | {"continue"},
    "policy": {"actor"},
    "value": {"critic"},
    "replay_value": CLOSED_LOOP | {"critic"},
    "feature": CLOSED_LOOP | {"decoder"},
    "pixels": CLOSED_LOOP | {"decoder"},
    "proprio": CLOSED_LOOP | {"decoder"},
    "barlow": CLOSED_LOOP | {"projection"},
    "ensemble": {"ensemble"},
    "explore_policy": {"explorer"},
    "explore_value_task": {"task critic"},
    "explore_value_disagreement": {"disagreement critic"},
    "explore_value_sum": {"sum critic"},
}


@pytest.mark.parametrize("target", ["auto", "none"])
def test_which_loss_reaches_which_module(dream_any, target):
    agent = dream_any.agent(target=target, free_bits=0.0)
    names = [name for name, p in agent.nets.named_parameters() if p.requires_grad]
    parameters = list(agent.optimizer.parameters.values())
    assert names == list(agent.optimizer.parameters)
    assert all(name.startswith(tuple(MODULES.values())) for name in names), "a module is missing in the table"
    losses, _ = agent.losses(dream_any.batch(), noise_of(agent))
    for loss, value in losses.items():
        gradients = torch.autograd.grad(value.mean(), parameters, retain_graph=True, allow_unused=True)
        alive = [n for n, g in zip(names, gradients, strict=True) if g is not None and g.abs().sum() > 0]
        found = {module for module, prefix in MODULES.items() if any(n.startswith(prefix) for n in alive)}
        begins = {"start"} if agent.model.rssm.start is not None and REACHES[loss] >= CLOSED_LOOP else set()
        assert found == REACHES[loss] | begins, loss


def test_divergences_below_the_free_bits_are_left_alone(dream):
    agent = dream.agent(free_bits=1e3)
    losses, _ = agent.losses(dream.batch(), noise_of(agent))
    for name in ("dynamics", "representation"):
        assert torch.equal(losses[name], torch.full((5, 4), 1e3))
        gradients = torch.autograd.grad(losses[name].sum(), [agent.model.rssm.posterior_out.weight], retain_graph=True)
        assert (gradients[0] == 0).all()


def test_divergence_by_hand(dream):
    """One latent of two classes, unimix 0.5: posterior (5/8, 3/8), prior (1/2, 1/2)."""
    agent = dream.agent(latents=1, classes=2, unimix=0.5)
    left, right = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    wanted = 5 / 8 * torch.tensor([5 / 4]).log() + 3 / 8 * torch.tensor([3 / 4]).log()
    torch.testing.assert_close(agent.model.kl(left, right), wanted)
    assert float(agent.model.kl(left, left)) == 0


def test_losses_and_their_weights_have_the_same_names(dream_any):
    for target in ("auto", "none"):
        agent = dream_any.agent(target=target)
        losses, _ = agent.losses(dream_any.batch(), noise_of(agent))
        assert losses.keys() == agent.loss_weights.keys()
        assert all(x.dim() == 2 and x.isfinite().all() for x in losses.values())
    for name in agent.loss_weights:
        forgetful = dream_any.agent(target="none")
        del forgetful.loss_weights[name]
        with pytest.raises(AssertionError, match=name):
            forgetful.update(dream_any.batch())


def test_weights_of_losses_are_those_of_the_configuration(dream):
    settings = {"dynamics": 0.7, "representation": 0.2, "reconstruction": 3.0, "replay_value": 0.4}
    found = dream.agent(**settings).loss_weights
    wanted = {"dynamics": 0.7, "representation": 0.2, "feature": 3.0, "replay_value": 0.4}
    assert found == wanted | dict.fromkeys(("reward", "continue", "policy", "value"), 1.0)
    assert dream.agent(target="none", barlow=0.3).loss_weights["barlow"] == 0.3


def test_update_returns_finite_scalars_and_moves_every_trained_weight(dream_any):
    agent, numbers = dream_any.agent(free_bits=0.0), math.prod(dream_any.shapes.feature or ())
    before = {k: v.clone() for k, v in agent.nets.named_parameters()}
    metrics = agent.update(dream_any.batch())
    assert all(v.shape == () and torch.isfinite(v) for v in metrics.values()), metrics
    assert {f"{name}_loss" for name in agent.loss_weights} <= metrics.keys()
    if "feature" in agent.model.decoders:
        torch.testing.assert_close(metrics["feature_loss_per_dim"] * numbers, metrics["feature_loss"])
    else:
        assert "feature_loss_per_dim" not in metrics
    still = [k for k, v in agent.nets.named_parameters() if torch.equal(v, before[k])]
    assert not still, still


def test_update_changes_what_act_does(dream_any):
    agent, obs = dream_any.agent(), dream_any.obs(8, first=True)
    before = act(agent, obs, 8)
    for _ in range(5 if not dream_any.actions.discrete else 40):
        agent.update(dream_any.batch())
    assert not torch.equal(before, act(agent, obs, 8))


def test_the_slow_critic_follows_after_the_update(dream):
    agent = dream.agent(slow_rate=0.25)
    slow = agent.critic.slow.out.weight.clone()
    agent.update(dream.batch())
    wanted = 0.75 * slow + 0.25 * agent.critic.head.out.weight.detach()
    torch.testing.assert_close(agent.critic.slow.out.weight, wanted)


def test_noise_of_updates_is_a_function_of_seed_and_count(dream_any):
    agent = dream_any.agent()
    one, again, next_one, other = (
        {f"{part}.{k}": v for part, x in (("", noise), ("explore", noise.explore)) if x for k, v in vars(x).items()}
        for noise in (*(noise_of(agent, count) for count in (3, 3, 4)), noise_of(dream_any.agent(seed=1), 3))
    )
    drawn = [k for k, v in one.items() if isinstance(v, torch.Tensor)]
    assert same({k: one[k] for k in drawn}, {k: again[k] for k in drawn})
    assert not any(torch.equal(one[k], x[k]) for k in drawn for x in (next_one, other))
    first, second = dream_any.agent(), dream_any.agent()
    for a in (first, second):
        a.update(dream_any.batch())
    assert same(first.state_dict(), second.state_dict())


def test_the_global_generator_is_neither_read_nor_moved(dream_any):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    agent = dream_any.agent()
    agent.update(dream_any.batch())
    agent.report(dream_any.batch(), context=2)
    one = act(agent, dream_any.obs(2, first=True), 2)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    again = dream_any.agent()
    again.update(dream_any.batch())
    assert torch.equal(one, act(again, dream_any.obs(2, first=True), 2))


def test_acting_and_reporting_do_not_disturb_training(dream_any):
    quiet, busy = dream_any.agent(), dream_any.agent()
    for i in range(2):
        quiet.update(dream_any.batch(seed=i))
        act(busy, dream_any.obs(2, seed=i, first=True), 2, seed=i, explore=False)
        busy.report(dream_any.batch(seed=5), context=2)
        busy.update(dream_any.batch(seed=i))
    assert same(quiet.state_dict(), busy.state_dict())


def test_float16_features_enter_as_their_float32_values(dream):
    batch = dream.batch()
    wide = replace(batch, obs=replace(batch.obs, feature=batch.obs.feature.float()))
    assert same(dream.agent().update(batch), dream.agent().update(wide))


# Hard input


@pytest.mark.parametrize("size", [1e6, -1e6])
def test_huge_rewards_stay_finite(dream_any, size):
    agent, batch = dream_any.agent(), dream_any.batch()
    batch = replace(batch, reward=torch.full_like(batch.reward, size))
    for _ in range(5):
        metrics = agent.update(batch)
        assert all(torch.isfinite(v) for v in metrics.values()), metrics
    assert all(v.isfinite().all() for v in agent.state_dict().values())


@pytest.mark.parametrize(
    "settings", [{}, {"target": "none"}, {"feature_norm": "layernorm"}, {"feature_norm": "running"}]
)
def test_constant_observations_stay_finite(dream_any, settings):
    agent, batch = dream_any.agent(**settings), dream_any.batch()
    flags = batch.obs.is_first
    obs = replace(batch.obs.map(torch.zeros_like), is_first=flags)
    nothing = replace(batch, obs=obs, action=torch.zeros_like(batch.action), reward=torch.zeros_like(batch.reward))
    for _ in range(3):
        metrics = agent.update(nothing)
        assert all(torch.isfinite(v) for v in metrics.values()), metrics
    assert all(v.isfinite().all() for v in agent.state_dict().values())


def test_a_running_norm_follows_the_features_and_takes_their_constant_part_away(dream):
    batch = dream.batch()
    moved = replace(batch, obs=replace(batch.obs, feature=batch.obs.feature.float() + 5))
    agents = [dream.agent(feature_norm="running") for _ in range(2)]
    metrics = [agent.update(b) for agent, b in zip(agents, (batch, moved), strict=True)]
    norm = agents[1].model.embedding.feature_norm
    torch.testing.assert_close(norm.mean, moved.obs.feature.flatten(0, -2).mean(0))
    assert norm.batches == 1
    for name in metrics[0]:
        torch.testing.assert_close(metrics[0][name], metrics[1][name], atol=1e-4, rtol=1e-3)
    agents[1].report(moved, context=2)
    agents[1].act(agents[1].initial(1, 0), moved.obs[:1, 0], explore=False)
    assert norm.batches == 1  # looking teaches nothing


# Replayed states as context


def test_kept_states_come_back(dream_any):
    """All but the rounding of h to float16; a state of zero, before an episode, comes back as zero."""
    rssm = dream_any.agent().model.rssm
    deter, latents, classes = rssm.sizes
    g = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, classes, (5, 3, latents), generator=g)
    stoch = torch.nn.functional.one_hot(drawn, classes).flatten(-2).float()
    state = State(torch.randn(5, 3, deter, generator=g), stoch)
    packed = rssm.pack(state)
    back = rssm.unpack(packed)
    assert packed.shape == (5, 3, deter + latents) and packed.dtype == torch.float16
    assert torch.equal(back.stoch, state.stoch) and torch.equal(back.deter, state.deter.half().float())
    nothing = rssm.unpack(torch.zeros_like(packed))
    assert not nothing.deter.any() and not nothing.stoch.any()


def test_a_sequence_goes_on_from_the_state_that_was_kept_before_it(dream):
    """States that an update writes are those of the closed loop from the first kept one; the others do not count."""
    agent, batch = dream.agent(), dream.batch()
    rssm, noise = agent.model.rssm, noise_of(agent)
    batch = replace(batch, obs=replace(batch.obs, is_first=torch.zeros_like(batch.obs.is_first)))
    deter, latents, classes = rssm.sizes
    g = torch.Generator().manual_seed(3)
    kept = torch.cat([torch.rand(4, deter, generator=g), torch.randint(1, classes + 1, (4, latents), generator=g)], 1)
    carried = torch.full_like(batch.carried, torch.nan)
    carried[:, 0] = kept
    learnt, _ = agent.losses(replace(batch, carried=carried), noise)
    obs = batch.obs.map(lambda x: x.transpose(0, 1))
    embed = agent.model.embedding(agent.model.embedding.parts(obs))
    start = rssm.unpack(kept.half())
    state, _ = rssm.observe(start, embed, batch.action.transpose(0, 1), obs.is_first, noise.posterior)
    torch.testing.assert_close(carried[:, 1:], rssm.pack(state).transpose(0, 1))
    from_zero, _ = dream.agent().losses(batch, noise)
    assert not torch.allclose(learnt["dynamics"][0], from_zero["dynamics"][0]), "the first step sees the kept state"


def test_a_batch_without_kept_states_is_refused(dream):
    agent, batch = dream.agent(), replace(dream.batch(), carried=None)
    with pytest.raises(ValueError, match=r"context=replayed wants the states kept beside the sequences"):
        agent.update(batch)
    dream.agent(context="zero").update(batch)
