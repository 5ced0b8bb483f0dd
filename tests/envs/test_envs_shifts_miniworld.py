"""Looks in Miniworld: each factor shows, grows with severity, and never reaches the physics. One worker for all."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import SeedSequence

from mbrl_pvr.envs import EnvConfig, VectorEnv, make
from mbrl_pvr.envs.factors import IMAGE
from mbrl_pvr.envs.offers import presets, shifted
from mbrl_pvr.envs.shifts import Draw, Look, draw_look
from mbrl_pvr.errors import ConfigError

SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
OWN = [f for f in shifted("miniworld/PickupObjects") if f not in IMAGE]
LEFT, _, FORWARD, _, _ = np.eye(5, dtype=np.float32)


@pytest.fixture(scope="module")
def room(miniworld: None) -> Iterator[VectorEnv]:
    """A view of two objects, two walls and the sky."""
    config = EnvConfig(name="miniworld/PickupObjects", size=64, action_repeat=1)
    with make(config, num=1, seed=3, stream="t", start_timeout=400) as envs:
        envs.reset(episode=0)
        for action in [LEFT] * 6 + [FORWARD] * 2:
            envs.step(action[None])
        yield envs


@pytest.mark.parametrize("factor", OWN)
def test_every_factor_grows_from_nothing(room: VectorEnv, factor: str) -> None:
    for split in ("train", "held_out"):
        look = draw_look(SeedSequence(2), factor, split, env="miniworld")
        looks = [Look(), *(replace(look, severity=s) for s in SEVERITIES)]
        frames = room.call("frames_of", looks)[0].astype(float)
        np.testing.assert_array_equal(frames[1], frames[0])
        distance = np.abs(frames[1:] - frames[0]).mean(axis=(1, 2, 3))
        assert (np.diff(distance) > 0).all(), distance


def test_held_out_objects_have_the_colour_that_training_never_shows(room: VectorEnv) -> None:
    """Red, the fifth of ten; everything in the room has other colours in training."""

    def red(index: int) -> float:
        frame = room.call("frames_of", [Look({"objects": Draw(1.0, index)}, 1.0)])[0][0].astype(int)
        return ((frame[..., 0] > 90) & (frame[..., 1] < 20) & (frame[..., 2] < 20)).mean()

    assert max(red(4), red(9)) > 0.005
    assert [red(index) for index in (0, 1, 2, 3, 5, 6, 7, 8)] == [0.0] * 8


def test_an_object_of_the_held_out_colour_changes_too(miniworld: None) -> None:
    """The box of Hallway is red; in this episode it is in the picture."""
    config = EnvConfig(name="miniworld/Hallway", size=64, action_repeat=1)
    with make(config, num=1, seed=0, stream="t", start_timeout=400) as envs:
        envs.reset(episode=5)
        looks = [Look(), *(Look({"objects": Draw(1.0, index)}, 1.0) for index in range(10))]
        own, *frames = envs.call("frames_of", looks)[0].astype(int)
        box = (own[..., 0] - own[..., 1:].max(-1)) > 30
        assert box.sum() > 200
        for index, frame in enumerate(frames):
            changed = np.abs(frame - own).max(-1) > 20
            assert (changed & box).sum() > 0.9 * box.sum(), index


def test_one_state_is_drawn_alike_and_stays_as_it_is(room: VectorEnv) -> None:
    before, state = room.call("digest"), room.get_state()
    looks = [draw_look(SeedSequence(i), "+".join(OWN), env="miniworld") for i in range(3)]
    first = room.call("frames_of", [Look(), *looks])[0]
    again = room.call("frames_of", [*looks[::-1], Look()])[0][::-1]
    np.testing.assert_array_equal(first, again)
    assert len({frame.tobytes() for frame in first}) == 4
    assert room.call("digest") == before and room.get_state() == state


def test_a_look_that_cannot_be_drawn_is_refused() -> None:
    config = EnvConfig(name="miniworld/PickupObjects", size=32, action_repeat=1, shifts="shadows")
    with pytest.raises(
        ConfigError, match=r"env\.shifts=shadows means nothing in .*: it cannot draw shadows[\s\S]*objects"
    ):
        make(config, num=1, seed=0, stream="t")
    for name in ("miniworld/PutNext", "miniworld/Sign"):  # their tasks are about colours
        with pytest.raises(ConfigError, match="it cannot draw objects"):
            make(replace(config, name=name, shifts="objects"), num=1, seed=0, stream="t")
    assert presets("miniworld/PickupObjects")[:2] == ("study", "color_easy")


@pytest.mark.slow
def test_episodes_change_look_but_not_physics(miniworld: None) -> None:
    config = EnvConfig(name="miniworld/PickupObjects", size=32, action_repeat=1, max_steps=3)
    shifted_config = replace(config, shifts="+".join((*OWN, *IMAGE)))
    actions = np.eye(5, dtype=np.float32)[np.random.default_rng(0).integers(0, 5, (9, 1))]
    with make(config, num=1, seed=1, stream="t") as plain, make(shifted_config, num=1, seed=1, stream="t") as other:
        for action in actions:
            ticks = [envs.step(action) for envs in (plain, other)]
            assert plain.call("digest") == other.call("digest")
            assert ticks[0].reward == ticks[1].reward and (ticks[0].frame != ticks[1].frame).any()
