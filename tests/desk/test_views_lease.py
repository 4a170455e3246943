"""A lease as the API gives it: what its notice says, in words that are true while it says them."""

from dataclasses import replace
from typing import Any

import pytest

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.desk.views_lease import LeaseFacts, lease_body
from hub_ext.pages.words import speaker
from hub_ext.quota.document import parse_policy
from hub_ext.quota.model import Lease, LeaseState
from tests.desk.lively import POLICY, START

CENTRE = parse_policy(POLICY)
ENDING = Lease(
    id="l1",
    person="student",
    pool="univ",
    path=("univ", "seoul"),
    amounts={"gpu.h200": 1000, "cpu": 8000},
    kind="server",
    guaranteed=True,
    lender=None,
    cost=10**6,
    booked_at=START - HOUR,
    started_at=START - HOUR,
    ends_at=START + 10 * MINUTE,
    charged_until=START,
    state=LeaseState.RUNNING,
    noticed_at=START,
)
TAKEN = replace(ENDING, guaranteed=False, noticed_for="t9", ends_unless_taken=START + HOUR)


@pytest.mark.parametrize(
    ("lease", "facts", "want_why", "want"),
    [
        pytest.param(ENDING, {"notice_why": "ends-soon"}, "ends-soon", "let it run longer", id="its time"),
        pytest.param(ENDING, {"notice_why": "budget-spent"}, "budget-spent", "used up then", id="its hours"),
        pytest.param(
            ENDING,
            {"notice_why": "budget-spent", "longest": ENDING.ends_at + 5},
            "budget-spent",
            "used up then",
            id="its hours, but for what its start took",
        ),
        pytest.param(
            ENDING,
            {"notice_why": "budget-spent", "longest": ENDING.ends_at + HOUR},
            "ends-soon",
            "let it run longer",
            id="its hours, until more were granted",
        ),
        pytest.param(
            TAKEN, {"notice_why": "taken-back"}, "taken-back", "whoever it belongs to", id="taken back"
        ),
    ],
)
def test_a_notice_says_what_ends_it(lease: Lease, facts: dict[str, Any], want_why: str, want: str) -> None:
    made = LeaseFacts(lease, CENTRE, START, {}, **facts)
    notice = lease_body(made, speaker(CENTRE, "en")).notice
    assert notice is not None
    assert (notice.why, notice.at.timestamp()) == (want_why, lease.ends_at)
    assert want in notice.sentence
    in_korean = lease_body(made, speaker(CENTRE, "ko")).notice
    assert in_korean is not None
    assert in_korean.sentence != notice.sentence


def test_without_a_notice_nothing_is_said() -> None:
    quiet = replace(ENDING, noticed_at=None)
    assert lease_body(LeaseFacts(quiet, CENTRE, START, {}), speaker(CENTRE, "en")).notice is None
