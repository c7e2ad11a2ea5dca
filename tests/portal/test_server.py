"""The socket of the portal."""

from __future__ import annotations

import socket

from tests.support.ports import free_port
from xds_server.portal.server import listening_socket


def test_responses_are_sent_without_delay() -> None:
    """asyncio sets TCP_NODELAY only for sockets that it made itself."""
    port = free_port()
    with (
        listening_socket(f"127.0.0.1:{port}") as listening,
        socket.create_connection(("127.0.0.1", port)),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
