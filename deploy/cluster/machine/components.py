"""The cluster's parts: the command line and the configuration of each, and how one sees that it serves.

The settings that are not everyday ones are for machines as CI has them: cgroups of the first version, and no right to
raise limits or to change how soon the kernel ends a process when memory runs out.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from machine import api, certificates
from machine.certificates import AUTHORITY, kubeconfig_of, replace_file
from machine.nodes import stages
from machine.places import (
    API,
    API_PORT,
    BRIDGE,
    CLUSTER,
    CONFIGS,
    CONTAINERD,
    CONTAINERD_SOCKET,
    DOMAIN,
    GATEWAY,
    KUBELET,
    MOST_PODS,
    NAME_SERVICE,
    NETWORK,
    NODE,
    PAUSE_IMAGE,
    PODS,
    PRETENDED_PODS,
    PROGRAMS,
    RUN,
    SERVICES,
    STAGES,
    STATE,
    STORE_PEER_PORT,
    STORE_PORT,
    VOLUMES,
)

CONTAINER_NETWORK_PROGRAMS = Path("/usr/lib/cni")
OCI_SPEC = CONFIGS / "container.json"


@dataclass(frozen=True)
class Component:
    """One long-lived process."""

    name: str
    command: list[str]
    serves: Callable[[], bool]
    files: dict[Path, str] = field(default_factory=dict)
    """Its configuration, written before it starts; another text starts it anew."""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of everything it is started with, the program itself included."""
        program = str(Path(self.command[0]).resolve())
        told = [
            program,
            *self.command,
            *(text for _, text in sorted(self.files.items())),
            *self.environment.values(),
        ]
        return hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]

    def write_files(self) -> None:
        for path, text in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, text)


def all_components() -> list[Component]:
    """In the order in which they start."""
    return [
        _store(),
        _api_server(),
        _controllers(),
        _scheduler(),
        _containerd(),
        _kubelet(),
        _proxy(),
        _names(),
        _volumes(),
        _pretended_nodes(),
        _keeper(),
    ]


def _program(name: str, /, **flags: object) -> list[str]:
    """`node_ip="x"` becomes `--node-ip=x`."""
    return [
        str(PROGRAMS / name),
        *(f"--{flag.replace('_', '-')}={_flag(value)}" for flag, value in flags.items()),
    ]


def _flag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document(content: dict[str, object]) -> str:
    # JSON is YAML.
    return json.dumps(content, indent=2) + "\n"


def _store() -> Component:
    own = certificates.STORE
    client, peer = f"https://127.0.0.1:{STORE_PORT}", f"http://127.0.0.1:{STORE_PEER_PORT}"
    return Component(
        "etcd",
        _program(
            "etcd",
            name="store",
            data_dir=STATE / "etcd",
            listen_client_urls=client,
            advertise_client_urls=client,
            listen_peer_urls=peer,
            initial_advertise_peer_urls=peer,
            initial_cluster=f"store={peer}",
            cert_file=own.certificate,
            key_file=own.key,
            client_cert_auth=True,
            trusted_ca_file=AUTHORITY,
            # What the kernel has taken is safe from all but the machine's own end, and then the cluster ends as well.
            unsafe_no_fsync=True,
        ),
        lambda: api.answers(f"{client}/readyz", certificates.API_CLIENT),
    )


def _api_server() -> Component:
    own, client = certificates.API_SERVER, certificates.API_CLIENT
    return Component(
        "kube-apiserver",
        _program(
            "kube-apiserver",
            bind_address=GATEWAY,
            advertise_address=GATEWAY,
            secure_port=API_PORT,
            tls_cert_file=own.certificate,
            tls_private_key_file=own.key,
            client_ca_file=AUTHORITY,
            etcd_servers=f"https://127.0.0.1:{STORE_PORT}",
            etcd_cafile=AUTHORITY,
            etcd_certfile=client.certificate,
            etcd_keyfile=client.key,
            kubelet_client_certificate=client.certificate,
            kubelet_client_key=client.key,
            kubelet_certificate_authority=AUTHORITY,
            kubelet_preferred_address_types="InternalIP",
            authorization_mode="Node,RBAC",
            enable_admission_plugins="NodeRestriction",
            service_account_issuer=f"https://kubernetes.default.svc.{DOMAIN}",
            service_account_key_file=certificates.ACCOUNTS_PUBLIC_KEY,
            service_account_signing_key_file=certificates.ACCOUNTS_KEY,
            service_cluster_ip_range=SERVICES,
            # Nobody speaks for others: no certificate of this authority carries the one name that might.
            requestheader_client_ca_file=AUTHORITY,
            requestheader_allowed_names="nobody",
            requestheader_username_headers="X-Remote-User",
            requestheader_group_headers="X-Remote-Group",
            requestheader_extra_headers_prefix="X-Remote-Extra-",
            # Ends open requests quickly when it is told to stop.
            shutdown_delay_duration="0s",
        ),
        lambda: api.answers(f"{API}/readyz", certificates.ADMIN),
    )


def _controllers() -> Component:
    kubeconfig = kubeconfig_of(certificates.CONTROLLERS)
    return Component(
        "kube-controller-manager",
        _program(
            "kube-controller-manager",
            kubeconfig=kubeconfig,
            authentication_kubeconfig=kubeconfig,
            authorization_kubeconfig=kubeconfig,
            bind_address="127.0.0.1",
            root_ca_file=AUTHORITY,
            cluster_signing_cert_file=AUTHORITY,
            cluster_signing_key_file=certificates.AUTHORITY_KEY,
            service_account_private_key_file=certificates.ACCOUNTS_KEY,
            use_service_account_credentials=True,
            flex_volume_plugin_dir=STATE / "volume-plugins",
            leader_elect=False,
        ),
        lambda: api.answers("https://127.0.0.1:10257/healthz"),
    )


def _scheduler() -> Component:
    kubeconfig = kubeconfig_of(certificates.SCHEDULER)
    return Component(
        "kube-scheduler",
        _program(
            "kube-scheduler",
            kubeconfig=kubeconfig,
            authentication_kubeconfig=kubeconfig,
            authorization_kubeconfig=kubeconfig,
            bind_address="127.0.0.1",
            leader_elect=False,
        ),
        lambda: api.answers("https://127.0.0.1:10259/healthz"),
    )


def _containerd() -> Component:
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    # Where there is no right to raise limits, a container that asks for its own cannot start.
    config = f"""version = 3
root = "{CONTAINERD}"
state = "{RUN}/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = "{CONTAINERD_SOCKET}"

[ttrpc]
address = "{CONTAINERD_SOCKET}.ttrpc"

[plugins.'io.containerd.shim.v1.manager']
socket_dir = "{RUN}/s"

[plugins.'io.containerd.internal.v1.opt']
path = "{STATE}/opt"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "{CONFIGS}/registries"

[{runtime}]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{OCI_SPEC}"

[{runtime}.containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{RUN}/runc"

[{runtime}.cni]
bin_dirs = ["{CONTAINER_NETWORK_PROGRAMS}"]
conf_dir = "{CONFIGS}/network"
use_internal_loopback = true
"""
    # An image that was not loaded is missing at once: nobody outside is asked for it.
    no_registry = 'server = "http://127.0.0.1:1"\n'
    network: dict[str, object] = {
        "cniVersion": "1.0.0",
        "name": "hangang",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "hairpinMode": True,
                # Pods talk with each other and with the machine, and with nobody else.
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(NETWORK),
                    "ranges": [[{"subnet": PODS, "gateway": GATEWAY}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    return Component(
        "containerd",
        [str(PROGRAMS / "containerd"), "--config", str(CONFIGS / "containerd.toml")],
        lambda: _succeeds("ctr", "--address", str(CONTAINERD_SOCKET), "--timeout", "5s", "version"),
        {
            CONFIGS / "containerd.toml": config,
            CONFIGS / "network" / "10-hangang.conflist": _document(network),
            CONFIGS / "registries" / "_default" / "hosts.toml": no_registry,
            OCI_SPEC: _document(_container_spec()),
        },
    )


def _container_spec() -> dict[str, object]:
    """What containerd gives containers by itself, without limits of their own."""
    said = subprocess.run([str(PROGRAMS / "ctr"), "oci", "spec"], capture_output=True, check=True).stdout
    spec: dict[str, object] = json.loads(said)
    spec["process"] = {**spec["process"], "rlimits": []}  # type: ignore[dict-item]
    return spec


def _kubelet() -> Component:
    own = certificates.KUBELET_SERVER
    config: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": GATEWAY,
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": str(own.certificate),
        "tlsPrivateKeyFile": str(own.key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(AUTHORITY)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [NAME_SERVICE],
        "clusterDomain": DOMAIN,
        # The machine's own name servers are nothing to pods: there is no way out for them.
        "resolvConf": "",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "maxPods": MOST_PODS,
        "podLogsDir": str(STATE / "pod-logs"),
        "volumePluginDir": str(STATE / "volume-plugins"),
        "registerNode": True,
        "serializeImagePulls": False,
        "enableControllerAttachDetach": True,
        # A full disk of somebody else's making should not drive pods away, and images cannot be fetched again.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
    return Component(
        "kubelet",
        _program(
            "kubelet",
            config=CONFIGS / "kubelet.json",
            kubeconfig=kubeconfig_of(certificates.NODE_ITSELF),
            root_dir=KUBELET,
            cert_dir=KUBELET / "pki",
            hostname_override=NODE,
            node_ip=GATEWAY,
        ),
        lambda: api.answers("http://127.0.0.1:10248/healthz"),
        {CONFIGS / "kubelet.json": _document(config)},
    )


def _proxy() -> Component:
    config: dict[str, object] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig_of(certificates.PROXY))},
        "hostnameOverride": NODE,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "nodePortAddresses": [f"{GATEWAY}/32"],
        "conntrack": {"maxPerCore": 0},
        # Answers between two pods on the bridge come back through the machine, also where the kernel does not show
        # the bridge's packets to its packet filter.
        "nftables": {"masqueradeAll": True},
    }
    return Component(
        "kube-proxy",
        _program("kube-proxy", config=CONFIGS / "kube-proxy.json"),
        lambda: api.answers("http://127.0.0.1:10256/healthz"),
        {CONFIGS / "kube-proxy.json": _document(config)},
    )


def _names() -> Component:
    config = f""".:53 {{
    bind {GATEWAY}
    errors
    health 127.0.0.1:10253
    ready 127.0.0.1:10254
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig_of(certificates.NAMES)}
        ttl 5
    }}
    cache 5
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
    return Component(
        "coredns",
        [str(PROGRAMS / "coredns"), "-conf", str(CONFIGS / "Corefile")],
        lambda: api.answers("http://127.0.0.1:10254/ready"),
        {CONFIGS / "Corefile": config},
    )


def _volumes() -> Component:
    kubeconfig = kubeconfig_of(certificates.ADMIN)
    return Component(
        "local-disk",
        [
            str(PROGRAMS / "local-disk"),
            "-kubeconfig",
            str(kubeconfig),
            "-folder",
            str(VOLUMES),
            "-node",
            NODE,
        ],
        lambda: True,
    )


def _pretended_nodes() -> Component:
    kept = STAGES.read_text() if STAGES.exists() else stages()
    return Component(
        "kwok",
        _program(
            "kwok",
            kubeconfig=kubeconfig_of(certificates.ADMIN),
            config=STAGES,
            manage_all_nodes=False,
            manage_nodes_with_annotation_selector="kwok.x-k8s.io/node=fake",
            cidr=PRETENDED_PODS,
            node_ip=GATEWAY,
            server_address="127.0.0.1:10247",
        ),
        lambda: api.answers("http://127.0.0.1:10247/healthz"),
        {STAGES: kept},
    )


def _keeper() -> Component:
    sources = "".join(path.read_text() for path in sorted((CLUSTER / "machine").glob("*.py")))
    # The same program, whether it is called inside a virtual environment or not: else it would be started anew.
    python = str(Path(sys.executable).resolve())
    return Component(
        "keeper",
        [python, str(CLUSTER / "cluster.py"), "keep"],
        lambda: True,
        environment={
            "HANGANG_CLUSTER_FOLDER": str(STATE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HANGANG_CLUSTER_SOURCES": hashlib.sha256(sources.encode()).hexdigest(),
        },
    )


def _succeeds(program: str, *arguments: str) -> bool:
    return subprocess.run([str(PROGRAMS / program), *arguments], capture_output=True).returncode == 0
