"""What the hub answers when a start is not possible: always a sentence, never a stack trace, and the hub stays up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.hub import EmbeddedHub, Visitor, text_of

HOSTILE_OPTIONS: dict[str, Any] = {
    "no options at all": None,
    "an empty object": {},
    "a list": ["h200"],
    "a number": 4,
    "a text": "h200",
    "true": True,
    "a profile that does not exist": {"profile": "h900"},
    "a profile that is a list": {"profile": ["h200"]},
    "a profile that is an object": {"profile": {"slug": "h200"}},
    "a profile that ends in a newline": {"profile": "h200\n"},
    "an option that does not exist": {"profile": "h200", "image": "evil:latest"},
    "a choice that does not exist": {"profile": "cpu-large", "memory": "1000Ti"},
    "minutes below zero": {"profile": "h200", "minutes": -5},
    "minutes that are no number": {"profile": "h200", "minutes": "soon"},
    "minutes that are a float": {"profile": "h200", "minutes": 1.5},
    "a pool that is an object": {"profile": "h200", "pool": {"$ne": ""}},
    "a very long profile": {"profile": "x" * 100_000},
    "a profile with markup": {"profile": "<script>alert(1)</script>"},
    "deep nesting": {"profile": "h200", "x": [[[[[[[[[[1]]]]]]]]]]},
}


@pytest.mark.parametrize("options", HOSTILE_OPTIONS.values(), ids=HOSTILE_OPTIONS.keys())
def test_user_options_of_any_shape_are_answered_with_a_sentence_and_start_nothing(
    hub: EmbeddedHub, student: Visitor, options: Any
) -> None:
    answer = student.start(options)
    assert answer.status_code == 400, answer.text
    message = answer.json()["message"]
    assert len(message.split()) > 3
    assert "Traceback" not in message
    assert len(message) < 600
    assert not hub.leases()


@pytest.fixture(scope="module")
def student(hub: EmbeddedHub) -> Visitor:
    return Visitor(hub, "student")


def test_a_size_beyond_the_persons_cap_is_refused_with_403_and_the_reason(
    hub: EmbeddedHub, student: Visitor
) -> None:
    answer = student.start({"profile": "h200-4"})
    assert answer.status_code == 403
    assert "2" in answer.json()["message"]
    assert "H200" in answer.json()["message"]
    page = student.submit_form("h200-4")
    assert page.status_code == 403
    assert "Traceback" not in page.text
    assert "H200" in text_of(page.text)


def test_another_persons_pool_is_refused_with_403_and_tells_nothing_of_it(student: Visitor) -> None:
    answer = student.start({"profile": "h200", "pool": "city-traffic"})
    assert answer.status_code == 403
    made_up = student.start({"profile": "h200", "pool": "no-such-pool"})
    assert made_up.status_code == 403
    assert "city-traffic" not in made_up.text


def test_fifty_refusals_in_a_row_leave_the_hub_running(hub: EmbeddedHub, student: Visitor) -> None:
    pid = hub.child("hub").pid
    answers = {student.start({"profile": "h200-4"}, f"n{i}").status_code for i in range(25)}
    answers |= {student.start({"profile": "nothing"}, f"n{i}").status_code for i in range(25)}
    assert answers == {403, 400}
    assert hub.child("hub").pid == pid
    assert student.http.get("/hub/home").status_code == 200


def test_a_get_with_options_starts_by_the_same_gate(hub: EmbeddedHub, student: Visitor) -> None:
    page = student.http.get("/hub/spawn", params={"opt-profile": "h200-4"})
    assert page.status_code == 403
    assert not hub.leases()


def test_a_user_in_no_pool_is_refused_with_the_reason(hub: EmbeddedHub) -> None:
    operator = Visitor(hub, "operator")
    assert operator.api("POST", "/users/stranger").status_code == 201
    answer = operator.api("POST", "/users/stranger/server", json={"profile": "cpu-small"})
    assert answer.status_code == 403, answer.text
    assert not hub.leases()
