"""Have the real Envoy check a static configuration (``envoy --mode validate``)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from envoy.config.bootstrap.v3 import bootstrap_pb2

from tests.support.envoy import binary

LIMIT = 120
"""Seconds until Envoy is given up."""


def complaint(bootstrap: bootstrap_pb2.Bootstrap) -> str | None:
    """What Envoy has against the configuration, None when it accepts it."""
    with tempfile.TemporaryDirectory(prefix="xds-validate-") as folder:
        file = Path(folder) / "bootstrap.pb"
        file.write_bytes(bootstrap.SerializeToString(deterministic=True))
        command = [
            str(binary()),
            "--mode",
            "validate",
            "-c",
            str(file),
            "-l",
            "error",
            "--use-dynamic-base-id",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()
