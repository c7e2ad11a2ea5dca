"""The control plane of a Kubernetes cluster: it serves the Gateways of its class, and writes what is true of them."""
