"""How the connections of a pod come to its sidecar: what the redirect, the sidecar and its configuration agree on."""

from __future__ import annotations

INJECT = "xds-gateway.dev/inject"
"""The label of a namespace whose pods get a sidecar, if its value is `enabled`; with `disabled`, a pod gets none."""
OUTBOUND_PORT, INBOUND_PORT = 15001, 15006
"""The ports of the sidecar to which connections from and to the pod are redirected."""
ANY_ADDRESS = "::"
"""Where the sidecar listens at these ports: for IPv4 and IPv6."""
APPLICATION_SOURCE, APPLICATION_SOURCE_IPV6 = "127.0.0.6", "::1"
"""The addresses from which the sidecar connects to its application, which tell these connections from all others."""
SIDECAR = "xds-gateway.dev/sidecar"
"""The label of pods with a sidecar."""
