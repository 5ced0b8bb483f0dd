"""Feature normalisation: the statistics are those of the data, and a resumed agent has them."""

from dataclasses import replace

import pytest
import torch

from world_models.feature_norm import LIMIT, MOMENTUM, FeatureNorm


def batches(count: int, seed: int = 0) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, 5, generator=g) * torch.arange(1, 6) + 7 for _ in range(count)]


def test_running_statistics_are_those_of_all_data_while_batches_are_few():
    norm, data = FeatureNorm(5, "running"), batches(20)
    for batch in data:
        norm.observe(batch)
    rows = torch.cat(data).flatten(0, -2)
    torch.testing.assert_close(norm.mean, rows.mean(0))
    torch.testing.assert_close(norm.var, rows.var(0, correction=0).mean())
    out = norm(rows)
    torch.testing.assert_close(out.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert out.square().mean() == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(out.std(0) / out.std(0)[0], rows.std(0) / rows.std(0)[0])  # the geometry stays


def test_running_statistics_follow_the_data():
    norm = FeatureNorm(5, "running")
    for batch in batches(300):
        norm.observe(batch)
    for batch in batches(round(5 / MOMENTUM), seed=1):
        norm.observe(batch + 100)
    assert (norm.mean - 107).abs().max() < 2


def test_a_dimension_that_never_moves_stays_zero_and_outliers_are_cut():
    norm = FeatureNorm(2, "running")
    norm.observe(torch.tensor([[4.0, -1.0], [4.0, 1.0]]))
    assert norm(torch.tensor([4.0, 500.0])).tolist() == [0, LIMIT]


def test_the_other_kinds_keep_no_statistics():
    feature = batches(1)[0]
    none, layer = FeatureNorm(5, "none"), FeatureNorm(5, "layernorm")
    none.observe(feature)
    layer.observe(feature)
    assert not none.state_dict() and not layer.state_dict()
    assert torch.equal(none(feature.half()), feature.half().float())
    torch.testing.assert_close(layer(feature).mean(-1), torch.zeros(8, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["running", "layernorm"])
def test_a_constant_added_to_every_feature_changes_nothing(make, kind):
    """The part of a feature that a task never changes does not reach the agent."""
    batch = make.batch()
    moved = replace(batch, obs=replace(batch.obs, feature=batch.obs.feature.float() + 3))
    one, other = (make.agent(feature_norm=kind).update(b)["total_loss"] for b in (batch, moved))
    torch.testing.assert_close(one, other)
    assert make.agent().update(batch)["total_loss"] != make.agent().update(moved)["total_loss"]


def test_a_resumed_agent_has_the_statistics(make):
    agent, other = (make.agent(feature_norm="running") for _ in range(2))
    agent.update(make.batch())
    other.load_state_dict(agent.state_dict())
    for kept, loaded in zip(agent.model.encoder.buffers(), other.model.encoder.buffers(), strict=True):
        assert torch.equal(kept, loaded)
    results = [a.update(make.batch(seed=1)) for a in (agent, other)]
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])
