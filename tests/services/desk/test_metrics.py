"""What monitoring reads: the numbers are those of the ledger, and the dashboard asks for nothing that is not there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from hub_ext.core.people import Person
from hub_ext.desk.metrics import Metrics
from hub_ext.desk.picture import Picture
from hub_ext.quota.model import SCHEDULER, WORKER, Ask
from hub_ext.quota.service import end, run
from tests.services.desk.centre import MINUTE, Centre

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = ROOT / "deploy" / "grafana" / "hangang-hub.json"


def shown(metrics: Metrics) -> dict[tuple[str, frozenset[str]], float]:
    """By name and the values of its labels."""
    text, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(filter(None, sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def labels(*values: str) -> frozenset[str]:
    return frozenset(values)


def test_the_numbers_follow_the_ledger(centre: Centre) -> None:
    centre.tick()
    for name in ("l1", "l2", "l3"):
        centre.start(name, minutes=60)
    centre.admission.put_person(Person("student", ("univ",)))
    ask = Ask("t1", "student", "univ", {"gpu.h200": 1000}, server="t1")
    assert centre.admission.admit_now(Person("student", ("univ",)), ask).ticket is not None
    centre.tick(30 * MINUTE)
    numbers = shown(centre.clockwork.metrics)
    assert numbers["hangang_admissions_total", labels("guaranteed")] == 2
    assert numbers["hangang_admissions_total", labels("borrowed")] == 1
    assert numbers["hangang_admissions_total", labels("wait", "pool-full")] == 1
    assert numbers["hangang_queue_tickets", labels("pool-full")] == 1
    assert numbers["hangang_queue_oldest_seconds", labels()] == 30 * MINUTE
    assert numbers["hangang_gpus", labels("univ", "h200", "guaranteed")] == 2
    assert numbers["hangang_gpus", labels("univ", "h200", "borrowed")] == 1
    assert numbers["hangang_gpus_free", labels("lab", "h200")] == 0
    assert numbers["hangang_clock_leads", labels()] == 1
    assert numbers["hangang_clock_last_tick_timestamp_seconds", labels()] == centre.clock.at
    # Two and a half GPU-hours an hour are set aside for the hour of each; what ran is among it.
    assert numbers["hangang_hours_left", labels("univ", "day")] == 97.5
    centre.tick(25 * MINUTE)
    centre.world.kill("l1")
    centre.tick(2)
    centre.tick(2)
    numbers = shown(centre.clockwork.metrics)
    assert numbers["hangang_notices_total", labels("ends-soon")] == 3
    assert numbers["hangang_reconcile_corrections_total", labels("died")] == 1
    assert numbers["hangang_leases_ended_total", labels("died")] == 1


def test_clusters_are_counted_by_pool_with_their_workers_by_state(centre: Centre) -> None:
    student, name = Person("student", ("univ",)), "c0ffee00c0ffee00c0ffee00c0ffee00"
    centre.admission.put_person(student)
    scheduler = Ask(name, "student", "univ", {"cpu": 1000}, SCHEDULER, server=name)
    worker = Ask("", "student", "univ", {"gpu.h200": 1000}, WORKER, server=name)
    assert centre.admission.start_cluster_now(student, scheduler).lease is not None
    granted = centre.admission.grant_now(name, student, worker, 5, ())
    first, second, _ = granted.leases
    centre.admission.change(first.id, run("w1"))
    centre.admission.change(second.id, run("w2"))
    centre.admission.change(second.id, end("student", "stopped"))
    picture, metrics = Picture(), Metrics()
    with centre.store.reading() as txn:
        picture.refresh(txn, centre.clock.at)
    metrics.show(picture, centre.clock.at)
    numbers = shown(metrics)
    assert numbers["hangang_clusters", labels("univ")] == 1
    assert numbers["hangang_clusters", labels("lab")] == 0
    states = {
        state: numbers["hangang_cluster_workers", labels("univ", state)]
        for state in ("starting", "running", "ending")
    }
    assert states == {"starting": 1, "running": 1, "ending": 1}
    assert numbers["hangang_cluster_workers_wanted", labels("univ")] == 2
    metrics.follows()
    assert not any(each.startswith("hangang_cluster") for each, _ in shown(metrics))


def test_a_desk_whose_clock_does_not_lead_shows_nothing_of_its_own(centre: Centre) -> None:
    centre.start()
    centre.tick()
    another = centre.another_clock()
    assert not another.tick()
    numbers = shown(another.metrics)
    assert numbers["hangang_clock_leads", labels()] == 0
    assert not any(name.startswith("hangang_gpus") for name, _ in numbers)


def test_every_metric_of_the_dashboard_exists_and_every_metric_is_on_it_and_explained() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"hangang_\w+", target["expr"])
    }
    families = {family.name for family in Metrics().registry.collect()}

    def family(name: str) -> str:
        return re.sub(r"_(total|bucket|count|sum)$", "", name)

    assert {family(name) for name in asked} == families
    explained = re.findall(
        r"^\| `(hangang_\w+)`",
        (ROOT / "docs" / "operate" / "metrics.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert {family(name) for name in explained} == families
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
