"""Floods of loopback, bounded in number and time: clients that are slow, that reset, that send many headers or ask for everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import h2.config
import h2.connection
import h2.events
import h2.exceptions

HOST = "127.0.0.1"
_PATIENCE = 60.0
"""Seconds after which an attack ends, whatever the gateway does."""


async def slow_headers(port: int, connections: int) -> list[bytes]:
    """Open connections that send one byte of a request's headers every tenth of a second, until the gateway ends them.

    Returns the beginning of what the gateway sent to each.
    """
    return list(await asyncio.gather(*(_slow(port) for _ in range(connections))))


async def _slow(port: int) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    answer = asyncio.create_task(reader.read(4096))
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ")
            while not answer.done() and not writer.is_closing():
                writer.write(b"a")
                await asyncio.wait([answer], timeout=0.1)
    writer.close()
    with contextlib.suppress(OSError):
        return await asyncio.wait_for(answer, 5)
    return b""


async def rapid_resets(port: int, streams: int, path: str = "/") -> int:
    """Open streams of one HTTP/2 connection and reset each at once. Returns how many the gateway took before it closed."""
    reader, writer = await asyncio.open_connection(HOST, port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
    sent = 0
    reading = asyncio.create_task(_until_closed(reader, connection))
    with contextlib.suppress(OSError, TimeoutError, h2.exceptions.ProtocolError):
        async with asyncio.timeout(_PATIENCE):
            while sent < streams and not reading.done() and not writer.is_closing():
                number = connection.get_next_available_stream_id()
                connection.send_headers(number, headers, end_stream=True)
                connection.reset_stream(number)
                writer.write(connection.data_to_send())
                sent += 1
                if not sent % 10:
                    await writer.drain()
                    await asyncio.sleep(0)
            await asyncio.wait([reading], timeout=1)
    reading.cancel()
    writer.close()
    return sent


async def _until_closed(reader: asyncio.StreamReader, connection: h2.connection.H2Connection) -> None:
    """Read frames until the gateway says GOAWAY, or closes."""
    with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
        while data := await reader.read(65536):
            events = connection.receive_data(data)
            if any(isinstance(one, h2.events.ConnectionTerminated) for one in events):
                return


async def requests(port: int, texts: Iterable[bytes], at_once: int = 20) -> list[int]:
    """Send requests of HTTP/1.1, each over a connection of its own. Returns their statuses, 0 for none."""
    slots = asyncio.Semaphore(at_once)

    async def one(text: bytes) -> int:
        async with slots:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_PATIENCE):
                    reader, writer = await asyncio.open_connection(HOST, port)
                    writer.write(text)
                    status = int((await reader.readuntil(b"\r\n")).split(b" ")[1])
                    writer.close()
                    return status
        return 0

    return list(await asyncio.gather(*(one(text) for text in texts)))


def get(path: str, *headers: bytes) -> bytes:
    """A request."""
    lines = [f"GET {path} HTTP/1.1".encode(), b"host: a", *headers, b"connection: close", b"", b""]
    return b"\r\n".join(lines)


async def idle_connections(port: int, connections: int, until: asyncio.Event) -> int:
    """Open connections that send nothing until an event. Returns how many the gateway kept open."""
    opened = []
    for _ in range(connections):
        with contextlib.suppress(OSError):
            opened.append(await asyncio.open_connection(HOST, port))
    await until.wait()
    kept = sum(not reader.at_eof() for reader, _ in opened)
    for _, writer in opened:
        writer.close()
    return kept
