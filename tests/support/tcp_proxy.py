"""A TCP proxy between a client and a server of a test, which cuts, delays and freezes connections."""

from __future__ import annotations

import asyncio
from typing import Self

_CHUNK = 2**16


class TcpProxy:
    """Forwards connections of a port of 127.0.0.1 to another one. Use as an asynchronous context manager.

    `delay` is the seconds by which each part of a response is late. While `frozen`, connections stay open and carry no
    response. While not `open`, new connections are closed at once.
    """

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.open = True
        self.accepted = 0
        """The number of connections so far."""
        self._target = port
        self._moving = asyncio.Event()
        self._moving.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    @property
    def port(self) -> int:
        """The port to connect to."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Break every connection."""
        self._moving.set()
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self) -> None:
        """Carry no response from now on, also on new connections, until `cut` or `thaw`."""
        self._moving.clear()

    def thaw(self) -> None:
        """Carry responses again."""
        self._moving.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        self.accepted += 1
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, there_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pump(reader, there_writer, late=False), self._pump(there_reader, writer, late=True)
            )
        except OSError:  # one half broke: both end
            pass
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, late: bool) -> None:
        while content := await reader.read(_CHUNK):
            if late:
                await self._moving.wait()
                await asyncio.sleep(self.delay)
            writer.write(content)
            await writer.drain()
        writer.write_eof()
