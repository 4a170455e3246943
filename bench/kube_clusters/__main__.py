"""Dask clusters on Kubernetes, beside plain pods on the same cluster in the same run.

    python -m bench.kube_clusters beside   # a cluster of four CPU workers on the deployed hub: how long until all are connected
    python -m bench.kube_clusters many     # 200 clusters of five workers on pretended nodes: what the gateway takes

`beside` orders from a kernel of a real server through the gateway, as dask-gateway's own client does, in turn with the same
scheduler and workers as plain pods: no gateway, quota, proxy or encryption, and a client outside of the cluster. Once their
workers are made as soon as the scheduler has an address (the least that can be), once when it answers, as every gateway does.
Needs the hub that `make deploy` brings, and nobody who tests it meanwhile: the tests of clusters end all that runs there.

`many` runs gateway, clock and proxy as processes outside of the cluster, with a real ledger. Pods are pretended (kwok) and
ready three seconds after they got a node; a stub sends what their schedulers would send, each with its cluster's own token,
and says whose token is whose. In the end one person after the other asks for one worker more, while the pods of those before
start. Beside it the very same pods are made by a small program with as many requests at once, which waits for each scheduler
too. Both speak to the API server as administrators, whose requests it never makes wait. Needs the cluster of `make cluster`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys

from bench.kube_clusters.beside import beside
from bench.kube_clusters.centre import AT_ONCE
from bench.kube_clusters.many import many
from bench.kube_clusters.plainly import make_plainly
from tests.support.cluster import find_cluster


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.kube_clusters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="beside|many")
    one = what.add_parser("beside", help="one cluster, beside plain pods")
    one.add_argument("--rounds", type=int, default=5)
    one.add_argument("--workers", type=int, default=4)
    two = what.add_parser("many", help="many clusters on pretended nodes")
    two.add_argument("--clusters", type=int, default=200)
    two.add_argument("--workers", type=int, default=5)
    two.add_argument("--steady", type=float, default=60, metavar="SECONDS", help="how long nothing happens")
    two.add_argument("--grants", type=int, default=200, help="how many clusters get one worker more")
    two.add_argument("--patience", type=float, default=900, metavar="SECONDS", help="of each wait")
    two.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    # What `many` starts beside itself.
    what.add_parser("plainly").add_argument("namespace")
    given = parser.parse_args()
    # What was made goes also when this is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cluster = find_cluster()
    if cluster is None:
        sys.exit("There is no cluster: `make cluster` makes one.")
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
    if given.what == "beside":
        asyncio.run(beside(cluster, given.rounds, given.workers))
    elif given.what == "many":
        many(cluster, given)
    else:
        found = asyncio.run(make_plainly(given.namespace, json.load(sys.stdin), AT_ONCE))
        print(json.dumps(found))


if __name__ == "__main__":
    main()
