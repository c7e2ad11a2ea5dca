"""Calls whose answers come in parts, such as streams of events. Each has a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import httptools

from xds_server.composer.calls import Answer, Call, CallFailed
from xds_server.composer.http_client import MOST_HEADERS, written

_PART = 1 << 16


class _Parsed:
    """What has arrived of an answer, and was not taken yet."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.begun = self.ended = False
        self.parts: list[bytes] = []
        self.size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.size += len(name) + len(value)
        if self.size > MOST_HEADERS:
            raise CallFailed("too_large", "the headers of the answer are too large")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.ended = True


async def stream(address: str, call: Call) -> AsyncGenerator[Answer | bytes]:
    """Make a call through Envoy at `address`. Raises CallFailed. Closing the generator ends the call."""
    try:
        async with asyncio.timeout(call.timeout):
            reader, writer = await _opened(address)
    except TimeoutError:
        raise CallFailed("timeout", "Envoy does not accept connections") from None
    except OSError as error:
        raise CallFailed("unreachable", f"cannot connect to Envoy: {error}") from None
    parsed = _Parsed()
    parser = httptools.HttpResponseParser(parsed)
    told = False
    try:
        writer.write(written(call))
        while not parsed.ended:
            data = await reader.read(_PART)
            if not data:
                raise CallFailed("unreachable", "the answer was cut off")
            parser.feed_data(data)
            if parsed.begun and not told:
                told = True
                yield Answer(status=parser.get_status_code(), headers=parsed.headers, body=b"")
            parts, parsed.parts = parsed.parts, []
            for part in parts:
                yield part
    except (OSError, httptools.HttpParserError) as error:
        raise CallFailed("unreachable", f"the answer was cut off: {error}") from None
    finally:
        writer.transport.abort()


async def _opened(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))
