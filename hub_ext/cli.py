"""`hub-ext …`: a thin face of the services. Exit 0: done; 1: a fault or refusal, told; 2: the command cannot be understood."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

from hub_ext.auth.explain import condition_in_words
from hub_ext.auth.explain import explain as explain_sign_in
from hub_ext.auth.policy import Known, NotKnown, Tried, decide, is_administrator, person_of
from hub_ext.cli_hours import print_report, print_requests, print_sacct
from hub_ext.clusters.model import ClusterCatalogue
from hub_ext.clusters.policy import worker_memory
from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, Amounts, format_amount, hours_to_cost_units
from hub_ext.core.clock import Instant, instant_of
from hub_ext.core.errors import BadInput, HubError
from hub_ext.desk.tables_csv import csv_lines
from hub_ext.factory import Factory, load_documents
from hub_ext.language import translator
from hub_ext.quota.budget import first_instant
from hub_ext.quota.model import Lease, LeaseState, Policy
from hub_ext.quota.numbers import pool_numbers
from hub_ext.quota.ports import UsageRow
from hub_ext.quota.scenario import load_scenario
from hub_ext.quota.service import end
from hub_ext.quota.simulate import Outcome, play
from hub_ext.quota.tree import tree_of
from hub_ext.settings import GATEWAY_SCHEMA, HUB_SCHEMA, load_settings, new_secrets

P = ParamSpec("P")
CANNOT_UNDERSTAND = 2
MOST_HOURS = 10**9
"""No grant is larger; larger input is a mistake."""


def tells_faults(command: Callable[P, None]) -> Callable[P, None]:
    """Foreseen errors become their sentence and exit 1, never a stack trace."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except HubError as error:
            click.echo(str(error), err=True)
            sys.exit(1)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            click.echo(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.", err=True)
            sys.exit(1)

    return run


def _factory() -> Factory:
    return Factory(load_settings())


def _who() -> str:
    """Who types the command, for the ledger."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"  # in a container nobody need have a name


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Hangang Hub: shares a GPU centre fairly. Settings come from hub.yaml and HUB_… variables."""


@main.command()
@tells_faults
def up() -> None:
    """Start hub, proxy and desk on this machine (what `make hub` runs)."""
    from hub_ext.supervisor import Supervisor, prepare

    Supervisor(prepare(load_settings()), click.echo).run()


@main.command()
@tells_faults
def clock() -> None:
    """Run the clock alone: charges, reconciles, stops what is over. One at a time leads; others wait."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    _factory().clockwork().run(stop)


@main.command()
@tells_faults
def desk() -> None:
    """Run the desk: its pages, its API and the clock. Several may run; one of their clocks leads."""
    from hub_ext.desk.serve import serve

    factory = _factory()
    host, port = factory.desk_address()
    serve(factory.desk(), factory.clockwork(factory.secrets.desk_token), host, port)


@main.command()
@tells_faults
def gateway() -> None:
    """Run the gateway of Dask clusters on this machine. Clusters go on while it is started anew."""
    _factory().gateway().start()


@main.command("dask-proxy")
@tells_faults
def dask_proxy() -> None:
    """Run the proxy before the schedulers of Dask clusters. Connections through it outlive the gateway."""
    from hub_ext.clusters.gateway import become_proxy

    become_proxy(_factory().gateway_settings())


@main.command()
@tells_faults
def check() -> None:
    """Check policy, profiles, clusters and identity: every fault with file, line and what to write instead."""
    settings = load_settings()
    documents = load_documents(settings)
    _print_quota(documents.policy)
    identity, profiles = documents.identity, len(documents.catalogue)
    people = f"{len(identity.people)} people" + (f", {len(identity.rules)} rules" if identity.rules else "")
    clusters = documents.clusters
    _print_clusters(clusters)
    offered = f"{profiles} profiles" + (f", {len(clusters)} cluster profiles" if len(clusters) else "")
    click.echo(f"\nNo faults: {len(documents.policy.pools)} pools, {offered}, {people}.")


def _print_clusters(clusters: ClusterCatalogue) -> None:
    """What one worker and the scheduler of each count, and what a worker is told to keep to."""
    if not len(clusters):
        return
    rows: list[Sequence[str]] = [("cluster", "a worker", "its limit", "scheduler", "at most")]
    for profile in clusters:
        limit = format_amount("memory", worker_memory(profile.worker["memory"]))
        sizes = [_sizes(amounts) for amounts in (profile.worker, profile.scheduler)]
        rows.append((profile.slug, sizes[0], limit, sizes[1], f"{profile.most_workers} workers"))
    click.echo(f"\n{_table(rows)}")


@main.command()
@click.argument("claims", metavar="CLAIMS.json|NAME")
@click.option("--json", "as_json", is_flag=True)
@tells_faults
def whois(claims: str, as_json: bool) -> None:
    """Say who somebody with these claims would be, and by which rule, or why they are not let in.

    A file with the claims as the identity provider sends them (- for standard input), or a name among the
    identity's people. Nobody is asked and nothing is changed.
    """
    identity = load_documents(load_settings()).identity
    if claims != "-" and not Path(claims).is_file() and not claims.endswith(".json"):
        person = person_of(identity, claims)
        if person is None:
            raise BadInput(
                f"{claims!r} is neither a file of claims nor a name among the people of the identity document."
            )
        found: Known | NotKnown = Known(person, "", "", entry=person.name)
    else:
        found = decide(identity, _claims_in(claims))
    click.echo(json.dumps(known_json(found), indent=2, ensure_ascii=False) if as_json else _who_it_is(found))
    if isinstance(found, NotKnown):
        click.echo(explain_sign_in(found, identity, translator("en")), err=True)
        sys.exit(1)


def _claims_in(file: str) -> object:
    """Exit 2 for what cannot be read or is no JSON: the question cannot be understood."""
    named = "Standard input" if file == "-" else file
    try:
        return json.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        click.echo(f"{named} cannot be read: {error.strerror or error}.", err=True)
    except (ValueError, RecursionError) as error:
        click.echo(f"{named} is no JSON: {error}", err=True)
    sys.exit(CANNOT_UNDERSTAND)


def known_json(found: Known | NotKnown) -> dict[str, Any]:
    """An answer as `whois --json` shows it."""
    rules = [
        {
            "rule": one.rule,
            "holds": one.holds,
            "failed": None if one.failed is None else condition_in_words(one.failed),
            "pools": list(one.pools),
            "roles": list(one.roles),
            "without_entry": list(one.without_entry),
        }
        for one in found.tried
    ]
    if isinstance(found, NotKnown):
        return {"known": False, "code": found.code, "facts": dict(found.facts), "rules": rules}
    person = found.person
    return {
        "known": True,
        "name": person.name,
        "pools": list(person.pools),
        "roles": sorted(person.roles),
        "admin": is_administrator(person),
        "issuer": found.issuer,
        "subject": found.subject,
        "people": found.entry or None,
        "rules": rules,
    }


def _who_it_is(found: Known | NotKnown) -> str:
    rows: list[Sequence[str]] = []
    if isinstance(found, Known):
        person = found.person
        rows += [
            ("name", person.name),
            ("pools", ", ".join(person.pools)),
            ("roles", ", ".join(sorted(person.roles))),
            ("administers", "yes" if is_administrator(person) else "no"),
        ]
        if found.entry:
            rows.append(("by", f"people.{found.entry}"))
    else:
        rows.append(("not let in", found.code))
    rows += [(f"rule {one.rule!r}", _how_it_went(one)) for one in found.tried]
    return _table(rows)


def _how_it_went(one: Tried) -> str:
    if one.failed is not None:
        return f"does not hold: {condition_in_words(one.failed)}"
    given = ", ".join([*(f"pool {pool}" for pool in one.pools), *(f"role {role}" for role in one.roles)])
    missing = f"; no entry for {', '.join(one.without_entry)}" if one.without_entry else ""
    return f"holds: {given or 'gives nothing'}{missing}"


def _print_quota(policy: Policy) -> None:
    tree = tree_of(policy)
    rows = [("pool", "resource", "own", "with all below")]
    for name in policy.pools:
        indented = "  " * (len(policy.path(name)) - 1) + name
        for resource in policy.stated(name):
            subtree = tree.subtree(name, resource)
            if subtree or resource in policy.pools[name].quota:
                own = format_amount(resource, policy.nominal(name, resource))
                rows.append((indented, resource, own, format_amount(resource, subtree)))
                indented = ""
    click.echo(_table(rows))


@main.command()
@click.option(
    "--json", "as_json", is_flag=True, help="The numbers in base units (milli-GPU, milli-cores, MiB)."
)
@tells_faults
def pools(as_json: bool) -> None:
    """Show what each pool holds, uses and may still take."""
    with _factory().store.reading() as txn:
        ledger = txn.ledger(None)
        numbers = {name: pool_numbers(ledger, name) for name in ledger.policy.pools}
        policy = ledger.policy
    if as_json:
        click.echo(json.dumps(numbers, indent=2))
        return
    rows: list[Sequence[str]] = [("pool", "share", "resource", "quota", "used", "guaranteed", "available")]
    for name, entry in numbers.items():
        indented, its_share = "  " * (len(policy.path(name)) - 1) + name, str(entry["share"])
        for resource, n in entry["resources"].items():
            amounts = [_signed(resource, n[key]) for key in ("subtree", "used", "g", "available")]
            rows.append((indented, its_share, resource, *amounts))
            indented = its_share = ""
    click.echo(_table(rows))


@main.command()
@click.option("--json", "as_json", is_flag=True)
@click.option("--all", "everything", is_flag=True, help="Also leases that were released.")
@tells_faults
def leases(as_json: bool, everything: bool) -> None:
    """Show the leases: who holds what, until when."""
    with _factory().store.reading() as txn:
        found = txn.all_leases() if everything else txn.live_leases()
        policy = txn.policy
    if as_json:
        click.echo(json.dumps([lease_json(lease, policy) for lease in found], indent=2))
        return
    rows: list[Sequence[str]] = [
        ("lease", "person", "server", "pool", "profile", "amounts", "state", "how", "ends")
    ]
    rows += [
        (
            lease.id,
            lease.person,
            lease.server or "(default)",
            lease.pool,
            lease.profile or "",
            _amounts(lease),
            lease.state.value if lease.live else f"released: {lease.reason or ''}",
            "guaranteed" if lease.guaranteed else f"borrowed from {lease.lender}",
            policy.local(lease.ends_at).strftime("%Y-%m-%d %H:%M"),
        )
        for lease in found
    ]
    click.echo(_table(rows) if len(rows) > 1 else "No lease: nothing runs.")


def lease_json(lease: Lease, policy: Policy) -> dict[str, Any]:
    """A lease as `--json` shows it."""

    def iso(instant: Instant | None) -> str | None:
        return None if instant is None else policy.local(instant).isoformat()

    return {
        "id": lease.id,
        "person": lease.person,
        "server": lease.server,
        "pool": lease.pool,
        "kind": lease.kind,
        "profile": lease.profile,
        "amounts": dict(lease.amounts),
        "guaranteed": lease.guaranteed,
        "lender": lease.lender,
        "state": lease.state.value,
        "booked_at": iso(lease.booked_at),
        "started_at": iso(lease.started_at),
        "ends_at": iso(lease.ends_at),
        "released_at": iso(lease.released_at),
        "reason": lease.reason,
        "node": lease.node,
        "devices": list(lease.devices),
        "handle": lease.handle,
    }


@main.command()
@click.argument("lease_id", metavar="ID")
@click.option("--why", required=True, help="Is written down, and shown to the person.")
@tells_faults
def release(lease_id: str, why: str) -> None:
    """Stop what a lease runs and give back what it holds."""
    factory = _factory()
    with factory.store.reading() as txn:
        lease = txn.lease(lease_id) or _only_prefix(txn.live_leases(), lease_id)
    if not lease.live:
        raise BadInput(f"Lease {lease.id} was released already: {lease.reason}")
    factory.admission.change(lease.id, end(_who(), why))
    if lease.state is LeaseState.BOOKED and not factory.world.runs(lease.id):
        factory.admission.release_now(lease.id, _who(), why)
    click.echo(f"Lease {lease.id} of {lease.person} is ending: {why}. The clock stops what it runs.")


def _only_prefix(found: Iterable[Lease], start: str) -> Lease:
    matching = [lease for lease in found if start and lease.id.startswith(start)]
    if len(matching) != 1:
        what = "more than one lease begins" if matching else "there is no lease that begins"
        raise BadInput(f"Not found: {what} with {start!r}. `hub-ext leases` lists them.")
    return matching[0]


@main.command("stop-servers")
@click.option("--why", default="all servers were stopped", show_default=True)
@tells_faults
def stop_servers(why: str) -> None:
    """End every server, also while the hub is down."""
    factory = _factory()
    if factory.settings.on_kubernetes:
        _stop_pods(factory, why)
        return
    # All of them before the first word to a database that may not take part.
    found = {running.lease for running in factory.world.running()}
    for lease_id in found:
        factory.world.stop_lease(lease_id)
    left = {running.lease for running in factory.world.running()} & found
    click.echo(f"{len(found - left)} server(s) ended.")
    for lease_id in found - left:
        factory.admission.release_now(lease_id, _who(), why)
    if left:
        raise BadInput(f"Still running, and not ours to end: {', '.join(sorted(left))}.")


def _stop_pods(factory: Factory, why: str) -> None:
    """The clock releases each lease when its pod is gone."""
    running = factory.cluster.running()
    # All of them before the first word to a database that may not take part.
    faults = []
    for one in running:
        try:
            factory.cluster.stop(one)
        except HubError as error:
            faults.append(str(error))
    click.echo(f"{len(running) - len(faults)} server(s) are ending.")
    for one in running:
        factory.admission.change(one.lease, end(_who(), why))
    if faults:
        raise BadInput("\n".join(faults))


def _date(_context: click.Context, parameter: click.Parameter, value: str | None) -> date | None:
    if value is None:
        return None
    day = _day(value)
    if day is None:
        raise click.BadParameter(f"{value!r} is not a date; write for example 2027-03-02", param=parameter)
    return day


@main.command()
@click.option("--from", "first", callback=_date, help="First day (default: the first of this month).")
@click.option("--to", "last", callback=_date, help="Last day, included (default: today).")
@click.option(
    "--by", type=click.Choice(["pool", "person", "day", "lease"]), default="pool", show_default=True
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "sacct"]),
    default="table",
    show_default=True,
    help="sacct: what ended in this time, as Slurm writes jobs (for Open XDMoD).",
)
@tells_faults
def usage(first: date | None, last: date | None, by: str, form: str) -> None:
    """Report GPU-hours by pool (with all below it), person, day or lease."""
    factory = _factory()
    with factory.store.reading() as txn:
        policy = txn.policy
        today = policy.local(factory.admission.clock.now()).date()
        first, last = first or today.replace(day=1), last or today
        if last < first:
            raise BadInput(f"--to {last} lies before --from {first}.")
    if form == "sacct":
        print_sacct(factory.store, first, last)
        return
    if by == "lease" or by == "day":
        print_report(factory.store, "lease" if by == "lease" else "day", form, first, last)
        return
    with factory.store.reading() as txn:
        rows = usage_rows(txn.usage(first, last), policy, by)
    if form == "json":
        click.echo(json.dumps({"from": str(first), "to": str(last), "by": by, "rows": rows}, indent=2))
    elif form == "csv":
        click.echo(csv_lines(USAGE_FIELDS[by], rows), nl=False)
    else:
        shown = [USAGE_FIELDS[by], *([str(row[key]) for key in USAGE_FIELDS[by]] for row in rows)]
        click.echo(f"{first} to {last}, both included ({policy.timezone.key})\n")
        click.echo(_table(shown) if rows else "Nothing ran in this time.")


USAGE_FIELDS = {
    "pool": ["pool", "gpu_hours", "server_hours", "leases"],
    "person": ["person", "pool", "gpu_hours", "server_hours", "leases"],
}


def usage_rows(found: Sequence[UsageRow], policy: Policy, by: str) -> list[dict[str, Any]]:
    """Sums per pool (each with everything below it) or per person and pool; GPU-hours at the rates as booked."""
    groups: dict[tuple[str, ...], list[UsageRow]] = {}
    for row in found:
        lease = row.lease
        keys: list[tuple[str, ...]] = [(lease.person, lease.pool)]
        if by == "pool":
            keys = [(pool,) for pool in lease.path]
        for key in keys:
            groups.setdefault(key, []).append(row)
    order = {name: index for index, name in enumerate(policy.pools)}
    result = []
    for key in sorted(groups, key=lambda key: (order.get(key[0], len(order)), key)):
        rows = groups[key]
        names = {"pool": key[0]} if by == "pool" else {"person": key[0], "pool": key[1]}
        result.append(
            names
            | {
                "gpu_hours": _hours(sum(row.units for row in rows)),
                "server_hours": round(sum(row.seconds for row in rows) / 3600, 4),
                "leases": len({row.lease.id for row in rows}),
            }
        )
    return result


@main.command()
@click.option("--json", "as_json", is_flag=True)
@click.option("--all", "everything", is_flag=True, help="Also those that were answered or withdrawn.")
@tells_faults
def requests(as_json: bool, everything: bool) -> None:
    """Show who asks for more GPU-hours. They are answered on the desk's pages; `hub-ext grant` gives hours unasked."""
    print_requests(_factory().store, everything=everything, as_json=as_json)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def simulate(file: Path, as_json: bool) -> None:
    """Play a what-if file: what would be decided, when, and why. Nothing real is read or changed."""
    try:
        outcome = play(load_scenario(file))
    except HubError as error:
        click.echo(str(error), err=True)
        sys.exit(CANNOT_UNDERSTAND)
    if as_json:
        click.echo(json.dumps(outcome.__dict__, indent=2, ensure_ascii=False))
    else:
        click.echo(_outcome_table(outcome))


def _outcome_table(outcome: Outcome) -> str:
    rows: list[Sequence[str]] = [("at", "id", "what", "code", "how", "ends")]
    for entry in outcome.decisions:
        what = entry.get("verdict") or entry["change"]
        code, ends = entry["code"] or "", entry["ends_at"] or ""
        rows.append((entry["at"], entry["id"], what, code, _how(entry), ends))
    return _table(rows)


def _how(entry: Mapping[str, Any]) -> str:
    """What an admission draws on; how a wait stands."""
    admitted = entry if "verdict" in entry else entry["facts"]
    if admitted.get("guaranteed") is not None:
        return "guaranteed" if admitted["guaranteed"] else f"borrowed from {admitted['lender']}"
    if entry.get("position") is None:
        return ""
    told = [f"place {entry['position']}"]
    if entry["eta"]:
        told.append(
            f"{'at the latest' if entry['eta']['kind'] == 'latest' else 'expected'} {entry['eta']['at']}"
        )
    if entry["reclaims"]:
        told.append(f"takes back {', '.join(entry['reclaims'])}")
    return ", ".join(told)


@main.command()
@click.argument("pool")
@click.argument("hours")
@click.option("--why", required=True)
@click.option("--until", required=True, help="Last day (2027-03-31), or a time with its zone.")
@click.option(
    "--period", help="Which budget, where the pool has several: day, week, month, quarter, year, term."
)
@click.option("--person", help="Whose, where the budget is each person's.")
@tells_faults
def grant(pool: str, hours: str, why: str, until: str, period: str | None, person: str | None) -> None:
    """Grant extra GPU-hours beside a pool's budget, until a date."""
    factory = _factory()
    try:
        amount = Decimal(hours)
    except InvalidOperation:
        raise BadInput(f"{hours!r} is not a number of hours; write for example 50 or 12.5") from None
    if not amount.is_finite() or not 0 < amount <= MOST_HOURS or not hours_to_cost_units(amount):
        raise BadInput(f"{hours!r} hours cannot be granted; write a number above 0, and at most {MOST_HOURS}")
    with factory.store.reading() as txn:
        policy = txn.policy
    end = _until(until, policy)
    made = factory.admission.grant_hours(
        pool, hours_to_cost_units(amount), end, why=why, who=_who(), period=period, person=person
    )
    whose = f"{person} in {pool}" if person else pool
    click.echo(
        f"Granted {amount} GPU-h to {whose}, budget {made.budget}, until {policy.local(end):%Y-%m-%d %H:%M}."
    )


def _until(text: str, policy: Policy) -> Instant:
    """A date counts with its whole day."""
    try:
        day = _day(text)
        if day is not None:
            return first_instant(day + timedelta(days=1), policy.timezone)
        moment = datetime.fromisoformat(text)
        return instant_of(moment if moment.tzinfo else moment.replace(tzinfo=policy.timezone))
    except (ValueError, OverflowError):
        raise BadInput(f"{text!r} is not a date; write for example 2027-03-31") from None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


@main.command("secrets")
@tells_faults
def print_secrets() -> None:
    """Print fresh secrets as JSON, for the file that `secrets_file` names. They are kept nowhere else."""
    click.echo(json.dumps(new_secrets(), indent=2))


@main.group()
def db() -> None:
    """The ledger's database."""


@db.command("upgrade")
@tells_faults
def db_upgrade() -> None:
    """Make or migrate the tables. The only command that does."""
    from hub_ext.db.upgrade import make_schema, upgrade

    settings = load_settings()
    if settings.database_url is None:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
    click.echo(f"The database has schema version {upgrade(settings.ledger_url)}.")
    if settings.on_kubernetes and settings.database_url is not None:
        for schema in (HUB_SCHEMA, GATEWAY_SCHEMA):
            make_schema(settings.database_url, schema)


# -- printing -----------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _signed(resource: str, amount: int) -> str:
    return f"-{format_amount(resource, -amount)}" if amount < 0 else format_amount(resource, amount)


def _amounts(lease: Lease) -> str:
    return _sizes(lease.amounts)


def _sizes(amounts: Amounts) -> str:
    return " ".join(f"{r.removeprefix('gpu.')}={format_amount(r, a)}" for r, a in sorted(amounts.items()))


def _hours(units: int) -> float:
    return round(units / COST_UNITS_PER_GPU_HOUR, 6)
