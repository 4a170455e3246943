"""`hub-ext simulate` on anything: either JSON and exit 0, or a sentence on standard error and exit 2. Never a traceback."""

from __future__ import annotations

import json
import random
import string
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub_ext.cli import main
from tests.support.builders import policy_text
from tests.support.cities import scenarios

EXAMPLE = """\
now: 2027-03-02T09:00:00+09:00
policy:
  version: 1
  timezone: Asia/Seoul
  gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
  rates: {guaranteed: "1", borrowed: "0.5"}
  pools:
    seoul: {kind: centre, budgets: [{hours: 100, period: month, soft: 0.8, carry: 5}]}
    univ:
      parent: seoul
      weight: 2
      quota: {gpu.h200: {nominal: 4, borrow: 2, lend: 3}, memory: {nominal: 1Ti}}
      person: {gpu.h200: 2, servers: 2}
      budgets: [{hours: 10, period: week, each: person}, {hours: 50, from: 2027-03-01, to: 2027-06-30}]
      session: {min: 15m, max: 12h, grace: 10m}
people: [{name: student, pools: [univ], roles: [student], profiles: [small], recent_hours: {univ: 12}}]
nodes: [{name: n1, gpu.h200: 8, cpu: 128, memory: 2Ti}]
leases: [{id: l1, person: student, pool: univ, amounts: {gpu.h200: 1}, started: -2h, ends: +4h, node: n1, borrowed: false}]
used_hours: [{pool: seoul, hours: 90.5, period: month}]
events:
  - {at: +0m, ask: {id: a1, person: student, pool: univ, amounts: {gpu.h200: "500m", memory: 4Gi}, minutes: 120, profile: small, kind: server}}
  - {at: +5m, ask: {id: a2, person: student, pool: univ, amounts: {memory: 1}, count: 2, kind: dask-worker, shows_up: never}}
  - {at: +30m, release: l1}
  - {at: 2027-03-02T09:40:00+09:00, extend: {id: a1, minutes: 60}}
  - {at: +50m, cancel: a2}
  - {at: +55m, grant: {pool: seoul, hours: 50, until: +30d, why: deadline, period: month}}
  - {at: +58m, policy: {version: 1, gpu_classes: {h200: {resource: nvidia.com/gpu}}, pools: {univ: {quota: {gpu.h200: {nominal: 1}}}}}}
  - {at: +60m, tick: true}
"""


def simulate(path: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["simulate", str(path), "--json", *more])


def holds(result: Result) -> None:
    """What is promised for any file."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    if result.exit_code == 0:
        told = json.loads(result.stdout, parse_constant=pytest.fail)
        assert list(told) == ["decisions", "pools", "budgets"]
        assert result.stderr == ""
    else:
        assert result.exit_code == 2
        assert result.stdout == ""
        assert len(result.stderr.strip()) > 20
        assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulate")


def run_text(folder: Path, text: str | bytes) -> Result:
    path = folder / "scenario.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    result = simulate(path)
    holds(result)
    return result


def test_the_example_is_played(folder: Path) -> None:
    result = run_text(folder, EXAMPLE)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert [entry.get("verdict") or entry["change"] for entry in told["decisions"]] == [
        "admit",
        "admit",
        "extended",
    ]


def test_without_json_a_table_is_told(folder: Path) -> None:
    path = folder / "table.yaml"
    path.write_text(EXAMPLE)
    result = CliRunner().invoke(main, ["simulate", str(path)])
    assert result.exit_code == 0
    assert "a1" in result.output


# -- things that are no scenario -------------------------------------------------------------------------------------------

DEEP = 3000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("\n\n# only a comment\n", id="a comment"),
        pytest.param("null", id="null"),
        pytest.param("42", id="a number"),
        pytest.param("- a\n- b\n", id="a list"),
        pytest.param("just a text", id="a text"),
        pytest.param("---\na: 1\n---\nb: 2\n", id="two documents"),
        pytest.param(b"\x00\x01\x02\xff\xfe" * 50, id="bytes"),
        pytest.param(b"\xff\xfe" + "now: 1".encode("utf-16-le"), id="another encoding"),
        pytest.param("\ufeff" + EXAMPLE, id="a byte order mark"),
        pytest.param("now: \x07", id="a bell"),
        pytest.param("[" * DEEP, id="deep brackets, left open"),
        pytest.param("[" * DEEP + "]" * DEEP, id="deep brackets"),
        pytest.param("{a: " * DEEP + "1" + "}" * DEEP, id="deep braces"),
        pytest.param("- " * DEEP + "a", id="deep dashes"),
        pytest.param("\n".join(" " * i + "a:" for i in range(DEEP // 4)), id="deep indentation"),
        pytest.param("? [a, b]\n: c", id="a list as a name"),
        pytest.param("a: &a [1]\nb: [*a, *a]", id="aliases"),
        pytest.param("a: &a [*a]", id="an alias of itself"),
        pytest.param("<<: {now: 1}", id="a merge"),
        pytest.param("now: !!python/object/apply:os.system [echo]", id="a tag that would run something"),
        pytest.param("now: !!binary aGVsbG8=", id="a binary tag"),
        pytest.param("now: %s" % ("9" * 5000), id="a number of 5,000 digits"),
        pytest.param("now: 0x%s" % ("f" * 5000), id="a hexadecimal number of 5,000 digits"),
        pytest.param('now: "\\UFFFFFFFF"', id="a character that there is not"),
        pytest.param('now: "\\ud800"', id="half of a character"),
        pytest.param('"\\ud800": 1', id="half of a character as a name"),
        pytest.param("%YAML 9.9\n---\nnow: 1", id="another YAML"),
        pytest.param("now: 'open", id="a quote left open"),
        pytest.param("a: b: c", id="a colon too many"),
        pytest.param("\tnow: 1", id="a tab"),
        pytest.param("now: 1\nnow: 2", id="a key twice"),
        pytest.param("now: 0001-01-01T00:00:00Z\npolicy: {version: 1, pools: {p: {}}}", id="the year 1"),
        pytest.param(
            "now: 9999-12-31T23:59:59-12:00\npolicy: {version: 1, pools: {p: {}}}",
            id="the end of the year 9999",
        ),
        pytest.param("now: 2027-03-02\npolicy: {version: 1, pools: {p: {}}}", id="a date without a time"),
        pytest.param("now: 1e400\npolicy: {version: 1, pools: {p: {}}}", id="endless time"),
        pytest.param("now: true\npolicy: {version: 1, pools: {p: {}}}", id="yes is not a time"),
        pytest.param(EXAMPLE.replace("{name: n1,", "{"), id="a node without a name"),
        pytest.param(EXAMPLE.replace("timezone: Asia/Seoul", 'timezone: ""'), id="no zone"),
        pytest.param(EXAMPLE.replace("timezone: Asia/Seoul", 'timezone: "\\0"'), id="a zone of a zero byte"),
        pytest.param(EXAMPLE.replace("timezone: Asia/Seoul", "timezone: " + "A" * 5000), id="a long zone"),
    ],
)
def test_no_scenario(folder: Path, text: str | bytes) -> None:
    run_text(folder, text)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        pytest.param("none.yaml", "there is no", id="a policy that is not there"),
        pytest.param(".", "directory", id="a folder"),
        pytest.param("", "directory", id="no name at all"),
        pytest.param("a\\0b", "cannot be the name of a file", id="a zero byte"),
        pytest.param("x" * 5000, "cannot be read", id="a long name"),
        pytest.param("scenario.yaml", "is not a known setting", id="the scenario itself"),
    ],
)
def test_no_policy(folder: Path, name: str, wanted: str) -> None:
    for text in (
        f'now: 2027-03-02\npolicy: "{name}"\n',
        EXAMPLE.replace(
            "policy: {version: 1, gpu_classes", f'policy: "{name}"}}\n  - {{at: +59m, x: {{gpu_classes'
        ),
    ):
        result = run_text(folder, text)
        assert result.exit_code == 2
        if wanted != "there is no":
            assert wanted in result.stderr.lower() or "x is not a known" in result.stderr


def test_a_policy_in_a_file_beside_it(folder: Path) -> None:
    (folder / "beside").mkdir()
    (folder / "beside" / "pools.yaml").write_text("version: 1\npools:\n  p:\n    parent: q\n")
    path = folder / "beside" / "scenario.yaml"
    path.write_text("now: 2027-03-02\npolicy: pools.yaml\n")
    result = simulate(path)
    holds(result)
    assert "pools.yaml:4: pools.p.parent: there is no pool 'q'" in result.stderr
    (folder / "beside" / "pools.yaml").write_text("version: 1\npools: {p: {}}\n")
    assert simulate(path).exit_code == 0


def test_files_that_cannot_be_read(folder: Path) -> None:
    for path in (folder / "nowhere.yaml", folder, Path("/dev/null"), Path("/dev/zero")):
        holds(simulate(path))
    large = folder / "large.yaml"
    large.write_bytes(b"a: " + b"x" * (5 << 20))
    result = simulate(large)
    holds(result)
    assert "larger than 4 MiB" in result.stderr


# -- scenarios with something wrong in them -------------------------------------------------------------------------------

FAULTS = [
    # (old, new, line, what is told)
    ("now: 2027-03-02T09:00:00+09:00\n", "", 1, "now is missing"),
    ("now: 2027-03-02T09:00:00+09:00", "now: yesterday", 1, "'yesterday' is not a time"),
    ("now: 2027-03-02T09:00:00+09:00", "now: 3027-03-02T09:00:00+09:00", 1, "is out of range"),
    ("now: 2027-03-02T09:00:00+09:00", "now: 1969-03-02T09:00:00+09:00", 1, "write a time from 1970 to 2999"),
    ("people: [{name", "people: [{nam", 16, "people.0.nam is not a known setting"),
    ("pools: [univ], roles", "pools: [none], roles", 16, "there is no pool 'none'"),
    ("recent_hours: {univ", "recent_hours: {none", 16, "there is no pool 'none'"),
    ("people: [{name: student", "people: [{name: student}, {name: student", 16, "person 'student' stands here twice"),
    ("nodes: [{name: n1,", "nodes: [{name: n1}, {name: n1,", 17, "every node needs a name of its own"),
    ("gpu.h200: 8, cpu", "gpu.none: 8, cpu", 17, "'gpu.none' is not a resource of the policy"),
    ("cpu: 128, mem", "cpu: -128, mem", 17, "-128 is not an amount"),
    ("cpu: 128, mem", "cpu: .nan, mem", 17, "is not an amount"),
    ("node: n1", "node: n2", 18, "there is no node 'n2'"),
    ("started: -2h", "started: +2h", 18, "the lease starts after `now`"),
    ("started: -2h", "started: 2 hours", 18, "'2 hours' is not a time"),
    ("started: -2h", "started: -99y", 18, "'-99y' is not a time"),
    ("started: -2h", "started: -99999w", 18, "is longer than a hundred years"),
    ("ends: +4h", "ends: +3000d, kind: browser", 18, "input should be 'server', 'dask-scheduler' or 'dask-worker'"),
    ("borrowed: false", "borrowed: maybe", 18, "borrowed"),
    ("leases: [{id: l1", "leases: [{id: l1, pool: univ, amounts: {}}, {id: l1", 18, "lease 'l1' stands here twice"),
    ("hours: 90.5, period: month", "hours: -1, period: month", 19, "-1 is not possible here"),
    ("hours: 90.5, period: month", "hours: 1, period: day", 19, "no budget of it matches that period and person"),
    ("hours: 90.5, period: month", "hours: 1, person: student", 19, "no budget of it matches that period and person"),
    ("used_hours: [{pool: seoul", "used_hours: [{pool: univ", 19, "has the budgets week (each person), 2027-03-01/2027-06-30"),
    ("at: +0m, ask", "at: -1m, ask", 21, "the event comes before `now`"),
    ("at: +0m, ask", "at: 30, ask", 21, "30 has no unit"),
    ("at: +0m, ask", "at: soon, ask", 21, "'soon' is not a time"),
    ("at: +0m, ask", "at: +0m, tick: true, ask", 21, "an event does exactly one thing"),
    ("minutes: 120", "minutes: -1", 21, "minutes: input should be greater than or equal to 0"),
    ("minutes: 120", "minutes: 1.5", 21, "minutes: input should be a valid integer"),
    ("minutes: 120", "minutes: true", 21, "minutes: input should be a valid integer"),
    ("gpu.h200: \"500m\"", "gpu.h200: many", 21, "'many' is not an amount"),
    ("gpu.h200: \"500m\"", "gpu.h200: true", 21, "True is not an amount"),
    ("gpu.h200: \"500m\"", "gpus: 1", 21, "'gpus' is not a resource of the policy"),
    ("count: 2", "count: 0", 22, "count: input should be greater than or equal to 1"),
    ("shows_up: never", "shows_up: late", 22, "shows_up"),
    ("release: l1", "release: l2", 23, "there is no lease or ask 'l2'"),
    ("minutes: 60", "minutes: 0", 24, "minutes: input should be greater than or equal to 1"),
    ("until: +30d", "until: -30d", 26, "the grant has run out before it is made"),
    ("until: +30d", "until: +30", 26, "30 has no unit"),
    ("hours: 50, until", "hours: .inf, until", 26, "inf is not possible here"),
    ("period: month}}", "period: week}}", 26, "no budget of it matches that period and person"),
    ("{gpu.h200: {nominal: 1}}}}}}", "{gpu.h200: {nominal: -1}}}}}}", 27, "-1 is not an amount"),
    ("tick: true", "tick: false", 28, "tick"),
    ("tick: true", "tock: true", 28, "events.7.tock is not a known setting"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "line", "what"), FAULTS, ids=[f"{new[:30]!r}: {what[:40]}" for _, new, _, what in FAULTS]
)
def test_fault(folder: Path, old: str, new: str, line: int, what: str) -> None:
    assert EXAMPLE.count(old) == 1
    result = run_text(folder, EXAMPLE.replace(old, new))
    assert result.exit_code == 2
    told = [sentence for sentence in result.stderr.splitlines() if what.lower() in sentence.lower()]
    assert told, result.stderr
    assert told[0].startswith(f"{folder / 'scenario.yaml'}:{line}: "), told


# -- anything -----------------------------------------------------------------------------------------------------------------

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(
        [
            "",
            "-1",
            "1e99",
            "+1h",
            "-99999999w",
            "2027-13-45",
            "9999-12-31",
            "univ",
            "l1",
            "a1",
            "nan",
            "1" * 400,
            "\u202eabc",
            "😀",
            "null",
        ]
    ),
    st.dates(),
    st.datetimes(),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(
        st.sampled_from(["id", "pool", "at", "ask", "version", "x"]),
        st.integers() | st.text(max_size=3),
        max_size=3,
    ),
)


def places(data: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [here, *(place for key, value in inner for place in places(value, (*here, key)))]


def changed_at(data: Any, place: tuple[Any, ...], change: Any) -> Any:
    if not place:
        return change(data)
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[place[0]] = changed_at(copied[place[0]], place[1:], change)
    return copied


@settings(max_examples=250)
@given(data=st.data())
def test_wrong_values_anywhere(folder: Path, data: st.DataObject) -> None:
    document = yaml.safe_load(EXAMPLE)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(document)))
        value = data.draw(odd)
        kind = data.draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        document = changed_at(document, place, lambda old, kind=kind, value=value: _mutated(old, kind, value))
    run_text(folder, yaml.safe_dump(document, allow_unicode=True))


def _mutated(old: Any, kind: str, value: Any) -> Any:
    if kind == "add" and isinstance(old, list):
        return [*old, value]
    if kind == "add" and isinstance(old, dict):
        return old | {"more": value}
    if kind == "remove" and isinstance(old, list | dict) and old:
        return old[1:] if isinstance(old, list) else dict(list(old.items())[1:])
    return value


@settings(max_examples=150)
@given(
    at=st.integers(0, len(EXAMPLE)),
    cut=st.integers(0, 12),
    put=st.text(st.sampled_from(string.printable + "é한\u2028\x85"), max_size=6),
)
@example(at=0, cut=0, put="\x00")
def test_wrong_letters_anywhere(folder: Path, at: int, cut: int, put: str) -> None:
    run_text(folder, EXAMPLE[:at] + put + EXAMPLE[at + cut :])


@settings(max_examples=60)
@given(noise=st.binary(max_size=200))
def test_any_bytes(folder: Path, noise: bytes) -> None:
    run_text(folder, noise)


@settings(max_examples=40)
@given(document=scenarios())
def test_any_scenario(folder: Path, document: dict[str, Any]) -> None:
    assert run_text(folder, yaml.safe_dump(document)).exit_code == 0


@settings(max_examples=60)
@given(
    numbers=st.lists(
        st.sampled_from(
            [
                "0",
                "1e12",
                "999999999",
                "1e9",
                "0.000001",
                "100y",
                "36500d",
                "2999-12-31T23:59:59Z",
                "1970-01-01T00:00:00Z",
            ]
        ),
        min_size=8,
        max_size=8,
    )
)
def test_the_largest_numbers(folder: Path, numbers: list[str]) -> None:
    nominal, hours, longest, ends, now, amount, until, unit = numbers
    text = f"""
now: {now if "T" in now else "2999-12-31T23:59:59Z"}
policy:
  version: 1
  timezone: Pacific/Kiritimati
  gpu_classes: {{a: {{resource: x, hours: "{unit}"}}}}
  rates: {{guaranteed: "1000000000", borrowed: "0"}}
  pools:
    p:
      quota: {{gpu.a: {{nominal: {nominal}}}}}
      budgets: [{{hours: {hours}, period: year, carry: {hours}}}, {{hours: 1, from: 1970-01-01, to: 2999-12-31}}]
      session: {{max: {longest if longest.endswith(("d", "y")) else "36500d"}}}
leases: [{{id: l, pool: p, amounts: {{gpu.a: {amount}}}, started: -0s, ends: +{ends if ends.endswith("d") else "36500d"}}}]
events:
  - {{at: +0s, grant: {{pool: p, hours: {hours}, until: {until if "T" in until else "+36500d"}, period: year}}}}
  - {{at: +1s, ask: {{id: a, pool: p, amounts: {{gpu.a: {amount}}}}}}}
  - {{at: +36500d, tick: true}}
"""
    run_text(folder, text)


# -- scale --------------------------------------------------------------------------------------------------------------------


def a_large_city(*, leases: int, pools: int, events: int, seconds: int, seed: int = 1) -> dict[str, Any]:
    """Five sectors, some forty institutions with their budgets, the rest courses and projects below them."""
    rng = random.Random(seed)
    city: dict[str, Any] = {"seoul": {"kind": "centre"}}
    for number in range(5):
        quota = {"gpu.h200": {"nominal": 100}, "cpu": {"nominal": 4000}}
        city[f"sector-{number}"] = {
            "parent": "seoul",
            "quota": quota,
            "budgets": [{"hours": 600_000, "period": "month", "soft": 0.8, "carry": 100}],
        }
    names = [f"pool-{number}" for number in range(pools - 6)]
    for number, name in enumerate(names):
        top = number < 40
        city[name] = {
            "parent": f"sector-{number % 5}" if top else names[rng.randrange(40)],
            "quota": {"gpu.h200": {"nominal": 20, "borrow": 50}},
            "person": {"gpu.h200": 40},
            "budgets": [
                {"hours": 60_000, "period": "month", "soft": 0.8},
                {"hours": 700, "period": "week", "each": "person"},
            ]
            if top
            else [],
        }
    ids = [f"l{number}" for number in range(leases)]
    facts = [
        {
            "id": name, "pool": rng.choice(names), "person": f"p{rng.randrange(1000)}",
            "amounts": {"gpu.h200": rng.choice([1, 1, 2]), "cpu": 4}, "started": "-1h", "ends": f"+{rng.randrange(1, 40_000)}m",
        }
        for name in ids
    ]  # fmt: skip
    happenings = []
    for number in range(events):
        at, kind = f"+{number * seconds}s", rng.random()
        if kind < 0.6:
            ids.append(f"a{number}")
            wish = {
                "pool": rng.choice(names),
                "person": f"p{rng.randrange(1000)}",
                "amounts": {"gpu.h200": 1, "cpu": 2},
            }
            happenings.append({"at": at, "ask": {"id": ids[-1], "minutes": rng.randrange(15, 700)} | wish})
        elif kind < 0.9:
            happenings.append({"at": at, "release": rng.choice(ids)})
        else:
            happenings.append({"at": at, "extend": {"id": rng.choice(ids), "minutes": 30}})
    return {
        "now": "2027-03-02T09:00:00+09:00",
        "policy": policy_text(city),
        "leases": facts,
        "events": happenings,
    }


@pytest.mark.parametrize(
    ("size", "seconds"),
    [
        pytest.param(
            {"leases": 2000, "pools": 200, "events": 5000, "seconds": 30}, 30, id="a city for two days"
        ),
        pytest.param(
            {"leases": 300, "pools": 60, "events": 600, "seconds": 20_000}, 30, id="a quarter of a year"
        ),
    ],
)
def test_a_large_city_is_played_in_seconds(folder: Path, size: dict[str, int], seconds: int) -> None:
    """Of processor time: how busy the machine is says nothing. About eight seconds, reading the file included."""
    path = folder / "large-city.yaml"
    path.write_text(yaml.dump(a_large_city(**size), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
    began = time.process_time()
    result = simulate(path)
    took = time.process_time() - began
    holds(result)
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["decisions"]) > size["events"] // 2
    assert took < seconds
