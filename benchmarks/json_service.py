"""A service in a process of its own that gives one answer in JSON, at once or after a fixed time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from typing import Any, cast

import uvloop

from tests.support.ports import free_port


@contextlib.contextmanager
def json_service(content: Any, delays: Mapping[bytes, float] | None = None) -> Iterator[int]:
    """Run the service, and yield its port. A request with one of the texts in `delays` is answered after so many seconds."""
    port = free_port()
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(port, head.encode() + body, dict(delays or {})), daemon=True
    )
    process.start()
    try:
        yield port
    finally:
        process.terminate()
        process.join()


def _serve(port: int, answer: bytes, delays: Mapping[bytes, float]) -> None:
    uvloop.run(_serving(port, answer, delays))


async def _serving(port: int, answer: bytes, delays: Mapping[bytes, float]) -> None:
    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)  # uvloop's is of another class

        def data_received(self, data: bytes) -> None:
            delay = next((seconds for text, seconds in delays.items() if text in data), None)
            if delay is not None:
                asyncio.get_running_loop().call_later(delay, self.transport.write, answer)
            else:
                self.transport.write(answer * data.count(b"\r\n\r\n"))

    await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await asyncio.Event().wait()
