"""Where the cluster's files lie and at which addresses its parts listen: every name and number that parts share.

All of it is either under `.cluster` of this checkout or under one folder in /run, so that it can be removed whole.
"""

from __future__ import annotations

import os
from pathlib import Path


class Problem(Exception):
    """What cannot be done, in a sentence for the person at the terminal."""


CLUSTER = Path(__file__).resolve().parents[1]
ROOT = CLUSTER.parents[1]
MODULES = CLUSTER / "go"

# Named by the variable only to take down a cluster whose checkout is gone.
STATE = Path(os.environ.get("HANGANG_CLUSTER_FOLDER") or ROOT / ".cluster")
MARK = STATE / "made-by-make-cluster"
PROGRAMS = STATE / "bin"
CONFIGS = STATE / "configs"
CERTIFICATES = STATE / "certificates"
LOGS = STATE / "logs"
KUBECONFIG = STATE / "kubeconfig"
VOLUMES = STATE / "volumes"
KUBELET = STATE / "kubelet"
CONTAINERD = STATE / "containerd"
NETWORK = STATE / "network"
STAGES = CONFIGS / "kwok.yaml"
# One empty file for each part that was stopped on purpose: the keeper leaves it so.
STOPPED = STATE / "stopped"

# Sockets have short paths only, and one machine has room for one such cluster.
RUN = Path("/run/hangang-cluster")
OWNER = RUN / "owner"
# How the machine was. Not below the checkout, which may be gone before the machine starts anew.
BEFORE = RUN / "before.json"
LOCK = Path("/run/hangang-cluster.lock")
CONTAINERD_SOCKET = RUN / "containerd.sock"

CACHE = Path.home() / ".cache" / "hangang-cluster"

# A unix socket's path has at most 107 characters; the longest of the kubelet's is this much longer than its root.
LONGEST_STATE = 107 - len("/kubelet/device-plugins/kubelet.sock")

NODE = "hangang-node"
BRIDGE = "cni0"
# The machine as its pods see it. All that serves the cluster listens here or on loopback, never on the machine's
# addresses in its own network.
GATEWAY = "10.244.0.1"
PODS = "10.244.0.0/22"
GATEWAY_IN_PODS = f"{GATEWAY}/22"
# The addresses of pods on pretended nodes. Nothing is there: the machine answers at once that it has no way to them.
PRETENDED_PODS = "10.244.128.0/17"
SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
NAME_SERVICE = "10.96.0.10"
DOMAIN = "cluster.local"

API_PORT = 6443
API = f"https://{GATEWAY}:{API_PORT}"
STORE_PORT = 12379
STORE_PEER_PORT = 12380

PAUSE_IMAGE = "docker.io/hangang/pause:dev"
# Simulated: no part of this machine looks whether there is such a device.
GPUS = {"nvidia.com/gpu": "8", "nvidia.com/mig-1g.18gb": "14"}
GPU_LABELS = {"nvidia.com/gpu.product": "NVIDIA-H200"}
MOST_PODS = 500
