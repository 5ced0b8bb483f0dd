"""bfloat16 products: what is computed in them, that nothing else is, and that agents learn and resume as in float32."""

from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from world_models.dreamerv3.agent import DreamerV3
from world_models.dreamerv3.config import DreamerV3Config
from world_models.tdmpc2 import TDMPC2Config
from world_models.tdmpc2.agent import TDMPC2
from world_models.types import ActionSpec, ObsShapes

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}
PRODUCTS |= {"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"}
SUMS = {"add", "add_", "sum"}  # of products, and of their gradients
PICKS = {"max_pool2d_with_indices", "max_pool2d_with_indices_backward", "relu", "threshold_backward"}  # exact
MOVES = {"_to_copy", "_unsafe_view", "cat", "clone", "copy_", "detach", "empty_like", "expand", "permute", "select"}
MOVES |= {"select_backward", "slice", "slice_backward", "split_with_sizes", "squeeze", "squeeze_", "stack", "t"}
MOVES |= {"transpose", "unbind", "unsqueeze", "view", "_reshape_alias", "unsafe_split", "alias", "as_strided"}


class Watch(TorchDispatchMode):
    """Notes which operations gave numbers of which precision."""

    def __init__(self) -> None:
        super().__init__()
        self.gave: dict[torch.dtype, set[str]] = defaultdict(set)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.gave[x.dtype].add(func._schema.name.removeprefix("aten::"))
        return out


@pytest.fixture(params=["dreamerv3", "study", "tdmpc2"])
def maker(request, dream, study, make):
    return {"dreamerv3": dream, "study": study, "tdmpc2": make}[request.param]


def check_near(one, other, batch) -> None:
    """First losses within a few percent of one another, and everything kept in float32."""
    found, wanted = other.update(batch), one.update(batch)
    losses = [name for name in wanted if name.endswith("loss")]
    assert len(losses) > 3 and any(not torch.equal(found[name], wanted[name]) for name in losses)
    for name in losses:
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], wanted[name], rtol=0.06, atol=0.08, msg=lambda m, n=name: f"{n}: {m}")
    state = one.state_dict()
    for name, value in other.state_dict().items():
        assert value.dtype == state[name].dtype != torch.bfloat16, name
        assert value.isfinite().all(), name


def test_dreamerv3_learns_nearly_the_same(dream_any):
    """Latents are drawn: where a probability is near a draw another class is chosen, so losses are near and no more."""
    check_near(dream_any.agent(), dream_any.agent(precision="bfloat16"), dream_any.batch())


def test_tdmpc2_learns_nearly_the_same(make_any):
    one, other = (make_any.agent(precision=precision, episodic=True) for precision in ("float32", "bfloat16"))
    check_near(one, other, make_any.batch())


@pytest.mark.parametrize("settings", [{}, {"target": "none"}])
def test_only_products_of_dreamerv3_are_bfloat16(dream_any, settings):
    agent = dream_any.agent(precision="bfloat16", imagination=1, **settings)
    with Watch() as seen:
        agent.update(dream_any.batch())
        agent.act(agent.initial(2, 0), dream_any.obs(2, first=True), True)
    assert seen.gave[torch.bfloat16] <= PRODUCTS | SUMS | PICKS | MOVES
    if not settings:  # redundancy reduction is a product that is a loss
        assert not seen.gave[torch.float32] & PRODUCTS
    assert seen.gave[torch.bfloat16] & PRODUCTS >= {"mm", "addmm"}


@pytest.mark.parametrize("settings", [{}, {"front_end": "mlp"}])
def test_only_products_of_tdmpc2_are_bfloat16(make_any, settings):
    agent = make_any.agent(precision="bfloat16", **settings)
    with Watch() as seen:
        agent.update(make_any.batch())
        agent.act(agent.initial(2, 0), make_any.obs(2, first=True), True)
    assert seen.gave[torch.bfloat16] <= PRODUCTS | SUMS | PICKS | MOVES
    assert not seen.gave[torch.float32] & PRODUCTS and seen.gave[torch.bfloat16] & PRODUCTS >= {"mm", "addmm"}


def test_it_acts_nearly_the_same(maker):
    one, other = maker.agent(), maker.agent(precision="bfloat16")
    obs = maker.obs(3, first=True)
    (action, carry), (other_action, other_carry) = (a.act(a.initial(3, 5), obs, True) for a in (one, other))
    assert other_action.dtype == torch.float32 and not torch.equal(action, other_action)
    torch.testing.assert_close(other_action, action, rtol=0, atol=0.1)
    for name, value in vars(other_carry).items():
        assert not isinstance(value, torch.Tensor) or value.dtype == getattr(carry, name).dtype


def test_saved_loaded_and_continued_equals_never_stopped(maker):
    straight, resumed = (maker.agent(precision="bfloat16") for _ in range(2))
    straight.update(maker.batch(seed=0))
    resumed.load_state_dict(straight.state_dict())
    for seed in (1, 2):
        one, other = (a.update(maker.batch(seed=seed)) for a in (straight, resumed))
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_reports_are_float32(maker):
    """What a figure shows does not depend on the precision that the weights were learnt in."""
    plain, other = maker.agent(), maker.agent(precision="bfloat16")
    batch = maker.batch()
    one, two = (agent.report(batch, context=2) for agent in (plain, other))
    assert all(torch.equal(one[name].nan_to_num(), two[name].nan_to_num()) for name in one)


class SmallTail(nn.Module):
    """The kinds of layers that trainable ends of encoders have: convolution, batch norm, attention, layer norm."""

    feature_shape = (8,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.batch_norm = nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8).eval()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, held: torch.Tensor) -> torch.Tensor:
        x = self.batch_norm(self.conv(held.permute(0, 3, 1, 2).float() / 255))
        return self.block(x.flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize("kind", ["dreamerv3", "tdmpc2"])
def test_a_tail_learns_in_bfloat16_too(kind, dream, make):
    """TD-MPC2 shows it to the running norm first, without gradients: casts kept from there would have none."""
    shapes, tail = ObsShapes(pixels=(16, 16, 3)), SmallTail()
    if kind == "dreamerv3":
        settings = vars(dream.agent(target="none", feature_norm="running").config)
        agent = DreamerV3(shapes, ActionSpec(2), DreamerV3Config(**settings), seed=0, tail=tail, precision="bfloat16")
        batch = type(dream)(shapes).batch()
    else:
        config = TDMPC2Config(**{**vars(make.agent().config), "feature_norm": "running"})
        agent = TDMPC2(shapes, ActionSpec(2), config, episode_length=9, seed=0, tail=tail, precision="bfloat16")
        batch = type(make)(shapes).batch()
    before = {name: p.detach().clone() for name, p in tail.named_parameters()}
    metrics = agent.update(batch)
    assert all(value.isfinite().all() for value in metrics.values())
    still = {name for name, p in tail.named_parameters() if torch.equal(p, before[name])}
    assert not still, still
    assert {p.dtype for p in tail.parameters()} == {torch.float32}
