"""A DNS server that knows the services of the cluster: A records of NAME.NAMESPACE.svc.cluster.local (RFC 1035)."""

from __future__ import annotations

import asyncio
import ipaddress

from tests.support.kubernetes.standin.node import SERVICES, SLICES, Node
from xds_server.kubernetes.resources import Key

_HEADER = 12
_A, _IN, _TTL = 1, 1, 5
_NO_SUCH_NAME = 3
_ZONE = ["svc", "cluster", "local"]


class Dns(asyncio.DatagramProtocol):
    """Answers one question in a datagram. Every other name does not exist."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        labels, end = _labels(data)
        addresses = self._addresses(labels)
        wanted = addresses if int.from_bytes(data[end : end + 2], "big") == _A else []
        flags = bytes([0x85, 0x80 | (_NO_SUCH_NAME if addresses is None else 0)])
        answers = [_answer(one) for one in wanted or []]
        counts = b"\0\1" + len(answers).to_bytes(2, "big") + b"\0\0\0\0"
        assert self._transport is not None
        self._transport.sendto(
            data[:2] + flags + counts + data[_HEADER : end + 4] + b"".join(answers), address
        )

    def _addresses(self, labels: list[str]) -> list[str] | None:
        """Return the IPv4 addresses of a name, or None if it does not exist. A headless service has those of its pods."""
        if labels[2:] != _ZONE:
            return None
        name, namespace = labels[:2]
        service = self._node.caches[SERVICES].items.get(Key(namespace, name))
        if service is None:
            return None
        found = [one for one in service["spec"].get("clusterIPs", []) if one != "None"]
        return [one for one in found or self._pods(namespace, name) if ":" not in one]

    def _pods(self, namespace: str, name: str) -> list[str]:
        slices = [
            slice_
            for key, slice_ in self._node.items(SLICES)
            if key.namespace == namespace
            and (slice_["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == name
        ]
        return [
            address
            for slice_ in slices
            for endpoint in slice_.get("endpoints") or []
            for address in endpoint["addresses"]
        ]


def _labels(question: bytes) -> tuple[list[str], int]:
    """Return the labels of the first name, and the position after it."""
    labels, at = [], _HEADER
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode().lower())
        at += length + 1
    return labels, at + 1


def _answer(address: str) -> bytes:
    fixed = b"\xc0\x0c" + _A.to_bytes(2, "big") + _IN.to_bytes(2, "big") + _TTL.to_bytes(4, "big")
    return fixed + b"\0\4" + ipaddress.IPv4Address(address).packed
