"""A client for HTTP/3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent


class Http3Client(QuicConnectionProtocol):
    """One request over HTTP/3. Use with aioquic's `connect`."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._http = H3Connection(self._quic)
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.done = asyncio.get_running_loop().create_future()

    def ask(self, host: str, path: str) -> None:
        stream = self._quic.get_next_available_stream_id()
        names = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path}
        headers = [(name.encode(), value.encode()) for name, value in names.items()]
        self._http.send_headers(stream, headers, end_stream=True)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        for one in self._http.handle_event(event):
            if isinstance(one, HeadersReceived):
                self.headers |= dict(one.headers)
            if isinstance(one, DataReceived):
                self.body += one.data
            if getattr(one, "stream_ended", False) and not self.done.done():
                self.done.set_result(None)


@asynccontextmanager
async def http3(
    port: int, server_name: str, authorities: Path, certificate: tuple[str, ...] = ()
) -> AsyncIterator[Http3Client]:
    """Connect to 127.0.0.1, trusting the PEM file `authorities`, with a certificate and key file if they are given."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=server_name)
    configuration.load_verify_locations(str(authorities))
    if certificate:
        configuration.load_cert_chain(*certificate)
    async with connect(
        "127.0.0.1", port, configuration=configuration, create_protocol=Http3Client
    ) as connection:
        assert isinstance(connection, Http3Client)
        yield connection
