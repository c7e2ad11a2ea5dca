"""What the usage log and the usage server agree on. It imports nothing large, because the server needs nothing else."""

from __future__ import annotations

from datetime import timedelta

SERVICE = "usage"
"""The name of our own service that takes the entries."""
VERSION = "1"
"""The first field of each entry. It changes with the fields (usage_log.FIELDS)."""
SEPARATOR = "\t"
PATIENCE = timedelta(hours=1)
"""How long Envoy sends a batch again. The usage server recognizes a batch for longer than that."""
BATCH = 16 << 10
"""Bytes after which Envoy sends a batch. A batch of more than 64 KiB would not be sent again after a failure."""
MOST_BATCHES = 8192
"""Batches that an Envoy keeps while it cannot send them: 128 MiB, if they are full. It drops what exceeds that."""
