"""DreamerV3 keeps the agent contract, for every kind of observation and of action."""

from dataclasses import replace

import pytest
import torch

from world_models.dreamerv3.actor import Actor
from world_models.dreamerv3.config import SIZES, DreamerV3Config
from world_models.dreamerv3.critic import Critic
from world_models.dreamerv3.model import WorldModel
from world_models.dreamerv3.noise import ActNoise
from world_models.dreamerv3.rssm import State
from world_models.seeding import generator
from world_models.types import ActionSpec, ObsShapes


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def act(agent, obs, n, *, seed=7, explore=True):
    return agent.act(agent.initial(n, seed), obs, explore)[0]


# Acting


def test_actions_lie_in_the_box_and_depend_on_the_observation(dream_any):
    agent = dream_any.agent()
    for explore in (True, False):
        one, other = (
            agent.act(agent.initial(64, 7), dream_any.obs(64, seed=s, first=True), explore)[0] for s in (0, 1)
        )
        assert one.shape == (64, dream_any.actions.dim) and float(one.abs().max()) <= 1
        assert not torch.equal(one, other)
        if dream_any.actions.discrete:
            assert torch.equal(one.sort(-1).values, torch.tensor([0.0, 0.0, 1.0]).expand(64, 3))


def test_acting_equals_observing_step_by_step(dream_any):
    """With episodes that begin inside: the states of `act`, one by one, are those of the closed loop over all steps."""
    agent, n, steps = dream_any.agent(), 2, 5
    first = torch.tensor([[True, True], [False, False], [False, True], [False, False], [True, False]])
    frames = [replace(dream_any.obs(n, seed=t), is_first=first[t]) for t in range(steps)]
    carry, carries, led = agent.initial(n, 7), [], []
    for obs in frames:
        led.append(carry.action)
        _, carry = agent.act(carry, obs, True)
        carries.append(carry)
    model = agent.model
    with torch.no_grad():
        embed = torch.stack([model.embedding(model.embedding.parts(obs)) for obs in frames])
        draws = [ActNoise.draw(agent.config, n, agent.actions, 7, t, "cpu").posterior for t in range(steps)]
        start = model.rssm.initial(n, embed)
        states, _ = model.rssm.observe(start, embed, torch.stack(led), first, torch.stack(draws))
    for t, one in enumerate(carries):
        torch.testing.assert_close(one.deter, states.deter[t], atol=1e-5, rtol=1e-5)
        assert torch.equal(one.stoch, states.stoch[t])


def test_only_rows_that_begin_forget_their_state(dream):
    agent = dream.agent()
    _, carry = agent.act(agent.initial(2, 7), dream.obs(2, first=True), True)
    obs = dream.obs(2, seed=9)
    flagged = replace(obs, is_first=torch.tensor([True, False]))
    fresh = replace(agent.initial(2, 7), step=1)
    kept, forgot, mixed = (agent.act(*x, True)[1] for x in ((carry, obs), (fresh, obs), (carry, flagged)))
    assert torch.equal(mixed.deter[0], forgot.deter[0]) and torch.equal(mixed.deter[1], kept.deter[1])
    assert not torch.equal(kept.deter[0], forgot.deter[0])


def test_one_environment_alone_equals_its_row_among_others(dream_any):
    agent = dream_any.agent()
    carry, carry_1 = agent.initial(3, 7), agent.initial(1, 7)
    for step in range(3):
        obs = dream_any.obs(3, seed=step, first=step == 0)
        many, carry = agent.act(carry, obs, True)
        alone, carry_1 = agent.act(carry_1, obs[:1], True)
        torch.testing.assert_close(many[:1], alone, atol=1e-4, rtol=0)


def test_noise_of_acting_is_a_function_of_the_carry(dream):
    agent, obs = dream.agent(), dream.obs(2, first=True)
    carry = agent.initial(2, 7)
    one, later = agent.act(carry, obs, True)
    assert torch.equal(one, agent.act(carry, obs, True)[0])
    assert not torch.equal(one, agent.act(replace(carry, step=later.step), obs, True)[0])
    assert not torch.equal(one, act(agent, obs, 2, seed=8))
    rows = act(agent, obs.map(lambda x: x[:1].expand_as(x).contiguous()), 2)
    assert not torch.equal(rows[0], rows[1]), "environments have noise of their own"


# Study


def test_report_is_aligned_with_the_batch(dream_any):
    agent, context = dream_any.agent(), 3
    batch = dream_any.batch(b=2, t=7)
    batch = replace(batch, obs=replace(batch.obs, is_first=torch.zeros(2, 7, dtype=torch.bool)))
    found = agent.report(batch, context=context)
    model, width, latents = agent.model, agent.config.widths.deter, agent.config.latents
    for name in ("posterior", "prior", "open_loop"):
        assert found[name].shape == (2, 7, latents * agent.config.widths.classes)
    assert torch.equal(found["open_loop"][:, :context], found["posterior"][:, :context])
    assert torch.equal(found["latent_open_loop"][:, :context], found["latent"][:, :context])
    assert not torch.allclose(found["latent_open_loop"][:, context:], found["latent"][:, context:])

    uniform = torch.rand(2, 7, 2, latents, generator=generator(agent.device, agent.seed, "report"))
    with torch.no_grad():
        deter, stoch = found["latent"][:, context - 1].tensor_split([width], -1)
        step = model.rssm.sequence.laid_out()
        state = State(deter, stoch)
        for t in range(context, 7):
            state = model.rssm.step(step, state, batch.action[:, t], uniform[1, t])
            torch.testing.assert_close(found["latent_open_loop"][:, t], state.features())
            torch.testing.assert_close(found["open_loop"][:, t], model.rssm.prior(state.deter))
            torch.testing.assert_close(found["reward_open_loop"][:, t], model.predicted_reward(state.features()))
            torch.testing.assert_close(
                found["value_open_loop"][:, t], agent.critic.value(agent.critic.head(state.features()))
            )
        torch.testing.assert_close(found["prior"], model.rssm.prior(found["latent"][..., :width]))
        torch.testing.assert_close(found["continue_pred"], model.predicted_continue(found["latent"]))
        if "feature" in model.decoders:
            wanted = model.embedding.squash(model.embedding.parts(batch.obs)["feature"])
            numbers = wanted.shape[-1]
            assert torch.equal(found["feature_target"], wanted.unflatten(-1, (-1, numbers)).flatten(2, -2).mean(-2))
            for name, latent in (("feature_pred", "latent"), ("feature_open_loop", "latent_open_loop")):
                decoded = model.decoders["feature"](found[latent].flatten(0, 1)).view(2, 7, -1, numbers).mean(-2)
                torch.testing.assert_close(found[name], decoded)
    for name in ("reward_pred", "reward_open_loop"):
        assert found[name][:, 0].isnan().all() and found[name][:, 1:].isfinite().all()
    again = agent.report(batch, context=context)
    assert all(torch.equal(again[k].nan_to_num(), v.nan_to_num()) for k, v in found.items())
    whole = agent.report(batch, context=7)
    assert torch.equal(whole["open_loop"], whole["posterior"])
    with pytest.raises(ValueError, match="context=8"):
        agent.report(batch, context=8)


def test_pictures_are_what_the_decoder_draws_of_the_open_loop(dream_any, monkeypatch):
    """Some at a time, the last of them fewer."""
    monkeypatch.setattr("world_models.dreamerv3.agent.REPORT_STEPS", 4)
    agent = dream_any.agent()
    report = agent.report(dream_any.batch(b=2, t=5), context=2)
    pictures = agent.pictures(report)
    if "pixels" not in agent.model.decoders:
        assert pictures is None
        return
    height, width, _ = dream_any.shapes.pixels
    assert pictures.shape == (2, 5, height, width, 3) and pictures.dtype == torch.uint8
    deter, stoch = report["latent_open_loop"][1, 4:].tensor_split([agent.config.widths.deter], -1)
    with torch.no_grad():
        drawn = agent.model.decode(State(deter, stoch))["pixels"][0]
    assert (pictures[1, 4] - 255 * drawn.clamp(0, 1)).abs().max() < 0.51
    assert pictures.float().std() > 1
    agent.model.decoders["pixels"].register_forward_hook(lambda *call: 5 * call[-1] - 2)  # far below 0 and above 1
    assert ((agent.pictures(report)[1, 4] - (5 * drawn - 2).clamp(0, 1) * 255).abs() < 0.51).all()
    assert dream_any.agent(target="none").pictures(report) is None


# Compiled


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in inductor
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo hides it from users
@pytest.mark.parametrize("kind", ["dreamerv3", "study"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_agrees_with_eager(kind, precision, dream, study):
    """Where products are bfloat16 a compiler sums in another order before it rounds."""
    maker = {"dreamerv3": dream, "study": study}[kind]
    tolerance = 1e-4 if precision == "float32" else 0.03
    eager, other = (maker.agent(compile=compile, precision=precision) for compile in (False, True))
    for i in range(2):
        one, two = (a.update(maker.batch(seed=i)) for a in (eager, other))
        for k in one:
            torch.testing.assert_close(one[k], two[k], atol=tolerance, rtol=tolerance, msg=lambda m, k=k: f"{k}: {m}")


# State


def test_saved_loaded_and_continued_equals_never_stopped(dream_any):
    straight = dream_any.agent(warmup=3)
    for i in range(2):
        straight.update(dream_any.batch(seed=i))
    resumed = dream_any.agent(seed=0, warmup=3)
    resumed.load_state_dict(straight.state_dict())
    assert same(straight.state_dict(), resumed.state_dict())
    for i in range(2, 5):
        assert same(*(a.update(dream_any.batch(seed=i)) for a in (straight, resumed)))
    assert same(straight.state_dict(), resumed.state_dict())
    obs = dream_any.obs(2, first=True)
    assert torch.equal(act(straight, obs, 2), act(resumed, obs, 2))


def test_state_is_flat_and_detached_from_training(dream):
    agent = dream.agent()
    state = agent.state_dict()
    assert all(isinstance(v, torch.Tensor) and not v.requires_grad for v in state.values())
    kept = {k: v.clone() for k, v in state.items()}
    agent.update(dream.batch())
    after = agent.state_dict()
    assert same(state, kept) and not any(torch.equal(after[k], v) for k, v in state.items() if "exp_avg" in k)
    assert int(after["updates"]) == 1 and not torch.equal(after["percentiles"], state["percentiles"])


def test_loading_is_strict_and_changes_nothing_on_failure(dream):
    agent, other = dream.agent(), dream.agent(seed=1)
    before, state = agent.state_dict(), other.state_dict()
    for wrong, said in (
        ({k: v for k, v in state.items() if k != "percentiles"}, "percentiles"),
        (state | {"extra": torch.zeros(1)}, "extra"),
        (state | {"actor.net.out.bias": torch.zeros(3)}, "actor.net.out.bias"),
    ):
        with pytest.raises(ValueError, match=said):
            agent.load_state_dict(wrong)
    assert same(before, agent.state_dict())


# What it is made of


PUBLISHED = {
    "small": 18,
    "medium": 37,
    "large": 77,
    "xlarge": 200,
}  # millions (arXiv 2301.04104v1, model sizes S to XL)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_have_about_their_parameters(size, study):
    shapes, action = ObsShapes(pixels=(64, 64, 3)), ActionSpec(6)
    settings = study.settings | {"prior_layers": None} if size in PUBLISHED else {}
    with torch.device("meta"):  # shapes alone: the largest would need gigabytes
        config, g = DreamerV3Config(size=size, **settings), torch.Generator("cpu")
        model = WorldModel(shapes, action, config, g)
        actor = Actor(model.rssm.features, action, config, g)
        critic = Critic(model.rssm.features, config, g)
    count = sum(p.numel() for net in (model, actor, critic.head) for p in net.parameters())
    if size in PUBLISHED:
        assert count / 1e6 == pytest.approx(PUBLISHED[size], rel=0.03)
    else:
        assert count / 1e6 == pytest.approx(float(size.removesuffix("M")), rel=0.35)


def test_wrong_input_is_refused(dream):
    agent = dream.agent()
    with pytest.raises(ValueError, match="sequences of 6 steps; batch_length=5"):
        agent.update(dream.batch(t=6))
    with pytest.raises(ValueError, match="sequences of 4 steps; batch_length=5"):
        agent.update(dream.batch(t=4))
    with pytest.raises(ValueError, match=r"feature of shape \(5, 4, 1, 7\), expected \(5, 4, 1, 6\)"):
        agent.update(replace(dream, shapes=ObsShapes(feature=(7,))).batch())
    with pytest.raises(ValueError, match="feature of shape None"):
        agent.update(replace(dream, shapes=ObsShapes(proprio=5)).batch())
    with pytest.raises(ValueError, match="2 environments"):
        agent.act(agent.initial(2, 0), dream.obs(3), True)
    with pytest.raises(ValueError, match="feature of shape"):
        agent.act(agent.initial(2, 0), replace(dream, shapes=ObsShapes(feature=(7,))).obs(2), True)
    with pytest.raises(ValueError, match=r"64x40 .* multiples of 16"):
        replace(dream, shapes=ObsShapes(pixels=(64, 40, 3))).agent()
    with pytest.raises(ValueError, match=r"12 filters .* blocks=8"):
        replace(dream, shapes=ObsShapes(pixels=(32, 32, 3))).agent(depth=3)
    with pytest.raises(ValueError, match="8x64 are too small"):
        replace(dream, shapes=ObsShapes(pixels=(8, 64, 3))).agent(target="none")


def test_open_loops_from_several_starts_are_those_of_one(dream_any):
    """From s, as many steps as there are: the open loop of a report with that context."""
    agent, batch = dream_any.agent(), dream_any.batch(t=6)
    found = agent.report(batch, 2, starts=[2, 4], horizon=4)
    assert found["open_loop_from"].shape == (4, 2, 4, found["posterior"].shape[-1])
    assert found["reward_open_loop_from"].shape == (4, 2, 4)
    for p, start in enumerate((2, 4)):
        alone, left = agent.report(batch, start), 6 - start
        torch.testing.assert_close(found["open_loop_from"][:, p, :left], alone["open_loop"][:, start:])
        torch.testing.assert_close(found["reward_open_loop_from"][:, p, :left], alone["reward_open_loop"][:, start:])
    assert "open_loop_from" not in agent.report(batch, 2)
    with pytest.raises(ValueError, match=r"starts=\[0\] must lie in 1\.\.5"):
        agent.report(batch, 2, starts=[0], horizon=3)
