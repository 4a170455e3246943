#!/usr/bin/env python3
"""A real Kubernetes with one node on this machine, for tests and for trying the hub: `make cluster` calls this.

It needs root, Debian's packages that it names when they are missing, and Go for the first time. Python's standard
library is enough.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import api, images, lifecycle, nodes
from machine.places import KUBECONFIG, PROGRAMS, Problem


def main(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given) or 0)
    except (Problem, api.Refused) as problem:
        print(problem, file=sys.stderr)
    except OSError as error:
        print(f"The cluster does not answer: {error}", file=sys.stderr)
    return 1


def _up(_: argparse.Namespace) -> None:
    if kubeconfig := os.environ.get("KUBECONFIG"):
        lifecycle.check_foreign(kubeconfig)
    else:
        lifecycle.up()


def _kubectl(given: argparse.Namespace) -> None:
    rest = given.rest[1:] if given.rest[:1] == ["--"] else given.rest
    environment = {"KUBECONFIG": str(KUBECONFIG), **os.environ}
    os.execve(PROGRAMS / "kubectl", ["kubectl", *rest], environment)


def _add_nodes(given: argparse.Namespace) -> None:
    labels = dict(one.partition("=")[::2] for one in given.label)
    kind = nodes.Pretended(given.gpus, given.gpu_resource, given.cpu, given.memory, given.pods, labels)
    print("\n".join(nodes.add_nodes(given.number, kind)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, help_text: str, run: object) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=help_text)
        one.set_defaults(run=run)
        return one

    command("up", "bring up what is missing; with KUBECONFIG set, only see that that cluster answers", _up)
    command("down", "end and remove everything that `up` made", lambda _: lifecycle.down())
    command(
        "clear",
        "remove what is left of another checkout's cluster of which nothing runs any more",
        lambda _: lifecycle.clear_abandoned(),
    )
    command(
        "status", "show each part; fails when one does not serve", lambda _: 0 if lifecycle.status() else 1
    )
    one = command(
        "stop", "end one part, for tests of faults", lambda given: lifecycle.stop(given.part, given.kill)
    )
    one.add_argument("part", choices=lifecycle.PARTS)
    one.add_argument("--kill", action="store_true", help="as if it had crashed")
    one = command("start", "start one part unless it runs", lambda given: lifecycle.start(given.part))
    one.add_argument("part", choices=lifecycle.PARTS)
    one = command(
        "load",
        "import image archives (OCI or docker)",
        lambda given: print(images.load(*given.files), end=""),
    )
    one.add_argument("files", nargs="+", type=Path, metavar="FILE")
    one = command(
        "load-program",
        "make an image of one static program and load it",
        lambda given: images.load_program(given.name, given.program),
    )
    one.add_argument("name", help="of the image, such as hangang/tools:dev")
    one.add_argument("program", type=Path)
    command("images", "list the images that pods may name", lambda _: print("\n".join(images.names())))
    one = command("kubectl", "kubectl against this cluster: kubectl -- get pods", _kubectl)
    one.add_argument("rest", nargs=argparse.REMAINDER)
    one = command("add-nodes", "add pretended nodes, on which pods run in name only", _add_nodes)
    one.add_argument("number", type=int)
    one.add_argument("--gpus", type=int, default=8)
    one.add_argument("--gpu-resource", default="nvidia.com/gpu")
    one.add_argument("--cpu", default="128")
    one.add_argument("--memory", default="2Ti")
    one.add_argument("--pods", type=int, default=250)
    one.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    one = command(
        "remove-nodes",
        "remove pretended nodes and their pods",
        lambda given: print(nodes.remove_nodes(given.names)),
    )
    one.add_argument("names", nargs="*", metavar="NAME", help="all of them where none is named")
    one = command(
        "pretended-pods",
        "how pods on pretended nodes behave from now on",
        lambda given: lifecycle.pretended_pods(given.ready_after, given.address),
    )
    one.add_argument("--ready-after", type=float, default=0, metavar="SECONDS")
    one.add_argument(
        "--address", default="", help="one address for all of them, where one server answers for all"
    )
    command("keep", "(run by `up`) start again what ended by itself", lambda _: lifecycle.keep())
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
