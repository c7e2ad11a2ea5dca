"""Gateways read from text in a test."""

from __future__ import annotations

from collections.abc import Mapping

from xds_server.gateway.reader import Reader, Reading


def load(path: str) -> bytes:
    """No file beside the gateway exists."""
    raise FileNotFoundError(2, "No such file or directory", path)


def read(text: str | Mapping[str, str], environment: Mapping[str, str] | None = None) -> Reading:
    """Read one file, or several by name."""
    texts = {"gateway.yaml": text} if isinstance(text, str) else text
    files = {name: content.encode() for name, content in texts.items()}
    return Reader().read(files, load, environment or {})


def warnings(reading: Reading) -> list[str]:
    """What a gateway without errors is warned of, as ``path: message``."""
    assert not reading.errors, reading.errors
    return [f"{problem.where}: {problem.message}" for problem in reading.problems]
