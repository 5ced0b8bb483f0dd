"""Replay against a plain list of rows: alignment, stacks, the ring, uniformity, and exact return from disk."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_pvr import replay as replay_module
from mbrl_pvr.errors import ConfigError, EnvError, IntegrityError
from mbrl_pvr.replay import Replay
from mbrl_pvr.seeding import rng
from mbrl_pvr.storage import verify_file
from world_models.types import ObsShapes, SequenceSpec

NUM = 2


def counting_rows(lengths: list[list[int]], ticks: int) -> list[list[SimpleNamespace]]:
    """rows[tick][env] of environments that repeat episodes of the given lengths; every number tells its place."""
    rows = [[None] * NUM for _ in range(ticks)]
    for env in range(NUM):
        tick, episode = 0, 0
        while tick < ticks:
            length = lengths[env][episode % len(lengths[env])]
            for i in range(min(length, ticks - tick)):
                last = i == length - 1
                number = (tick + i) * NUM + env
                rows[tick + i][env] = SimpleNamespace(
                    number=number, age=i, is_last=last, is_terminal=last and episode % 2 == 0
                )
            tick, episode = tick + length, episode + 1
    return rows


def fill(replay: Replay, rows: list[list[SimpleNamespace]]) -> None:
    for row in rows:
        number = np.array([r.number for r in row], np.float32)
        replay.add(
            feature=np.stack([number, -number], -1).astype(np.float16),
            pixels=np.full((NUM, 1, 2, 3), number.astype(np.uint8)[:, None, None, None]),
            proprio=number[:, None],
            action=number[:, None] + 0.5,
            reward=number + 0.25,
            is_first=np.array([r.age == 0 for r in row]),
            is_last=np.array([r.is_last for r in row]),
            is_terminal=np.array([r.is_terminal for r in row]),
        )


def make(capacity: int) -> Replay:
    return Replay(ObsShapes(feature=(2,), pixels=(1, 2, 3), proprio=1), 1, capacity * NUM, NUM)


def valid_starts(rows, oldest: int, spec: SequenceSpec) -> set[tuple[int, int]]:
    found = set()
    for tick in range(oldest, len(rows) - spec.length + 1):
        for env in range(NUM):
            inside = [rows[t][env] for t in range(tick, tick + spec.length)]
            whole = tick - min(spec.stack - 1, inside[0].age) >= oldest
            if whole and not (spec.within_episode and any(r.age == 0 for r in inside[1:])):
                found.add((tick, env))
    return found


def check_sequence(batch, b: int, rows, spec: SequenceSpec) -> tuple[int, int]:
    """Every number of sequence `b` is where it belongs; returns its start."""
    start = int(batch.obs.proprio[b, 0, 0])
    tick, env = divmod(start, NUM)
    for t in range(spec.length):
        row = rows[tick + t][env]
        stack = [rows[tick + t - min(back, row.age)][env].number for back in reversed(range(spec.stack))]
        assert batch.obs.feature[b, t, :, 0].tolist() == stack
        assert batch.obs.feature[b, t, :, 1].tolist() == [-n for n in stack]
        assert (batch.obs.pixels[b, t] == torch.tensor(stack, dtype=torch.uint8)[:, None, None, None]).all()
        assert batch.obs.proprio[b, t].tolist() == [row.number]
        first = row.age == 0
        assert batch.is_first[b, t] == first
        assert batch.action[b, t].tolist() == [0.0 if first else row.number + 0.5]
        assert batch.reward[b, t] == (0.0 if first else row.number + 0.25)
        assert (batch.is_last[b, t], batch.is_terminal[b, t]) == (row.is_last, row.is_terminal)
    return tick, env


lengths = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=4), min_size=NUM, max_size=NUM)


@settings(max_examples=150, deadline=None)
@given(
    lengths,
    st.integers(3, 25),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 9),
)
def test_every_sampled_number_is_where_it_belongs(lengths, capacity, ticks, length, stack, within, seed):
    rows = counting_rows(lengths, ticks)
    replay, spec = make(capacity), SequenceSpec(32, length, stack, within)
    fill(replay, rows)
    allowed = valid_starts(rows, max(0, ticks - capacity), spec)
    if not allowed:
        with pytest.raises(ConfigError, match=f"among them no {length}"):
            replay.sample(spec, np.random.default_rng(seed))
        return
    batch = replay.sample(spec, np.random.default_rng(seed))
    assert {check_sequence(batch, b, rows, spec) for b in range(32)} <= allowed


def test_shapes_and_types():
    replay = make(20)
    fill(replay, counting_rows([[7], [7]], 20))
    batch = replay.sample(SequenceSpec(5, 3, 4), np.random.default_rng(0))
    assert (batch.obs.feature.shape, batch.obs.feature.dtype) == ((5, 3, 4, 2), torch.float16)
    assert (batch.obs.pixels.shape, batch.obs.pixels.dtype) == ((5, 3, 4, 1, 2, 3), torch.uint8)
    assert (batch.obs.proprio.shape, batch.obs.proprio.dtype) == ((5, 3, 1), torch.float32)
    assert (batch.action.shape, batch.reward.shape, batch.is_first.dtype) == ((5, 3, 1), (5, 3), torch.bool)


@pytest.mark.parametrize("within", [True, False])
def test_starts_are_uniform_over_all_valid_ones_and_only_those(within):
    rows = counting_rows([[9, 2, 6], [3, 14]], 50)
    replay, spec = make(30), SequenceSpec(64, 4, 3, within)
    fill(replay, rows)
    allowed = sorted(valid_starts(rows, 20, spec))
    counts = dict.fromkeys(allowed, 0)
    for k in range(400):
        batch = replay.sample(spec, rng(0, "uniform", k))
        for number in batch.obs.proprio[:, 0, 0].int().tolist():
            counts[divmod(number, NUM)] += 1
    expected = 400 * 64 / len(allowed)
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
    assert abs(chi2 - len(allowed)) < 5 * np.sqrt(2 * len(allowed))  # mean and spread of a chi-square


def test_rare_starts_are_found_and_uniform_too():
    rows = counting_rows([[1] * 40 + [5], [1] * 40 + [4]], 90)
    replay, spec = make(80), SequenceSpec(8, 4)
    fill(replay, rows)
    allowed = valid_starts(rows, 10, spec)
    assert 2 <= len(allowed) <= 6
    seen = {check_sequence(replay.sample(spec, rng(0, "rare", k)), 0, rows, spec) for k in range(60)}
    assert seen == allowed


def test_sampling_is_a_function_of_the_generator_alone():
    replay = make(30)
    fill(replay, counting_rows([[9], [4, 8]], 50))
    spec = SequenceSpec(16, 3, 2)
    one, two, other = (replay.sample(spec, rng(0, "sample", k)).obs.proprio for k in (7, 7, 8))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_latest_is_the_newest_stack_of_each_environment():
    rows = counting_rows([[9], [4]], 21)
    replay = make(6)
    fill(replay, rows)
    obs = replay.latest(3)
    for env in range(NUM):
        row = rows[20][env]
        assert obs.feature[env, :, 0].tolist() == [rows[20 - min(k, row.age)][env].number for k in (2, 1, 0)]
        assert obs.is_first[env] == (row.age == 0)
    assert obs.proprio.shape == (NUM, 1)
    fill(
        replay, counting_rows([[9], [4]], 25)[21:]
    )  # the first frame of the first environment's episode is overwritten
    with pytest.raises(ValueError, match="too few for a stack of 9"):
        replay.latest(9)


def test_batches_do_not_change_when_the_ring_moves_on():
    replay, rows = make(6), counting_rows([[9], [4]], 30)
    fill(replay, rows[:10])
    batch = replay.sample(SequenceSpec(4, 2, 2), rng(0, "s"))
    before = batch.obs.feature.clone()
    fill(replay, rows[10:])
    assert torch.equal(batch.obs.feature, before)


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(3, 12), st.lists(st.integers(0, 15), min_size=1, max_size=5), st.integers(1, 20))
def test_loading_segments_restores_everything_also_what_comes_after(tmp_path_factory, lengths, capacity, bursts, more):
    folder = tmp_path_factory.mktemp("replay")
    rows = counting_rows(lengths, sum(bursts) + more)
    replay, at = make(capacity), 0
    for burst in bursts:
        fill(replay, rows[at : at + burst])
        at += burst
        state = replay.seal(folder)
        assert state == replay.seal(folder)  # changes nothing, can be tried again
        for entry in state["segments"]:
            verify_file(folder / entry["file"], entry)
        replay.committed(state)
        assert sum(s["stop"] - s["start"] for s in state["segments"]) >= min(at, capacity)
        assert replay.pending_bytes == 0
    back = make(capacity)
    back.load(folder, state)
    fill(replay, rows[at:])
    fill(back, rows[at:])
    assert (back.ticks, len(back)) == (replay.ticks, len(replay))
    assert all(np.array_equal(back._data[k], replay._data[k]) for k in replay._data)
    assert back.seal(folder) == replay.seal(folder)


def test_a_segment_is_dropped_only_when_all_its_rows_are_overwritten(tmp_path):
    replay, rows = make(10), counting_rows([[50], [50]], 40)
    held = []
    for burst in range(5):
        fill(replay, rows[4 * burst : 4 * burst + 4])
        state = replay.seal(tmp_path)
        replay.committed(state)
        held.append([s["start"] for s in state["segments"]])
    assert held == [[0], [0, 4], [0, 4, 8], [4, 8, 12], [8, 12, 16]]


@pytest.mark.parametrize(("within", "said"), [(True, "of one episode"), (False, "with the frames stacked before them")])
def test_an_empty_or_too_short_replay_is_told_with_both_numbers(within, said):
    replay, spec = make(10), SequenceSpec(2, 4, stack=1, within_episode=within)
    for ticks in range(4):
        with pytest.raises(
            ConfigError, match=f"replay holds {ticks} ticks and among them no 4 in a row {said}"
        ) as caught:
            replay.sample(spec, np.random.default_rng(0))
        assert caught.value.exit_code == 2 and "Collect more" in caught.value.hint
        fill(replay, counting_rows([[50], [50]], 4)[ticks : ticks + 1])
    assert replay.sample(spec, np.random.default_rng(0)).reward.shape == (2, 4)


def test_replay_of_features_of_another_size_is_not_loaded(tmp_path):
    """As after a change of the encoder; the message holds both sizes."""
    one, other = (Replay(ObsShapes(feature=(width,)), 1, 20, 2) for width in (3, 5))
    flags = dict.fromkeys(("is_first", "is_last", "is_terminal"), np.zeros(2, bool))
    numbers = {"action": np.zeros((2, 1), np.float32), "reward": np.zeros(2, np.float32)}
    one.add(feature=np.zeros((2, 3), np.float16), **flags, **numbers)
    with pytest.raises(IntegrityError, match=r"'feature': \[10, 2, 3\].* this one has .*'feature': \[10, 2, 5\]"):
        other.load(tmp_path, one.seal(tmp_path))
    with pytest.raises(ValueError, match=r"feature: float16\(2, 3\) given, float16\(2, 5\) wanted"):
        other.add(feature=np.zeros((2, 3), np.float16), **flags, **numbers)


def test_load_refuses_another_shape_and_gaps(tmp_path):
    replay = make(10)
    for k in range(2):
        fill(replay, counting_rows([[50], [50]], 8)[4 * k : 4 * k + 4])
        replay.committed(state := replay.seal(tmp_path))
    with pytest.raises(IntegrityError, match="replay was saved with"):
        make(11).load(tmp_path, state)
    with pytest.raises(IntegrityError, match="does not continue at tick 0"):
        make(10).load(tmp_path, {**state, "segments": state["segments"][1:]})
    with pytest.raises(IntegrityError, match="end at tick 4, should at 8"):
        make(10).load(tmp_path, {**state, "segments": state["segments"][:1]})


def row_of(**changes):
    row = {
        "feature": np.zeros((NUM, 2), np.float16),
        "pixels": np.zeros((NUM, 1, 2, 3), np.uint8),
        "proprio": np.zeros((NUM, 1), np.float32),
        "action": np.zeros((NUM, 1), np.float32),
        "reward": np.zeros(NUM, np.float32),
        **{name: np.zeros(NUM, bool) for name in ("is_first", "is_last", "is_terminal")},
    }
    return {**row, **changes}


@pytest.mark.parametrize("name", ["feature", "proprio", "reward", "action"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_and_nothing_is_stored(name, bad):
    replay = make(10)
    row = row_of()
    row[name] = np.full_like(row[name], bad)
    with pytest.raises(EnvError, match=f"{name} is NaN or infinite at tick 0"):
        replay.add(**row)
    assert len(replay) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"feature": np.zeros((NUM, 3), np.float16)},
        {"feature": np.zeros((2,), np.float16)},
        {"pixels": np.zeros((NUM, 1, 2, 3), np.float32)},
        {"pixels": None},
        {"reward": np.zeros((NUM, 1), np.float32)},
    ],
)
def test_wrong_shapes_and_types_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted"):
        make(10).add(**row_of(**wrong))


def test_memory_is_counted_and_checked_before_it_is_taken(monkeypatch):
    study = Replay(ObsShapes(feature=(768,)), 6, 1_000_000, 1)
    assert study.bytes_per_step * 1_000_000 < 1.7e9
    line = "replay: 1,000,000 steps of 1,571 bytes, 1.57 GB when full"
    assert replay_module.estimate(study.expected, study.bytes_per_step) == line
    monkeypatch.setattr(replay_module, "available_memory", lambda: 10_000_000)
    with pytest.raises(ConfigError, match=r"1.57 GB when full, but 0.01 GB of memory are available") as caught:
        Replay(ObsShapes(feature=(768,)), 6, 1_000_000, 1)
    assert "6,365 steps fit" in str(caught.value)


@pytest.mark.parametrize("lengths", [[[2], [2]], [[1, 2], [7]], [[30], [30]]])
def test_memory_is_taken_for_what_a_run_can_fill_and_changes_nothing(lengths, tmp_path):
    """Up to the most ticks that 20 steps take, where every second one is a reset."""
    rows, spec = counting_rows(lengths, 2 * (20 // NUM) + 1), SequenceSpec(5, 2, stack=3)
    large = make(1000)
    small = Replay(ObsShapes(feature=(2,), pixels=(1, 2, 3), proprio=1), 1, 1000 * NUM, NUM, rows=20 + 2 * NUM)
    assert sum(v.nbytes for v in small._data.values()) < sum(v.nbytes for v in large._data.values()) / 20
    for replay in (large, small):
        fill(replay, rows)
    a, b = large.sample(spec, rng(1, "sample")), small.sample(spec, rng(1, "sample"))
    assert torch.equal(a.obs.proprio, b.obs.proprio) and torch.equal(a.reward, b.reward)
    assert small.seal(tmp_path / "small")["shape"] == large.seal(tmp_path / "large")["shape"]


def test_memory_is_demanded_for_what_a_run_fills_not_for_the_capacity(monkeypatch):
    monkeypatch.setattr(replay_module, "available_memory", lambda: 10_000_000)
    few = Replay(ObsShapes(feature=(768,)), 6, 900_000_000, 1, rows=6000)
    assert few.expected == 6000
    with pytest.raises(ConfigError, match="replay: 7,000 steps"):
        Replay(ObsShapes(feature=(768,)), 6, 900_000_000, 1, rows=7000)


def test_a_sequence_comes_with_the_state_before_it_and_those_inside():
    """States tell tick and environment; before an episode's first frame, and before the oldest, stand zeros."""
    capacity, ticks, spec = 8, 21, SequenceSpec(16, 3, within_episode=False, carried=2)
    rows = counting_rows([[5], [3, 4]], ticks)
    replay = Replay(ObsShapes(proprio=1), 1, capacity * NUM, NUM, carried=2)
    for tick, row in enumerate(rows):
        number = np.array([r.number for r in row], np.float32)
        flags = {name: np.array([getattr(r, name) for r in row]) for name in ("is_last", "is_terminal")}
        first = np.array([r.age == 0 for r in row])
        replay.add(proprio=number[:, None], action=number[:, None], reward=number, is_first=first, **flags)
        replay.keep(torch.tensor([[100 + tick, env + 1] for env in range(NUM)]))
    oldest, seen = ticks - capacity, set()
    for k in range(20):
        batch = replay.sample(spec, rng(0, "sample", k))
        for b in range(spec.batch):
            tick, env = divmod(int(batch.obs.proprio[b, 0, 0]), NUM)
            before = [100 + tick - 1, env + 1]
            unknown = rows[tick][env].age == 0 or tick == oldest
            wanted = [[0, 0] if unknown else before, *([100 + t, env + 1] for t in range(tick, tick + spec.length))]
            assert batch.carried[b].tolist() == wanted
            seen.add((rows[tick][env].age == 0, tick == oldest))
    assert {(False, False), (True, False), (False, True)} <= seen
    batch.carried[:, 1:] = 7
    replay.refresh(batch)
    states = replay.states()["states"]
    changed = np.flatnonzero((states == 7).all(1))
    assert set(changed) == set(batch.rows.numpy().ravel()) and (states[changed] == 7).all()
