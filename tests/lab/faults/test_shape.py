"""What one direction suffers: faults add up, draw from their seed, and count exactly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.lab.faults.shape import Bandwidth, BlackHole, Cut, Injection, Latency, Shape


def shape(seed: str = "7 a → b to") -> Shape:
    return Shape(base=0.0, seed=seed)


def delays(of: Shape, count: int = 50) -> list[float]:
    return [of.delay() for _ in range(count)]


def test_jitter_repeats_for_one_seed() -> None:
    """The same seed and link draw the same; another link, or another seed, something else."""
    drawn = []
    for seed in ("7 a → b to", "7 a → b to", "7 a → c to", "8 a → b to"):
        one = shape(seed)
        one.add(Injection(Latency(0.1, jitter=0.05)))
        drawn.append(delays(one))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0] != drawn[3]
    assert all(0.1 <= delay <= 0.15 for delay in drawn[0])


def test_jitter_does_not_depend_on_what_was_before() -> None:
    """A check draws the same alone as it does after others."""
    one, other = shape(), shape()
    earlier = Injection(Latency(0.1, jitter=0.05))
    other.add(earlier)
    delays(other, 13)
    other.remove(earlier)
    for each in (one, other):
        each.add(Injection(Latency(0.2, jitter=0.1)))
    assert delays(one) == delays(other)


def test_faults_add_up_and_heal_one_by_one() -> None:
    """Latencies are summed, the narrowest bandwidth counts, and what is left goes on."""
    one = Shape(base=0.01, seed="x")
    slow, slower = Injection(Latency(0.1)), Injection(Latency(0.2))
    wide, narrow = Injection(Bandwidth(5000)), Injection(Bandwidth(100))
    for injection in (slow, slower, wide, narrow):
        one.add(injection)
    assert one.delay() == pytest.approx(0.31)
    assert one.rate == 100
    one.remove(slower)
    one.remove(narrow)
    assert one.delay() == pytest.approx(0.11)
    assert one.rate == 5000
    one.remove(slow)
    one.remove(wide)
    assert one.delay() == 0.01
    assert one.rate is None


def test_clear_means_that_nothing_acts_or_counts() -> None:
    """Only then may bytes go by unseen."""
    one = shape()
    assert one.clear
    for injection in (Injection(Latency(0)), Injection(Bandwidth(1)), Injection(BlackHole())):
        one.add(injection)
        assert not one.clear
        one.remove(injection)
        assert one.clear
    counting = Injection(Cut(), after_bytes=5)
    one.count(counting)
    assert not one.clear
    one.remove(counting)
    assert one.clear
    assert not Shape(base=0.1, seed="x").clear


@given(
    triggers=st.lists(st.integers(1, 500), min_size=1, max_size=4),
    chunks=st.lists(st.integers(1, 200), max_size=40),
)
def test_a_trigger_is_met_at_its_byte(triggers: list[int], chunks: list[int]) -> None:
    """Whatever the pieces, each strikes after exactly its bytes, and none is stepped over."""
    one = shape()
    waiting = {Injection(BlackHole(), after_bytes=count): count for count in triggers}
    for injection in waiting:
        one.count(injection)
    gone = 0
    for chunk in chunks:
        left = chunk
        while left:
            size = one.allowance(left)
            assert size > 0
            gone += size
            left -= size
            struck = one.passed(size)
            assert {waiting[injection] for injection in struck} <= {gone}
            for injection in struck:
                one.remove(injection)
                del waiting[injection]
    assert all(count > gone for count in waiting.values())


def test_both_directions_are_counted_together() -> None:
    """One injection in two shapes has one count."""
    to, back = shape(), shape()
    both = Injection(Cut(), after_bytes=10)
    to.count(both)
    back.count(both)
    assert to.passed(to.allowance(6)) == []
    assert back.allowance(100) == 4
    assert back.passed(4) == [both]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"direction": "up"}, "to, from or both, not 'up'"),
        ({"after_bytes": -1}, "0 or more, not -1"),
        ({"after": -0.5}, "from 0, not -0.5"),
        ({"after": float("nan")}, "from 0, not nan"),
        ({"after": 1.0, "after_bytes": 1}, "not both"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(values: dict[str, Any], says: str) -> None:
    """The message says what was wrong and what is right."""
    with pytest.raises(ValueError, match=says):
        Injection(Cut(), **values)


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_bandwidth_that_makes_no_sense_is_refused(rate: float) -> None:
    """Nothing at all is a black hole, and everything is no fault."""
    with pytest.raises(ValueError, match="more than 0 bytes"):
        Bandwidth(rate)


def test_a_latency_that_makes_no_sense_is_refused() -> None:
    """Nothing arrives before it was sent."""
    for values in ({"seconds": -1.0}, {"seconds": 0.1, "jitter": -0.1}):
        with pytest.raises(ValueError, match="from 0"):
            Latency(**values)
