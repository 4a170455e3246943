from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub_ext.auth import throttle
from hub_ext.auth.throttle import FIRST_WAIT, FORGOTTEN_AFTER, FREE_TRIES, LONGEST_WAIT, Throttle
from tests.auth.fakes import HandClock


def fail(throttled: Throttle, name: str, times: int) -> None:
    for _ in range(times):
        throttled.failed(name)


def test_some_tries_are_free() -> None:
    throttled = Throttle(HandClock())
    fail(throttled, "a", FREE_TRIES - 1)
    assert throttled.wait("a") == 0


def test_then_each_wait_is_twice_as_long_up_to_a_limit() -> None:
    clock = HandClock()
    throttled = Throttle(clock)
    fail(throttled, "a", FREE_TRIES)
    waits = []
    for _ in range(12):
        waits.append(throttled.wait("a"))
        clock.at += waits[-1]
        assert throttled.wait("a") == 0
        throttled.failed("a")
    assert waits[:5] == [FIRST_WAIT * 2**i for i in range(5)]
    assert waits[-1] == LONGEST_WAIT


def test_waiting_counts_down() -> None:
    clock = HandClock()
    throttled = Throttle(clock)
    fail(throttled, "a", FREE_TRIES)
    clock.at += FIRST_WAIT - 1
    assert throttled.wait("a") == 1


def test_one_name_does_not_hold_up_another() -> None:
    throttled = Throttle(HandClock())
    fail(throttled, "a", FREE_TRIES)
    assert throttled.wait("b") == 0


def test_a_right_password_forgets_the_wrong_ones() -> None:
    throttled = Throttle(HandClock())
    fail(throttled, "a", FREE_TRIES - 1)
    throttled.succeeded("a")
    throttled.succeeded("never-failed")
    fail(throttled, "a", FREE_TRIES - 1)
    assert throttled.wait("a") == 0


def test_failures_are_forgotten_after_a_while() -> None:
    clock = HandClock()
    throttled = Throttle(clock)
    fail(throttled, "a", FREE_TRIES + 5)
    clock.at += FORGOTTEN_AFTER
    throttled.failed("a")
    assert throttled.wait("a") == 0


def test_ever_new_names_do_not_fill_the_memory(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(throttle, "MOST_NAMES", 10)
    throttled = Throttle(HandClock())
    fail(throttled, "a", FREE_TRIES)
    for i in range(50):
        throttled.failed(f"guess-{i}")
        throttled.failed("a")
    assert len(throttled._failures) == 10
    assert throttled.wait("a") > 0


@given(st.lists(st.sampled_from(["failed", "succeeded", 1, 7, 400, 5000]), max_size=60))
def test_a_wait_is_never_below_zero_nor_above_the_longest(steps: list[str | int]) -> None:
    clock = HandClock()
    throttled = Throttle(clock)
    for step in steps:
        if isinstance(step, int):
            clock.at += step
        else:
            getattr(throttled, step)("a")
        assert 0 <= throttled.wait("a") <= LONGEST_WAIT
