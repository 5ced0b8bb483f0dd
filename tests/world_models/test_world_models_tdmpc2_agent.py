"""TD-MPC2 keeps the agent contract, for every kind of observation."""

from dataclasses import replace

import pytest
import torch

from world_models.nets import MLP, Linear
from world_models.tdmpc2 import TDMPC2Config
from world_models.tdmpc2.agent import TDMPC2
from world_models.tdmpc2.config import SIZES
from world_models.tdmpc2.model import WorldModel
from world_models.types import ActionSpec, ObsShapes


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def act(agent, obs, n, *, seed=7, explore=True):
    return agent.act(agent.initial(n, seed), obs, explore)[0]


def test_actions_lie_in_the_box_and_depend_on_the_observation(make_any):
    agent = make_any.agent()
    one, other = (act(agent, make_any.obs(3, seed=s, first=True), 3) for s in (0, 1))
    assert one.shape == (3, 2) and float(one.abs().max()) <= 1
    assert not torch.equal(one, other)


def test_update_returns_finite_scalars_and_changes_the_action(make_any):
    agent = make_any.agent()
    obs = make_any.obs(2, first=True)
    before = act(agent, obs, 2)
    metrics = agent.update(make_any.batch())
    assert all(v.shape == () and torch.isfinite(v) for v in metrics.values()), metrics
    for _ in range(3):
        agent.update(make_any.batch())
    assert not torch.equal(before, act(agent, obs, 2))


def test_update_moves_every_trained_weight(make_any):
    agent = make_any.agent(episodic=True)
    before = {k: v.clone() for k, v in agent.model.named_parameters()}
    agent.update(make_any.batch())
    still = [k for k, v in agent.model.named_parameters() if torch.equal(v, before[k])]
    assert not still, still


@pytest.mark.parametrize("episodic", [False, True])
def test_saved_loaded_and_continued_equals_never_stopped(make_any, episodic):
    straight = make_any.agent(episodic=episodic)
    for i in range(2):
        straight.update(make_any.batch(seed=i))
    saved = straight.state_dict()
    resumed = make_any.agent(seed=0, episodic=episodic)
    resumed.load_state_dict(saved)
    for i in range(2, 4):
        metrics = [a.update(make_any.batch(seed=i)) for a in (straight, resumed)]
        assert same(*metrics)
    assert same(straight.state_dict(), resumed.state_dict())
    obs = make_any.obs(2, first=True)
    assert torch.equal(act(straight, obs, 2), act(resumed, obs, 2))


def test_state_is_flat_and_detached_from_training(make):
    agent = make.agent()
    state = agent.state_dict()
    assert all(isinstance(v, torch.Tensor) and not v.requires_grad for v in state.values())
    kept = {k: v.clone() for k, v in state.items()}
    agent.update(make.batch())
    assert same(state, kept)
    assert int(agent.state_dict()["updates"]) == 1


def test_loading_is_strict_and_changes_nothing_on_failure(make):
    agent, other = make.agent(), make.agent(seed=1)
    before, state = agent.state_dict(), other.state_dict()
    short = {k: v for k, v in state.items() if k != "scale"}
    for wrong, said in (
        (short, "scale"),
        (state | {"extra": torch.zeros(1)}, "extra"),
        (state | {"model.policy.last.bias": torch.zeros(3)}, "policy.last.bias"),
    ):
        with pytest.raises(ValueError, match=said):
            agent.load_state_dict(wrong)
    assert same(before, agent.state_dict())


def test_acting_does_not_disturb_training(make_any):
    quiet, busy = make_any.agent(), make_any.agent()
    for i in range(2):
        quiet.update(make_any.batch(seed=i))
        act(busy, make_any.obs(2, seed=i, first=True), 2, seed=i, explore=False)
        busy.report(make_any.batch(seed=5), context=2)
        busy.update(make_any.batch(seed=i))
    assert same(quiet.state_dict(), busy.state_dict())


def test_the_global_generator_is_neither_read_nor_moved(make_any):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    agent = make_any.agent()
    agent.update(make_any.batch())
    one = act(agent, make_any.obs(2, first=True), 2)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    again = make_any.agent()
    again.update(make_any.batch())
    assert torch.equal(one, act(again, make_any.obs(2, first=True), 2))


def test_one_environment_alone_equals_its_row_among_others(make_any):
    agent = make_any.agent()
    carry, carry_1 = agent.initial(3, 7), agent.initial(1, 7)
    for step in range(3):
        obs = make_any.obs(3, seed=step, first=step == 0)
        many, carry = agent.act(carry, obs, True)
        alone, carry_1 = agent.act(carry_1, obs.map(lambda x: x[:1]), True)
        torch.testing.assert_close(many[:1], alone, atol=1e-4, rtol=0)
    assert not torch.equal(many[0], many[1])


def test_noise_is_a_function_of_the_carry(make):
    agent, obs = make.agent(), make.obs(2, first=True)
    carry = agent.initial(2, 7)
    one, later = agent.act(carry, obs, True)
    assert torch.equal(one, agent.act(carry, obs, True)[0])
    assert not torch.equal(one, agent.act(replace(later, mean=carry.mean), obs, True)[0])  # another step
    assert not torch.equal(one, act(agent, obs, 2, seed=8))
    same_look = obs.map(lambda x: x[:1].expand_as(x).contiguous())
    rows = act(agent, same_look, 2)
    assert not torch.equal(rows[0], rows[1])  # environments have noise of their own


def test_only_rows_that_begin_forget_their_plan(make):
    agent = make.agent()
    carry = agent.initial(2, 7)
    for step in range(2):
        _, carry = agent.act(carry, make.obs(2, seed=step), True)
    obs = make.obs(2, seed=9)
    flagged = replace(obs, is_first=torch.tensor([True, False]))
    fresh = replace(carry, mean=torch.zeros_like(carry.mean))
    kept, forgot, mixed = (agent.act(*x, True)[0] for x in ((carry, obs), (fresh, obs), (carry, flagged)))
    assert torch.equal(mixed[0], forgot[0]) and torch.equal(mixed[1], kept[1])
    assert not torch.equal(kept[0], forgot[0])


def test_exploring_adds_noise_to_the_same_plan(make):
    agent, obs, carry = make.agent(), make.obs(2, first=True), make.agent().initial(2, 7)
    (calm, after_calm), (noisy, after_noisy) = (agent.act(carry, obs, e) for e in (False, True))
    assert torch.equal(after_calm.mean, after_noisy.mean) and not torch.equal(calm, noisy)


def test_report_is_aligned_with_the_batch(make_any):
    agent, batch = make_any.agent(), make_any.batch(b=2, t=6)
    found = agent.report(batch, context=3)
    model, z = agent.model, found["posterior"]
    assert torch.equal(found["open_loop"][:, :3], z[:, :3])
    step = model.next(z[:, 2], batch.action[:, 3])
    torch.testing.assert_close(found["open_loop"][:, 3], step)
    torch.testing.assert_close(found["open_loop"][:, 4], model.next(step, batch.action[:, 4]))
    assert found["reward_pred"][:, 0].isnan().all() and found["reward_pred"][:, 1:].isfinite().all()
    wanted = model.scalar(model.reward(z[:, 1], batch.action[:, 2]))
    torch.testing.assert_close(found["reward_pred"][:, 2], wanted)
    torch.testing.assert_close(found["reward_open_loop"][:, 1:4], found["reward_pred"][:, 1:4])
    assert not torch.allclose(found["reward_open_loop"][:, 4:], found["reward_pred"][:, 4:])
    assert found["value"].shape == (2, 6)
    with pytest.raises(ValueError, match="context=7"):
        agent.report(batch, context=7)


def test_float16_features_enter_as_their_float32_values(make):
    batch = make.batch()
    wide = replace(batch, obs=replace(batch.obs, feature=batch.obs.feature.float()))
    assert same(make.agent().update(batch), make.agent().update(wide))


def test_augmentation_is_a_switch(make_any):
    if make_any.shapes.pixels is None:
        pytest.skip("no pixels, nothing to augment")
    losses = [make_any.agent(augment=a).update(make_any.batch())["consistency_loss"] for a in ("shift", "none")]
    assert losses[0] != losses[1]


def test_front_ends_of_features():
    def encoder(**settings):
        config = TDMPC2Config(size=1, **settings)
        return TDMPC2(ObsShapes(feature=(5,)), ActionSpec(1), config, episode_length=10, seed=0).model.encoder

    linear = encoder()
    assert isinstance(linear.feature, Linear) and linear.feature.weight.shape == (128, 15) and linear.merge is None
    mlp = encoder(front_end="mlp")
    assert isinstance(mlp.feature, MLP) and [tuple(x.weight.shape) for x in mlp.feature.layers] == [
        (256, 15),
        (128, 256),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_have_about_their_parameters(size):
    with torch.device("meta"):  # shapes alone: the largest would need gigabytes
        model = WorldModel(ObsShapes(proprio=24), 6, TDMPC2Config(size=size), torch.Generator("cpu"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    assert trained == pytest.approx(size, rel=0.25)


def test_wrong_input_is_refused(make):
    agent = make.agent()
    with pytest.raises(ValueError, match="discrete"):
        TDMPC2(ObsShapes(proprio=3), ActionSpec(4, discrete=True), TDMPC2Config(), episode_length=9, seed=0)
    with pytest.raises(ValueError, match="must be equal"):
        TDMPC2(ObsShapes(pixels=(64, 48, 3)), ActionSpec(1), TDMPC2Config(), episode_length=9, seed=0)
    with pytest.raises(ValueError, match="too small"):
        TDMPC2(ObsShapes(pixels=(16, 16, 3)), ActionSpec(1), TDMPC2Config(), episode_length=9, seed=0)
    with pytest.raises(ValueError, match="feature of shape"):
        agent.act(agent.initial(2, 0), make.obs(2, stack=2), True)
    with pytest.raises(ValueError, match="2 environments"):
        agent.act(agent.initial(2, 0), make.obs(3), True)
    with pytest.raises(ValueError, match="horizon=3 needs 4"):
        agent.update(make.batch(t=5))


def test_many_actions_plan_two_iterations_more():
    settings = {"size": 1, "iterations": 2}
    for actions, wanted in ((19, 2), (20, 4)):
        agent = TDMPC2(ObsShapes(proprio=3), ActionSpec(actions), TDMPC2Config(**settings), episode_length=9, seed=0)
        assert agent.iterations == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in inductor
def test_compiled_agrees_with_eager(make_any):
    eager, compiled = make_any.agent(episodic=True), make_any.agent(episodic=True, compile=True)
    obs = make_any.obs(2, first=True)
    torch.testing.assert_close(act(eager, obs, 2), act(compiled, obs, 2), atol=1e-4, rtol=0)
    for i in range(2):
        one, other = (a.update(make_any.batch(seed=i)) for a in (eager, compiled))
        for k in one:
            torch.testing.assert_close(one[k], other[k], atol=1e-4, rtol=1e-4, msg=lambda m, k=k: f"{k}: {m}")


@pytest.mark.parametrize("size", [1e6, -1e6])
def test_huge_rewards_stay_finite(make_any, size):
    agent, batch = make_any.agent(), make_any.batch()
    batch = replace(batch, reward=torch.full_like(batch.reward, size))
    for _ in range(5):
        metrics = agent.update(batch)
        assert all(torch.isfinite(v).all() for v in metrics.values()), metrics
    assert all(v.isfinite().all() for v in agent.state_dict().values())


@pytest.mark.parametrize("norm", ["none", "running", "layernorm"])
def test_constant_observations_stay_finite(make_any, norm):
    agent, batch = make_any.agent(feature_norm=norm), make_any.batch()
    nothing = replace(batch, obs=batch.obs.map(torch.zeros_like), reward=torch.zeros_like(batch.reward))
    for _ in range(3):
        metrics = agent.update(nothing)
        assert all(torch.isfinite(v).all() for v in metrics.values()), metrics
    assert all(v.isfinite().all() for v in agent.state_dict().values())


def test_open_loops_from_several_starts_are_those_of_one(make_any):
    """From s, as many steps as there are: the open loop of a report with that context."""
    agent, batch = make_any.agent(), make_any.batch(t=6)
    found = agent.report(batch, 2, starts=[2, 4], horizon=4)
    assert found["open_loop_from"].shape == (4, 2, 4, found["posterior"].shape[-1])
    for p, start in enumerate((2, 4)):
        alone, left = agent.report(batch, start), 6 - start
        torch.testing.assert_close(found["open_loop_from"][:, p, :left], alone["open_loop"][:, start:])
        torch.testing.assert_close(found["reward_open_loop_from"][:, p, :left], alone["reward_open_loop"][:, start:])
    with pytest.raises(ValueError, match=r"starts=\[6\] must lie in 1\.\.5"):
        agent.report(batch, 2, starts=[6], horizon=3)
