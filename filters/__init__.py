"""The policies. `pipeline.py` imports them all, so only a process that translates gateways imports that."""
