"""The node that a client sends, without the parts that only Envoy needs (its list of extensions takes 20 KiB)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from google.protobuf import json_format

_MINOR = re.compile(r"(\d+\.\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A client's claims about itself. The server has to decide which of them it trusts."""

    id: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    agent: str = ""
    version: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """The program with its minor version, such as ``envoy 1.40``, or "" if the client names no program.

        Clients of one release accept and reject the same resources.
        """
        number = _MINOR.match(self.version)
        return " ".join([self.agent, *(number.groups() if number else ())]) if self.agent else ""

    @classmethod
    def of(cls, message: base_pb2.Node) -> Node:
        """Return the node of a first request."""
        version = message.user_agent_build_version.version
        number = f"{version.major_number}.{version.minor_number}.{version.patch}"
        return cls(
            id=message.id,
            cluster=message.cluster,
            region=message.locality.region,
            zone=message.locality.zone,
            sub_zone=message.locality.sub_zone,
            agent=message.user_agent_name,
            version=message.user_agent_version or (number if number != "0.0.0" else ""),
            metadata=json_format.MessageToDict(message.metadata),
        )
