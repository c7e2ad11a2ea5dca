"""The policy server: an xDS client of the control plane that decides what only Python can decide."""
