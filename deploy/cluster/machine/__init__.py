"""What makes a one-node Kubernetes on one machine: its programs, processes, network, volumes and simulated GPUs."""
