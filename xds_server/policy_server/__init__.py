"""The policy server: an xDS client of the control plane that decides what Envoy cannot decide."""
