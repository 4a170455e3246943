"""The policy document: every fault with its line and what to write instead, and what is read is what is written."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given

from hub_ext.core.errors import FaultyDocument
from hub_ext.quota.document import dump_policy, load_policy, mapping_document, parse_policy, policy_of
from hub_ext.quota.model import Budget, Period, Quota, Session, SessionTimes, Term
from tests.support.cities import policy_documents

SOUND = """\
version: 1
timezone: Asia/Seoul
gpu_classes:
  h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}
rates: {guaranteed: "1", borrowed: "0.5"}
queue: {patience: 15m, starts: 64}
pools:
  seoul:
    quota: {gpu.h200: {nominal: 1}}
  univ:
    parent: seoul
    weight: 1
    quota:
      gpu.h200: {nominal: 4, borrow: 2, lend: 3}
      cpu: {nominal: 64}
    person: {gpu.h200: 2, servers: 2}
    budgets:
      - {hours: 100, period: month, soft: 0.8, carry: 20}
      - {hours: 100, from: 2027-03-02, to: 2027-06-30}
    session: {min: 15m, max: 12h}
"""

FAULTS = [
    # (what is changed in the sound document, the line, what is wrong, what to write instead)
    pytest.param("version: 1", "version: 2", 1, "version", "", id="another version"),
    pytest.param("version: 1\n", "", 1, "version is missing", "Add 'version'", id="no version"),
    pytest.param("timezone: Asia/Seoul", "timezone: Asia/Soul", 2, "'Asia/Soul' is not a time zone", "example Asia/Seoul", id="a zone nobody knows"),
    pytest.param("timezone: Asia/Seoul", "timezone: ../etc/passwd", 2, "is not a time zone", "example Asia/Seoul", id="a zone that is a path"),
    pytest.param("timezone:", "timezon:", 2, "timezon is not a known setting", "Did you mean 'timezone'?", id="an unknown key on top"),
    pytest.param("    weight: 1", "    wait: 1", 12, "pools.univ.wait is not a known setting", "Did you mean 'weight'?", id="an unknown key in a pool"),
    pytest.param("lend: 3}", "lent: 3}", 14, "pools.univ.quota.gpu.h200.lent is not a known setting", "Did you mean 'lend'?", id="an unknown key in a quota"),
    pytest.param("carry: 20}", "carries: 20}", 18, "pools.univ.budgets.0.carries is not a known setting", "Did you mean 'carry'?", id="an unknown key in a budget"),
    pytest.param("starts: 64", "starters: 64", 6, "queue.starters is not a known setting", "Did you mean 'starts'?", id="an unknown key in the queue"),
    pytest.param("parent: seoul", "parent: soul", 11, "there is no pool 'soul'", "Use one of: seoul.", id="a parent that is not there"),
    pytest.param("parent: seoul", "parent: univ", 11, "the pools go round in a circle (univ -> univ)", "another parent", id="a pool above itself"),
    pytest.param("  seoul:\n", "  seoul:\n    parent: univ\n", 9, "the pools go round in a circle (seoul -> univ -> seoul)", "another parent", id="two pools above each other"),
    pytest.param("nominal: 4,", "nominal: -4,", 14, "-4 is not an amount", "Write for example 2, 0.5, 500m or 64Gi", id="a negative quota"),
    pytest.param("borrow: 2", "borrow: -1m", 14, "pools.univ.quota.gpu.h200.borrow: '-1m' is not an amount", "never below zero", id="a negative limit"),
    pytest.param("nominal: 4,", "nominal: true,", 14, "True is not an amount", "Write for example 2", id="yes is not an amount"),
    pytest.param("nominal: 4,", "nominal: many,", 14, "'many' is not an amount", "Write for example 2", id="a word is not an amount"),
    pytest.param("nominal: 4,", "nominal: .nan,", 14, "nan is not an amount", "Write for example 2", id="not a number"),
    pytest.param("nominal: 4,", "nominal: .inf,", 14, "inf is not an amount", "Write for example 2", id="endless"),
    pytest.param("nominal: 4,", "nominal: 1e30,", 14, "'1e30' of gpu.h200 is more than any centre has", "Check the unit", id="too many"),
    pytest.param("cpu: {nominal: 64}", "cpus: {nominal: 64}", 15, "'cpus' is not a resource of this policy", "Use one of gpu.h200, cpu, memory.", id="an unknown resource"),
    pytest.param("cpu: {nominal: 64}", "gpu.b300: {nominal: 64}", 15, "'gpu.b300' is not a resource of this policy", "or add the class to gpu_classes.", id="an unknown GPU class"),
    pytest.param("{gpu.h200: {nominal: 1}}", "{gpu.h200: {nominal: 1, borrow: 2}}", 9, "a root has nobody to borrow from", "Remove borrow.", id="a root that borrows"),
    pytest.param("{gpu.h200: {nominal: 1}}", "{gpu.h200: {nominal: 1, lend: 0}}", 9, "a root has nobody to lend to", "Remove lend.", id="a root that lends"),
    pytest.param("servers: 2}", "servers: 0.5}", 16, "0.5 is not a count", "Write a whole number from 0.", id="half a server"),
    pytest.param("servers: 2}", "servers: true}", 16, "True is not an amount", "Write for example 2", id="yes is not a count"),
    pytest.param("servers: 2}", "servers: -1}", 16, "-1 is not a count", "Write a whole number from 0.", id="fewer than no servers"),
    pytest.param("servers: 2}", "server: 2}", 16, "'server' is not a resource of this policy", "servers, dask-workers", id="a cap nobody knows"),
    pytest.param("{hours: 100, period: month, soft: 0.8, carry: 20}", "{hours: 100}", 18, "has no period", "Add period: day, week, month, quarter or year", id="a budget without a period"),
    pytest.param("from: 2027-03-02, to: 2027-06-30", "from: 2027-03-02", 19, "has no period", "both from: and to:", id="half of a term"),
    pytest.param("from: 2027-03-02, to: 2027-06-30", "period: week, from: 2027-03-02, to: 2027-06-30", 19, "has a period and dates", "Keep either", id="a period and a term"),
    pytest.param("to: 2027-06-30", "to: 2027-03-01", 19, "ends before it begins", "Swap from and to", id="a term that ends before it begins"),
    pytest.param("to: 2027-06-30", "to: 2027-06-31", 19, "a value cannot be read", "quoted text", id="a day that there is not"),
    pytest.param("to: 2027-06-30", "to: '2027-06-31'", 19, "'2027-06-31' is not a date", "Write for example 2027-03-02", id="a text with a day that there is not"),
    pytest.param("to: 2027-06-30", "to: 2027-06-30T12:00:00", 19, "is not a date", "without a time", id="a term that ends at noon"),
    pytest.param("to: 2027-06-30", "to: 9999-12-31", 19, "9999-12-31 is out of range", "Write a date from 1970 to 2999", id="a term without an end"),
    pytest.param("to: 2027-06-30}", "to: 2027-06-30, carry: 5}", 19, "a term has nothing to carry into", "Remove carry", id="a term that carries over"),
    pytest.param("period: month,", "period: fortnight,", 18, "input should be 'day', 'week', 'month', 'quarter' or 'year'", "Found 'fortnight'", id="a period nobody knows"),
    pytest.param("{hours: 100, from: 2027-03-02, to: 2027-06-30}", "{hours: 5, period: month}", 19, "a second budget for the same period", "Keep one of the two.", id="two budgets of a month"),
    pytest.param("hours: 100, period: month", "hours: -1, period: month", 18, "-1 is not possible here", "Write a number from 0", id="fewer than no hours"),
    pytest.param("hours: 100, period: month", "hours: many, period: month", 18, "'many' is not a number", "Write for example 2, 0.5", id="hours in words"),
    pytest.param("hours: 100, period: month", "hours: .nan, period: month", 18, "nan is not possible here", "Write a number", id="hours that are not a number"),
    pytest.param("hours: 100, period: month", "hours: true, period: month", 18, "True is not a number", "Write for example 2", id="yes is not hours"),
    pytest.param("hours: 100, period: month", "hours: 1e10, period: month", 18, "is not possible here", "to a thousand million", id="more hours than there are"),
    pytest.param("hours: 100, period: month", "hours: '0.0000001', period: month", 18, "is too fine", "Use at most 6 decimals", id="hours too fine to count"),
    pytest.param("soft: 0.8", "soft: 80", 18, "80 is more than all of it", "a part of 1 such as 0.8", id="a soft limit in percent"),
    pytest.param('borrowed: "0.5"', 'borrowed: "0.0005"', 5, "is too fine", "Use at most 3 decimals", id="a rate too fine"),
    pytest.param('borrowed: "0.5"', 'borrowed: "-0.5"', 5, "is not possible here", "a number from 0", id="a negative rate"),
    pytest.param("    weight: 1", "    weight: -1", 12, "-1 is not possible here", "a number from 0", id="a negative weight"),
    pytest.param("patience: 15m", "patience: 15", 6, "15 is not a duration", "Write for example 90s, 15m", id="a duration without a unit"),
    pytest.param("patience: 15m", "patience: -15m", 6, "'-15m' is not a duration", "Write for example 90s, 15m", id="a negative duration"),
    pytest.param("max: 12h", "max: 6000w", 20, "'6000w' is longer than a hundred years", "Check the unit", id="a session without an end"),
    pytest.param("patience: 15m", "half_life: 0s", 6, "past use would not count", "Write for example 7d", id="a half-life of nothing"),
    pytest.param("patience: 15m", "half_life: null", 6, "past use would not count", "Write for example 7d", id="no half-life"),
    pytest.param("starts: 64", "starts: -1", 6, "queue.starts: input should be greater than or equal to 0", "Found -1", id="fewer than no starts"),
    pytest.param("min: 15m, max: 12h", "min: 13h, max: 12h", 20, "min 13h and max 12h do not fit", "Write 0 < min <= max.", id="a least above the most"),
    pytest.param("min: 15m, max: 12h", "min: 13h", 20, "min 13h and max 12h do not fit (with what is inherited)", "Write 0 < min <= max.", id="a least above the most that is inherited"),
    pytest.param("min: 15m,", "min: 0s,", 20, "min 0s and max 12h do not fit", "Write 0 < min <= max.", id="a least of nothing"),
    pytest.param("  univ:\n", "  한강:\n", 10, "한강: string should match pattern", "Found '한강'", id="a name with other letters (the title is for people)"),
    pytest.param("  univ:\n", "  -univ:\n", 10, "string should match pattern", "Found '-univ'", id="a name that begins with a hyphen"),
    pytest.param("memory: 141Gi", "memory: 141GB", 4, "'141GB' is not an amount", "500m or 64Gi", id="a unit nobody knows"),
    pytest.param("resource: nvidia.com/gpu, ", "", 4, "gpu_classes.h200.resource is missing", "Add 'resource'.", id="a class without its resource"),
    pytest.param("    weight: 1\n", "    weight: 1\n    weight: 2\n", 13, "'weight' stands here twice", "Keep one of the two.", id="a key that stands twice"),
    pytest.param("quota: {gpu.h200: {nominal: 1}}", "quota: &q {gpu.h200: {nominal: 1}}\n  x: {quota: *q}", 10, "aliases (*name) are not supported", "Mend the syntax here.", id="an alias"),
    pytest.param("    weight: 1", "    weight: !!python/object:os.system 1", 12, "tags (!name) are not supported", "Mend the syntax", id="a tag"),
    pytest.param("    weight: 1", "    weight: [1", 13, "this is not YAML", "Mend the syntax", id="a bracket that is left open"),
    pytest.param("    weight: 1", "\tweight: 1", 12, "this is not YAML", "Mend the syntax", id="a tab"),
    pytest.param(SOUND, "", 1, "the document", "", id="an empty file"),
    pytest.param(SOUND, "- a\n- b\n", 1, "the document", "Found ['a', 'b']", id="a list"),
    pytest.param("pools:\n", "pools: {}\nold:\n", 7, "pools", "", id="no pools"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "what", "instead"), FAULTS)
def test_fault(old: str, new: str, line: int, what: str, instead: str) -> None:
    assert old in SOUND
    with pytest.raises(FaultyDocument) as told:
        parse_policy(SOUND.replace(old, new, 1), "policy/pools.yaml")
    found = [fault for fault in told.value.faults if what in fault.what and instead in fault.instead]
    assert found, told.value
    assert found[0].line == line, told.value
    assert str(found[0]).startswith(f"policy/pools.yaml:{line}: ")
    assert "\n" not in str(found[0])


def test_the_sound_one_is_sound() -> None:
    parse_policy(SOUND)


def test_all_faults_are_told_at_once() -> None:
    text = (
        SOUND.replace("parent: seoul", "parent: soul")
        .replace("weight: 1", "weight: -1")
        .replace("soft: 0.8", "soft: 8")
    )
    with pytest.raises(FaultyDocument) as told:
        parse_policy(text)
    assert [fault.line for fault in told.value.faults] == [12, 18]
    with pytest.raises(FaultyDocument) as told:
        parse_policy(
            SOUND.replace("nominal: 4,", "nominal: x,")
            .replace("cpu:", "tpu:")
            .replace("servers: 2", "servers: x")
        )
    assert sorted(fault.line for fault in told.value.faults) == [14, 15, 16]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(FaultyDocument, match=what):
            load_policy(path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00version: 1")
    with pytest.raises(FaultyDocument, match="not UTF-8"):
        load_policy(binary)


def test_everything_is_read() -> None:
    policy = parse_policy(SOUND)
    univ = policy.pools["univ"]
    assert univ.quota == {"gpu.h200": Quota(4000, 2000, 3000), "cpu": Quota(64_000)}
    assert univ.person == {"gpu.h200": 2000, "servers": 2}
    assert univ.budgets == (
        Budget(Decimal(100), Period.MONTH, Decimal("0.8"), Decimal(20)),
        Budget(Decimal(100), Term(date(2027, 3, 2), date(2027, 6, 30))),
    )
    assert univ.session == Session(min=900, max=43200)
    assert policy.gpu_classes["h200"].memory == 141 * 1024
    assert policy.timezone == ZoneInfo("Asia/Seoul")


def test_what_is_not_stated_is_the_default() -> None:
    policy = parse_policy("{version: 1, pools: {p: {}}}")
    assert policy.timezone.key == "Asia/Seoul"
    assert (policy.rates.guaranteed, policy.rates.borrowed, policy.rates.reservation) == (
        1,
        Decimal("0.5"),
        1,
    )
    assert (policy.queue.patience, policy.queue.claim, policy.queue.half_life, policy.queue.starts) == (
        900,
        600,
        604800,
        64,
    )
    assert policy.session("p") == SessionTimes(900, 43200, 1800, 600, 1800)
    assert policy.pools["p"].weight == 1


def test_quotas_are_rounded_down() -> None:
    policy = parse_policy(
        "{version: 1, pools: {p: {quota: {memory: {nominal: 1500000000}, cpu: {nominal: '0.0019'}}, person: {cpu: 1.9999}}}}"
    )
    assert (policy.nominal("p", "memory"), policy.nominal("p", "cpu"), policy.pools["p"].person["cpu"]) == (
        1430,
        1,
        1999,
    )


def test_a_weight_may_be_fine() -> None:
    assert parse_policy("{version: 1, pools: {p: {weight: 0.00025}}}").pools["p"].weight == Decimal("0.00025")


@given(policy_documents())
def test_what_is_written_is_read_back(document: dict[str, object]) -> None:
    policy = policy_of(mapping_document(document, "policy"))
    written = yaml.safe_dump(dump_policy(policy), sort_keys=False)
    assert parse_policy(written) == policy
    assert dump_policy(parse_policy(written)) == dump_policy(policy)


def test_the_policy_that_comes_along_is_sound() -> None:
    policy = load_policy(Path(__file__).parents[2] / "policy" / "pools.yaml")
    assert parse_policy(yaml.safe_dump(dump_policy(policy), sort_keys=False)) == policy
