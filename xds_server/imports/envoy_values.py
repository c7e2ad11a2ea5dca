"""Values that many messages of Envoy's API have."""

from __future__ import annotations

import re

from xds_server.imports.draft import Draft, duration, usable
from xds_server.imports.source import Field

_LONGEST = 10**9
"""Seconds of the longest duration."""


def typed(field: Field | None) -> Field | None:
    """Return the `typed_config` of an extension, None if it has none. Its name and its type count as read."""
    if field is None:
        return None
    field.text("name")
    found = field.get("typed_config")
    if found is not None:
        found.text("@type")
    return found


def type_of(field: Field | None) -> str:
    """Return the name of the message that an extension has, without its package, or nothing."""
    found = typed(field)
    return found.text("@type").rpartition(".")[2] if found is not None else ""


def milliseconds(field: Field | None) -> str | None:
    """Return a duration of Envoy (`1.5s`) as one of the language, None if there is none."""
    text = field.text() if field is not None else ""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)s", text)
    if found is None or float(found[1]) >= _LONGEST:
        return None
    return duration(float(found[1]) * 1000) if float(found[1]) else "0s"


def address_of(field: Field | None) -> tuple[str, int | None]:
    """Return host and port of an address, no port if it is none of TCP."""
    socket = field.get("socket_address") if field is not None else None
    if socket is None or socket.text("protocol", default="TCP") != "TCP":
        return "", None
    port = socket.number("port_value")
    return socket.text("address"), int(port) if port is not None and 0 < port < 2**16 else None


def secret(field: Field | None, draft: Draft, suffix: str) -> dict[str, str]:
    """Return a data source: its file, or a new file with what is inline."""
    if field is None:
        return {"file": f"missing{suffix}"}
    if file := field.text("filename"):
        return {"file": file}
    if variable := field.text("environment_variable"):
        return {"env": variable}
    content = field.text("inline_string")
    name = f"secrets/{usable('-'.join(map(str, field.path[-4:])))}{suffix}"
    draft.files[name] = content.encode()
    return {"file": name}
