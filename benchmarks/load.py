"""A client that sends requests as fast as the server responds.

It uses HTTP/1.1, with one request at a time on each of many kept connections.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

CONNECTIONS = 32
_LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: chunked\r\n", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"


class _Asking(asyncio.Protocol):
    """Keeps one request in progress on a connection and counts the responses."""

    def __init__(self, requests: Sequence[bytes], first: int, status: bytes) -> None:
        self.answers = 0
        self._requests, self._next = requests, first
        self._expected = b"HTTP/1.1 " + status
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += CONNECTIONS

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[: end + 2]
        if not head.startswith(self._expected):
            raise RuntimeError(head.decode())
        length = _LENGTH.search(head)
        if _CHUNKED.search(head):
            complete = self._buffer.endswith(_LAST_CHUNK)
        else:
            complete = len(self._buffer) >= end + 4 + (int(length[1]) if length else 0)
        if complete:
            self._buffer = b""
            self.answers += 1
            self._ask()


@dataclass(frozen=True, slots=True)
class Measured:
    """Responses per second, and the server's own CPU time per response.

    Other work on the machine hardly affects the CPU time.
    """

    rate: float
    cpu_microseconds: float


def cpu(process: int) -> float:
    """Return the seconds of CPU time that a process has used (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _run(port: int, requests: Sequence[bytes], status: bytes, seconds: float, process: int) -> Measured:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    asking = []
    for number in range(CONNECTIONS):
        _, one = await loop.create_connection(
            lambda number=number: _Asking(requests, number, status), "127.0.0.1", port
        )
        asking.append(one)
    await asyncio.sleep(0.3)
    before, start, spent = sum(one.answers for one in asking), time.perf_counter(), cpu(process)
    await asyncio.sleep(seconds)
    took, used = time.perf_counter() - start, cpu(process) - spent
    answers = sum(one.answers for one in asking) - before
    if failures:
        raise RuntimeError(str(failures[0]))
    return Measured(answers / took, used / answers * 1e6)


def measure(
    port: int, requests: Sequence[bytes], process: int, *, status: int = 200, seconds: float = 2.0
) -> Measured:
    """Send `requests` in turn to 127.0.0.1:`port`, which `process` serves. Raises RuntimeError for another status."""
    return uvloop.run(_run(port, requests, str(status).encode(), seconds, process))


def get(path: str, **headers: str) -> bytes:
    """Return a request. Underscores in names of headers become hyphens."""
    lines = [f"GET {path} HTTP/1.1", "host: benchmark"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
