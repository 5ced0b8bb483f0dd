"""The fast path: what a probe decides, and that every architecture computes in bfloat16."""

from dataclasses import replace

import pytest
import torch

import pvr_zoo
from mbrl_pvr.doctor import compiler_lacks
from pvr_zoo import Encoder, fast, network
from pvr_zoo.families import random

SMALL = {"truncate": 2, "input_size": 32}


def builders() -> dict[str, str]:
    """One encoder of each architecture."""
    rows = {name: pvr_zoo.spec(name) for name in pvr_zoo.list_encoders() if not name.startswith("random")}
    return {spec.builder: name for name, spec in rows.items()}


def test_bfloat16_is_another_encoder_and_leaves_the_first_alone(frames: torch.Tensor) -> None:
    exact = pvr_zoo.create("random_vits16", **SMALL)
    before = exact(frames)
    half, chosen = fast.choose(exact, "bfloat16")
    assert torch.equal(exact(frames), before) and "precision" not in exact.identity
    assert half.identity == exact.identity | {"precision": "bfloat16"}
    assert {p.dtype for p in half.network.parameters()} == {torch.bfloat16}
    assert half.preprocess.scale.dtype == torch.float32 and half.spec is exact.spec
    difference = (half(frames) - before).abs().max()
    assert half(frames).dtype == torch.float32 and 1e-5 < difference / before.std() < 0.1
    assert chosen.name == "bfloat16" and 1e-5 < chosen.error < 0.05 and "of their spread" in str(chosen)


def test_float32_is_the_encoder_itself() -> None:
    exact = pvr_zoo.create("random_vits16", **SMALL)
    used, chosen = fast.choose(exact, "float32")
    assert used is exact and chosen == fast.Precision("float32")


@pytest.mark.parametrize(
    ("speed", "error", "taken", "calls"),
    [
        (2.0, 0.01, "bfloat16", True),
        (1.1, 0.01, "float32", True),
        (0.01, 0.01, "float32", False),
        (2.0, 1.0, "float32", True),
    ],
)
def test_auto_takes_bfloat16_where_it_is_faster_and_near(
    monkeypatch: pytest.MonkeyPatch, speed: float, error: float, taken: str, calls: bool
) -> None:
    """Seconds are made up; where bfloat16 is hopeless no more than its first two calls, of one frame, are made."""
    exact = pvr_zoo.create("random_vits16", **SMALL)
    seen: list[int] = []

    def seconds(call: fast.partial) -> float:
        images = call.args[0]
        if images.dtype == torch.bfloat16:
            seen.append(len(images))
            return 1 / speed
        return 1.0

    monkeypatch.setattr(fast, "_seconds", seconds)
    monkeypatch.setattr(fast, "error", lambda used, exact: error)
    used, chosen = fast.choose(exact, "auto", batch=16)
    assert chosen.name == taken and chosen.speedup == pytest.approx(speed)
    assert (used is exact) == (taken == "float32") and used.identity.get("precision", "float32") == taken
    assert seen == ([1, 1, 4, 4, 4, 4] if calls else [1, 1])


@pytest.mark.parametrize("builder", builders())
def test_every_architecture_computes_in_bfloat16(builder: str, frames: torch.Tensor) -> None:
    small = network.family(pvr_zoo.spec(builders()[builder])).small(pvr_zoo.spec(builders()[builder]))
    spec = replace(small, seed=0)
    exact = Encoder(spec, random.build(spec), random.identity())
    with torch.inference_mode():
        wanted, got = exact(frames), exact.cast(torch.bfloat16)(frames)
    away = (got - wanted).abs().flatten().sort().values / wanted.std()
    assert 0 < away[len(away) // 2] < 0.5  # the median: where maxima are picked, as by R2D2, others may be


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # in inductor
@pytest.mark.skipif(bool(compiler_lacks()), reason=f"needs a compiler: {' '.join(compiler_lacks())}")
def test_compiled_features_are_the_same(frames: torch.Tensor) -> None:
    exact = pvr_zoo.create("random_resnet18", truncate=1, input_size=32)
    wanted = exact(frames)
    used = fast.compiled(exact)
    assert used.network._compiled_call_impl is not None
    torch.testing.assert_close(used(frames), wanted, atol=1e-5, rtol=1e-5)
    assert used.identity == exact.identity
