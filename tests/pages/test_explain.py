"""Codes and facts in words: every code, in both languages, with and without what may be missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.core.amounts import MILLI
from hub_ext.core.clock import DAY, HOUR, at
from hub_ext.core.decision import Code
from hub_ext.language import LANGUAGES, Language
from hub_ext.quota.codes import CODES, ENDS, TICKET_ENDS, Ended, TicketEnd, codes_document
from hub_ext.quota.explain import (
    Explanation,
    explain,
    explain_borrowed,
    explain_cut,
    explain_in_line,
    explain_release,
    explain_ticket_end,
)
from tests.pages.made_up import HOSTILE, NOW, SEOUL, TITLES, speaker

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "codes.md"


def time(seconds: int) -> object:
    return at(NOW + seconds, SEOUL)


UNIV = {"pool": "hangang-univ"}
BUDGET = {
    "kind": "budget",
    "pool": "hangang-univ",
    "period": "month",
    "budget_person": None,
    "limit": 2000 * 3600,
    "used": 1999.95 * 3600,
    "committed": 0,
    "left": 180,
    "needed": 900,
    "until": time(20 * DAY),
    "renews": time(20 * DAY),
}

CASES: dict[str, tuple[Code, dict[str, Any], str, str]] = {
    "not a member": (
        Code.NOT_A_MEMBER,
        {"person": "student", "pool": "hangang-vision", "pools": ["hangang-univ"]},
        "You are not a member of Vision lab. Choose one of your own: Hangang University.",
        "비전 연구실에 소속되어 있지 않습니다. 소속된 곳 중에서 선택해 주세요: 한강대학교.",
    ),
    "a member of nothing": (
        Code.NOT_A_MEMBER,
        {"person": "guest", "pool": "nowhere", "pools": []},
        "You are not a member of nowhere. Ask the lead of nowhere to add you. If that was just done, sign out and in again.",
        "nowhere에 소속되어 있지 않습니다. nowhere의 담당자에게 등록을 요청해 주세요. 방금 등록되었다면 로그아웃한 뒤 다시 로그인해 주세요.",
    ),
    "profile not allowed": (
        Code.PROFILE_NOT_ALLOWED,
        {"person": "student", **UNIV, "profile": "h200-4"},
        "This server is not offered to you: h200-4. Choose another server, or ask the lead of Hangang University for access.",
        "제공 대상이 아닌 서버입니다: h200-4. 다른 서버를 선택하거나, 한강대학교의 담당자에게 사용 권한을 요청해 주세요.",
    ),
    "too big for the pool": (
        Code.TOO_BIG_FOR_POOL,
        {**UNIV, "resource": "gpu.h200", "asked": 16 * MILLI, "potential": 8 * MILLI},
        "Hangang University can never have that much at once (needed: 16 × H200, at most: 8 × H200). "
        "Choose a smaller size, or ask the lead of Hangang University for a larger share.",
        "한강대학교에서 한 번에 쓸 수 있는 양을 넘습니다 (필요: H200 16개, 최대: H200 8개). "
        "더 작은 크기를 선택하거나, 한강대학교의 담당자에게 배정량을 늘려 달라고 요청해 주세요.",
    ),
    "the pool has none at all": (
        Code.TOO_BIG_FOR_POOL,
        {**UNIV, "resource": "gpu.h200-1g", "asked": MILLI, "potential": 0},
        "Hangang University has no share of this: 1/7 H200 (18 GB). "
        "Choose a smaller size, or ask the lead of Hangang University for a larger share.",
        "한강대학교에는 이 자원이 배정되어 있지 않습니다: H200 1/7 (18 GB). "
        "더 작은 크기를 선택하거나, 한강대학교의 담당자에게 배정량을 늘려 달라고 요청해 주세요.",
    ),
    "too big for a person": (
        Code.TOO_BIG_FOR_PERSON,
        {"person": "student", **UNIV, "key": "gpu.h200", "asked": 4 * MILLI, "cap": 2 * MILLI},
        "Your limit in Hangang University is 2 × H200; this needs 4 × H200. "
        "Choose a smaller size, or ask the lead of Hangang University to raise your limit.",
        "한강대학교의 1인 한도를 넘습니다 (필요: H200 4개, 한도: H200 2개). "
        "더 작은 크기를 선택하거나, 한강대학교의 담당자에게 한도를 높여 달라고 요청해 주세요.",
    ),
    "too big for any node": (
        Code.TOO_BIG_FOR_ANY_NODE,
        {"asked": {"gpu.h200": 16 * MILLI}, "largest": {"gpu.h200": 8 * MILLI}, "resource": "gpu.h200"},
        "No single machine here is that large (needed: 16 × H200, at most: 8 × H200). Choose a smaller size.",
        "이만큼 큰 장비가 없습니다 (필요: H200 16개, 최대: H200 8개). 더 작은 크기를 선택해 주세요.",
    ),
    "no node has any": (
        Code.TOO_BIG_FOR_ANY_NODE,
        {"asked": {"gpu.h200": MILLI}, "largest": {"gpu.h200": 0}, "resource": "gpu.h200"},
        "No machine here has this: H200. Choose a smaller size.",
        "이 자원을 갖춘 장비가 없습니다: H200. 더 작은 크기를 선택해 주세요.",
    ),
    "no one node has all of it": (
        Code.TOO_BIG_FOR_ANY_NODE,
        {
            "asked": {"gpu.h200": MILLI, "cpu": 64 * MILLI},
            "largest": {"gpu.h200": MILLI, "cpu": 64 * MILLI},
            "resource": None,
        },
        "No single machine here has all of this at once: 1 × H200 · 64 CPU. Choose a smaller size.",
        "다음을 모두 갖춘 장비가 없습니다: H200 1개 · CPU 64개. 더 작은 크기를 선택해 주세요.",
    ),
    "at the cap of GPUs": (
        Code.PERSON_AT_CAP,
        {
            "person": "student",
            **UNIV,
            "key": "gpu.h200",
            "asked": MILLI,
            "held": 2 * MILLI,
            "cap": 2 * MILLI,
            "leases": ["l1", "l2"],
            "servers": ["", "evaluation"],
            "first_end": time(HOUR),
        },
        "Your limit in Hangang University is 2 × H200; you already use 2 × H200, and this needs 1 × H200. "
        "Stop one of your own first: your default server, evaluation. The first of them ends: 10:00.",
        "한강대학교의 1인 한도를 넘게 됩니다 (사용 중: H200 2개, 추가로 필요: H200 1개, 한도: H200 2개). "
        "사용 중인 서버를 먼저 종료해 주세요: 기본 서버, evaluation. 가장 먼저 끝나는 시각: 10:00.",
    ),
    "at the cap of servers": (
        Code.PERSON_AT_CAP,
        {
            "person": "student",
            **UNIV,
            "key": "servers",
            "asked": 1,
            "held": 2,
            "cap": 2,
            "leases": [],
            "servers": [],
        },
        "Your limit in Hangang University is 2 servers; you already use 2 servers, and this needs 1 server. "
        "Stop one of your servers first.",
        "한강대학교의 1인 한도를 넘게 됩니다 (사용 중: 서버 2대, 추가로 필요: 서버 1대, 한도: 서버 2대). "
        "사용 중인 서버를 먼저 종료해 주세요.",
    ),
    "at the cap of workers": (
        Code.PERSON_AT_CAP,
        {"person": "student", **UNIV, "key": "dask-workers", "asked": 1, "held": 8, "cap": 8},
        "Your limit in Hangang University is 8 Dask workers; you already use 8 Dask workers, and this needs 1 Dask worker. "
        "Make one of your Dask clusters smaller first.",
        "한강대학교의 1인 한도를 넘게 됩니다 (사용 중: Dask 워커 8개, 추가로 필요: Dask 워커 1개, 한도: Dask 워커 8개). "
        "먼저 사용 중인 Dask 클러스터의 크기를 줄여 주세요.",
    ),
    "the pool's hours are spent": (
        Code.BUDGET_SPENT,
        BUDGET,
        "The GPU-hours of Hangang University for this month are used up (1,999.9 of 2,000). "
        "New hours come from Mon 22 Mar 09:00 on. "
        "For more hours, ask the lead of Hangang University. A server without a GPU takes none.",
        "한강대학교의 이번 달 GPU시간이 모두 소진되었습니다 (2,000 중 1,999.9). 새 GPU시간은 3월 22일(월) 09:00부터 쓸 수 있습니다. "
        "시간이 더 필요하면 한강대학교의 담당자에게 요청해 주세요. GPU가 없는 서버는 GPU시간을 쓰지 않습니다.",
    ),
    "my own hours are spent": (
        Code.BUDGET_SPENT,
        {
            **BUDGET,
            "period": "week",
            "budget_person": "student",
            "limit": 60 * 3600,
            "used": 60 * 3600,
            "left": 0,
            "renews": time(6 * DAY),
        },
        "Your GPU-hours in Hangang University for this week are used up (60 of 60). New hours come from Mon 8 Mar 09:00 on. "
        "For more hours, ask the lead of Hangang University. A server without a GPU takes none.",
        "한강대학교에서 받은 이번 주 GPU시간을 모두 썼습니다 (60 중 60). 새 GPU시간은 3월 8일(월) 09:00부터 쓸 수 있습니다. "
        "시간이 더 필요하면 한강대학교의 담당자에게 요청해 주세요. GPU가 없는 서버는 GPU시간을 쓰지 않습니다.",
    ),
    "before the first term": (
        Code.BUDGET_SPENT,
        {
            **BUDGET,
            "period": "2027-04-01/2027-06-30",
            "limit": 0,
            "used": 0,
            "left": 0,
            "needed": None,
            "until": None,
            "renews": time(30 * DAY),
        },
        "Hangang University has GPU-hours in its terms only, and the next one has not begun. "
        "New hours come from Thu 1 Apr 09:00 on. "
        "For more hours, ask the lead of Hangang University. A server without a GPU takes none.",
        "한강대학교에서는 운영 기간에만 GPU시간을 쓸 수 있으며, 다음 기간은 아직 시작되지 않았습니다. "
        "새 GPU시간은 4월 1일(목) 09:00부터 쓸 수 있습니다. "
        "시간이 더 필요하면 한강대학교의 담당자에게 요청해 주세요. GPU가 없는 서버는 GPU시간을 쓰지 않습니다.",
    ),
    "after the last term": (
        Code.BUDGET_SPENT,
        {
            **BUDGET,
            "period": "2026-04-01/2026-06-30",
            "limit": 0,
            "used": 0,
            "left": 0,
            "needed": None,
            "until": None,
            "renews": None,
        },
        "Hangang University has GPU-hours in its terms only, and the last one is over. "
        "For more hours, ask the lead of Hangang University. A server without a GPU takes none.",
        "한강대학교에서는 운영 기간에만 GPU시간을 쓸 수 있으며, 마지막 기간이 끝났습니다. "
        "시간이 더 필요하면 한강대학교의 담당자에게 요청해 주세요. GPU가 없는 서버는 GPU시간을 쓰지 않습니다.",
    ),
    "the pool's hours are set aside": (
        Code.BUDGET_SHORT,
        {**BUDGET, "used": 0, "committed": 2000 * 3600, "left": 0},
        "What is left of the GPU-hours of Hangang University for this month is set aside for servers that run now. "
        "Try again when one of them has ended. New hours come from Mon 22 Mar 09:00 on.",
        "한강대학교의 이번 달 GPU시간 중 남은 시간은 지금 실행 중인 서버의 몫으로 잡혀 있습니다. "
        "그중 하나가 끝난 뒤 다시 시도해 주세요. 새 GPU시간은 3월 22일(월) 09:00부터 쓸 수 있습니다.",
    ),
    "my own hours are set aside": (
        Code.BUDGET_SHORT,
        {**BUDGET, "period": "day", "budget_person": "student", "renews": None},
        "What is left of your GPU-hours in Hangang University for today is set aside for servers you run now. "
        "Stop one that you do not need: what it has not used is free at once.",
        "한강대학교에서 받은 오늘 GPU시간 중 남은 시간은 지금 실행 중인 본인 서버의 몫으로 잡혀 있습니다. "
        "필요 없는 서버를 종료하면 쓰지 않은 시간이 바로 돌아옵니다.",
    ),
    "reserved soon": (
        Code.RESERVED_SOON,
        {**UNIV, "resource": "gpu.h200", "starts": time(600), "ends": time(2 * HOUR)},
        "This place is reserved from 09:10 on, too soon to start before it. It is free again from 11:00 on. "
        "Choose a smaller size, or try again later.",
        "09:10부터 예약된 자리라서, 그 전에 시작하기에는 시간이 부족합니다. 11:00부터 다시 쓸 수 있습니다. "
        "더 작은 크기를 선택하거나, 나중에 다시 시도해 주세요.",
    ),
    "one's own reservation has yet to begin": (
        Code.RESERVED_SOON,
        {
            **UNIV,
            "resource": None,
            "starts": time(600),
            "ends": time(2 * HOUR),
            "reservation": "w1",
            "reserved_for": "hangang-univ",
            "inside": True,
        },
        "Hangang University has this reserved from 09:10 until 11:00; your place in it is for that time. "
        "Outside it, start a server without the reservation.",
        "한강대학교의 예약 시간은 09:10부터 11:00까지이며, 예약된 자리는 그 시간에만 쓸 수 있습니다. "
        "그 밖의 시간에는 예약 없이 서버를 시작해 주세요.",
    ),
    "some is free, but not enough": (
        Code.POOL_FULL,
        {
            **UNIV,
            "short_at": "seoul",
            "resource": "gpu.h200",
            "asked": 4 * MILLI,
            "available": MILLI,
            "first_end": time(5 * HOUR),
        },
        "Not enough is free at Seoul Hangang AI now (needed: 4 × H200, free for Hangang University: 1 × H200). "
        "The first server that uses it ends: 14:00. Choose a smaller size, or try again later.",
        "지금 서울 한강 AI의 빈자리가 부족합니다 (필요: H200 4개, 한강대학교에서 쓸 수 있는 양: H200 1개). "
        "이 자원을 쓰는 서버가 처음 끝나는 시각: 14:00. 더 작은 크기를 선택하거나, 나중에 다시 시도해 주세요.",
    ),
    "less than nothing is free after a cut": (
        Code.POOL_FULL,
        {
            **UNIV,
            "short_at": "hangang-univ",
            "resource": "gpu.h200",
            "asked": MILLI,
            "available": -2 * MILLI,
            "first_end": None,
        },
        "Nothing of this is free at Hangang University now: H200. Choose a smaller size, or try again later.",
        "지금 한강대학교에 빈자리가 없습니다: H200. 더 작은 크기를 선택하거나, 나중에 다시 시도해 주세요.",
    ),
    "no node has the room": (
        Code.NO_NODE_FREE,
        {
            **UNIV,
            "asked": {"gpu.h200": 4 * MILLI, "cpu": 64 * MILLI},
            "nodes": 3,
            "first_end": time(15 * HOUR),
        },
        "Within the quota, but no single machine has this much free now: 4 × H200 · 64 CPU. "
        "The first server that uses it ends: tomorrow 00:00. Choose a smaller size, or try again later.",
        "할당량 안이지만, 지금 이만큼 비어 있는 장비가 없습니다: H200 4개 · CPU 64개. "
        "이 자원을 쓰는 서버가 처음 끝나는 시각: 내일 00:00. 더 작은 크기를 선택하거나, 나중에 다시 시도해 주세요.",
    ),
    "many starts": (
        Code.STARTS_BUSY,
        {**UNIV, "starts": 64, "limit": 64},
        "Many servers are being started now (64), as many as may be at one time. Try again in a minute.",
        "지금 시작 중인 서버가 많습니다 (64대, 동시에 시작할 수 있는 최대치). 1분 뒤에 다시 시도해 주세요.",
    ),
    "others came first": (
        Code.OTHERS_WAITING,
        UNIV,
        "Others who came first are waiting for this. Choose a smaller size, or try again later.",
        "먼저 신청한 사람이 이 자리를 기다리고 있습니다. 더 작은 크기를 선택하거나, 나중에 다시 시도해 주세요.",
    ),
    "the cluster is over": (
        Code.CLUSTER_OVER,
        {**UNIV, "cluster": "c1"},
        "The cluster has ended, or is being ended: it gets no more workers. Start a new one.",
        "클러스터가 끝났거나 끝나는 중이라, 워커를 더 받을 수 없습니다. 새 클러스터를 시작해 주세요.",
    ),
}


@pytest.mark.parametrize(("code", "facts", "english", "korean"), CASES.values(), ids=CASES.keys())
def test_the_sentence_says_what_to_what_and_what_next(
    code: Code, facts: dict[str, Any], english: str, korean: str
) -> None:
    assert str(explain(code, facts, speaker("en"), titles=TITLES, now=NOW)) == english
    assert str(explain(code, facts, speaker("ko"), titles=TITLES, now=NOW)) == korean


def test_every_code_has_a_case_and_every_case_brings_all_facts_that_must_be_there() -> None:
    assert {code for code, *_ in CASES.values()} == set(Code)
    for code, facts, *_ in CASES.values():
        must = {name for name, fact in CODES[code].facts.items() if not fact.optional}
        assert must <= facts.keys() <= CODES[code].facts.keys() | {"kind"}, code


def fit_to_read(text: str) -> bool:
    """No raw resource name, no hole where a value was missing."""
    return bool(text.strip()) and not re.search(r"gpu\.|None|\{\w*\}|milli|dask-workers", text)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("code", "facts", "english", "korean"), CASES.values(), ids=CASES.keys())
def test_facts_that_may_be_missing_are_not_missed(
    language: Language, code: Code, facts: dict[str, Any], english: str, korean: str
) -> None:
    entry, say = CODES[code], speaker(language)
    only_what_must_be = {
        name: value for name, value in facts.items() if name in entry.facts and not entry.facts[name].optional
    }
    nulls = {name: facts.get(name) if not fact.optional else None for name, fact in entry.facts.items()}
    for some in ({}, only_what_must_be, nulls):
        told = explain(code, some, say)
        assert fit_to_read(told.sentence), (some, told)
        assert not told.next_step or fit_to_read(told.next_step)


@given(
    code=st.sampled_from(list(Code)),
    language=st.sampled_from(LANGUAGES),
    dropped=st.sets(st.sampled_from(sorted({name for entry in CODES.values() for name in entry.facts}))),
)
def test_whatever_is_missing_something_is_said(code: Code, language: Language, dropped: set[str]) -> None:
    facts = next(facts for other, facts, *_ in CASES.values() if other is code)
    rest = {name: value for name, value in facts.items() if name not in dropped}
    assert fit_to_read(explain(code, rest, speaker(language), titles=TITLES, now=NOW).sentence)


def test_a_name_is_only_ever_put_in_never_read_as_a_template() -> None:
    told = explain(Code.NOT_A_MEMBER, {"person": "x", "pool": HOSTILE, "pools": [HOSTILE]}, speaker("en"))
    assert told.sentence == f"You are not a member of {HOSTILE}."


def test_facts_read_the_same_after_they_went_through_json() -> None:
    code, facts, english, _ = CASES["some is free, but not enough"]
    assert (
        str(
            explain(
                code,
                {**facts, "first_end": facts["first_end"].isoformat()},
                speaker("en"),
                titles=TITLES,
                now=NOW,
            )
        )
        == english
    )


def test_an_earlier_end_is_explained() -> None:
    mine = {"kind": "budget", "pool": "hangang-univ", "period": "week", "budget_person": "student"}
    end = NOW + 3 * HOUR
    assert explain_cut(mine, end, speaker("en"), titles=TITLES, now=NOW) == (
        "Until 12:00, because your GPU-hours in Hangang University for this week are used up then."
    )
    assert explain_cut(
        mine | {"budget_person": None, "period": "month"}, end, speaker("ko"), titles=TITLES, now=NOW
    ) == ("12:00까지 쓸 수 있습니다. 그때 한강대학교의 이번 달 GPU시간이 모두 소진됩니다.")
    session = {"kind": "session", "pool": "hangang-univ"}
    assert explain_cut(session, end, speaker("en"), titles=TITLES, now=NOW) == (
        "Until 12:00: a server of Hangang University may run no longer at a time."
    )
    assert (
        explain_cut({"kind": "reservation", "inside": False}, end, speaker("en"), now=NOW)
        == "Until 12:00: from then on this place is reserved."
    )
    window = {"kind": "reservation", "inside": True, "pool": "hangang-univ"}
    assert (
        explain_cut(window, end, speaker("ko"), titles=TITLES, now=NOW)
        == "12:00까지 쓸 수 있습니다. 그때 한강대학교의 예약이 끝납니다."
    )
    assert (
        explain_cut({"kind": "comet"}, end, speaker("en"), now=NOW)
        == "Until 12:00, earlier than was asked for."
    )


def test_borrowing_says_that_it_may_be_taken_back() -> None:
    assert explain_borrowed("seoul", speaker("en"), notice=600, titles=TITLES) == (
        "Borrowed from Seoul Hangang AI: it may be taken back, 10 min after a notice."
    )
    assert (
        explain_borrowed(None, speaker("ko"))
        == "다른 곳에서 쓰지 않는 자원을 빌립니다. 미리 알린 뒤 회수될 수 있습니다."
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_end_of_a_server_has_its_own_words(language: Language) -> None:
    say = speaker(language)
    sentences = {reason: explain_release(reason, say).sentence for reason in Ended}
    assert set(ENDS) == set(Ended)
    assert all(fit_to_read(sentence) for sentence in sentences.values())
    together = {Ended.START_LOST: Ended.START_FAILED, Ended.ORPHAN: Ended.LOST}
    assert len(set(sentences.values())) == len(Ended) - len(together)
    assert explain_release(None, say).sentence
    assert explain_release(HOSTILE, say).sentence.endswith(HOSTILE), "an unknown reason is told as it stands"


def test_an_operators_reason_is_passed_on() -> None:
    told = explain_release(Ended.OPERATOR, speaker("ko"), why="점검")
    assert told.sentence == "운영자가 서버를 종료했습니다. 사유: 점검"


def test_the_table_of_codes_is_complete_and_its_page_is_current() -> None:
    assert set(CODES) == set(Code)
    assert REFERENCE.read_text(encoding="utf-8") == codes_document(), (
        "write it anew: python -c 'from hub_ext.quota.codes import codes_document; print(codes_document(), end=\"\")'"
        " > docs/reference/codes.md"
    )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_end_of_a_ticket_has_words_of_its_own(language: Language) -> None:
    say = speaker(language)
    assert set(TICKET_ENDS) == set(TicketEnd)
    told = {end: explain_ticket_end(end, say).sentence for end in TicketEnd}
    told[TicketEnd("left")] = explain_ticket_end("left", say).sentence  # as the ledger writes it
    assert len({*told.values(), explain_ticket_end("something new", say).sentence}) == len(TicketEnd) + 1


def test_who_is_in_line_is_not_told_to_try_again() -> None:
    waits = explain_in_line(Explanation("Nothing is free.", "Try again later."), speaker("en"))
    assert str(waits).startswith("Nothing is free. You are in line.")
    assert "again" not in str(waits)
