"""Who is who in the cluster: an authority of its own and a certificate for each part, by openssl.

Keys are made once for a cluster's life and are readable by root alone. They are good for a year; a cluster on one
machine is not meant to live that long.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from machine.places import (
    API,
    CERTIFICATES,
    CONFIGS,
    DOMAIN,
    FIRST_SERVICE,
    GATEWAY,
    KUBECONFIG,
    NODE,
    Problem,
)

DAYS = "365"
AUTHORITY = CERTIFICATES / "authority.crt"
AUTHORITY_KEY = CERTIFICATES / "authority.key"
ACCOUNTS_KEY = CERTIFICATES / "service-accounts.key"
ACCOUNTS_PUBLIC_KEY = CERTIFICATES / "service-accounts.pub"


@dataclass(frozen=True)
class Identity:
    """A certificate's subject: the user's name and group that Kubernetes reads from it."""

    file: str
    name: str
    group: str = ""
    addresses: str = ""
    """For what serves: the names and addresses it is called by, as openssl writes them."""

    @property
    def certificate(self) -> Path:
        return CERTIFICATES / f"{self.file}.crt"

    @property
    def key(self) -> Path:
        return CERTIFICATES / f"{self.file}.key"


_API_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{DOMAIN}",
)
API_SERVER = Identity(
    "kube-apiserver",
    "kube-apiserver",
    addresses=",".join(
        [
            *(f"DNS:{name}" for name in _API_NAMES),
            *(f"IP:{one}" for one in (GATEWAY, FIRST_SERVICE, "127.0.0.1")),
        ]
    ),
)
STORE = Identity("etcd", "etcd", addresses="DNS:localhost,IP:127.0.0.1")
KUBELET_SERVER = Identity("kubelet-server", NODE, addresses=f"DNS:{NODE},IP:{GATEWAY}")

ADMIN = Identity("admin", "admin", "system:masters")
NODE_ITSELF = Identity("kubelet", f"system:node:{NODE}", "system:nodes")
CONTROLLERS = Identity("kube-controller-manager", "system:kube-controller-manager")
SCHEDULER = Identity("kube-scheduler", "system:kube-scheduler")
PROXY = Identity("kube-proxy", "system:kube-proxy")
NAMES = Identity("coredns", "system:coredns")
API_CLIENT = Identity("kube-apiserver-client", "kube-apiserver-client", "system:masters")
"""The API server towards the kubelet and etcd."""

SERVERS = (API_SERVER, STORE, KUBELET_SERVER)
CLIENTS = (ADMIN, NODE_ITSELF, CONTROLLERS, SCHEDULER, PROXY, NAMES, API_CLIENT)


def make_missing() -> None:
    """Make the authority, and what it signs, as far as it is not there. Raises Problem."""
    CERTIFICATES.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not AUTHORITY.exists():
        _new_key(AUTHORITY_KEY)
        subject = ["-subj", "/CN=hangang-cluster", "-addext", "basicConstraints=critical,CA:TRUE"]
        subject += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        key = str(AUTHORITY_KEY)
        _write(AUTHORITY, ["openssl", "req", "-x509", "-new", "-key", key, "-days", DAYS, *subject])
    if not ACCOUNTS_PUBLIC_KEY.exists():
        _new_key(ACCOUNTS_KEY)
        _write(ACCOUNTS_PUBLIC_KEY, ["openssl", "pkey", "-in", str(ACCOUNTS_KEY), "-pubout"])
    for identity in (*SERVERS, *CLIENTS):
        if not identity.certificate.exists():
            _sign(identity)


def write_kubeconfigs() -> None:
    """Make for each client the file by which programs reach the API server as that client."""
    for identity in CLIENTS:
        path = KUBECONFIG if identity is ADMIN else kubeconfig_of(identity)
        if not path.exists():
            replace_file(path, json.dumps(_kubeconfig(identity), indent=2) + "\n")


def kubeconfig_of(identity: Identity) -> Path:
    return KUBECONFIG if identity is ADMIN else CONFIGS / f"{identity.file}.kubeconfig"


def replace_file(path: Path, text: str) -> None:
    """Write a file that only root reads, whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.chmod(0o600)
    beside.replace(path)


def _kubeconfig(identity: Identity) -> dict[str, object]:
    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    name = "hangang-cluster"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": API, "certificate-authority-data": inline(AUTHORITY)}}
        ],
        "users": [
            {
                "name": identity.name,
                "user": {
                    "client-certificate-data": inline(identity.certificate),
                    "client-key-data": inline(identity.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": identity.name}}],
        "current-context": name,
    }


def _sign(identity: Identity) -> None:
    _new_key(identity.key)
    subject = f"/O={identity.group}/CN={identity.name}" if identity.group else f"/CN={identity.name}"
    # The store's own certificate is also what it calls itself with.
    usage = "serverAuth,clientAuth" if identity.addresses else "clientAuth"
    extensions = ["basicConstraints=CA:FALSE", f"extendedKeyUsage={usage}"]
    if identity.addresses:
        extensions.append(f"subjectAltName={identity.addresses}")
    command = ["openssl", "req", "-x509", "-new", "-key", str(identity.key), "-days", DAYS, "-subj", subject]
    command += ["-CA", str(AUTHORITY), "-CAkey", str(AUTHORITY_KEY)]
    for one in extensions:
        command += ["-addext", one]
    _write(identity.certificate, command)


def _new_key(path: Path) -> None:
    _write(path, ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])


def _write(path: Path, command: list[str]) -> None:
    """Keep what the command says in a file that only root reads, whole or not at all."""
    # The system's own settings of openssl add extensions of their own.
    environment = {**os.environ, "OPENSSL_CONF": "/dev/null"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise Problem(f"openssl could not make {path.name}: {done.stderr.strip()}")
    replace_file(path, done.stdout)
