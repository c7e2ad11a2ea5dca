"""Constant load on a gateway from threads of this process, and what of it failed."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import Counter
from typing import Self

import httpx


class Load:
    """HTTP/1.1 keep-alive, HTTP/1.1 with a connection for each request, and HTTP/2 with prior knowledge.

    `failures` counts what was no 200, by what it was instead. Use as a context manager.
    """

    def __init__(self, port: int, path: str = "/", context: ssl.SSLContext | None = None) -> None:
        self.done = 0
        self.failures: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()
        self._port = port
        self._path = path
        self._context = context
        self._stop = threading.Event()
        loops = [self._keep_alive, self._fresh] + ([] if context else [self._http2])
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        return http.client.HTTPSConnection("localhost", self._port, timeout=10, context=self._context)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", self._path)
        answer = connection.getresponse()
        self._count(answer.status, answer.read())

    def _count(self, status: int, body: bytes) -> None:
        self.done += 1
        if status != 200:
            self.failures[f"{status} {body[:200]!r}"] += 1

    def _keep_alive(self) -> None:
        connection = self._connection()
        while not self._stop.is_set():
            try:
                self._ask(connection)
                if connection.sock is None:
                    self.failures["connection closed"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures[repr(error)] += 1
                connection.close()
        connection.close()

    def _fresh(self) -> None:
        while not self._stop.is_set():
            connection = self._connection()
            try:
                self._ask(connection)
            except (OSError, http.client.HTTPException) as error:
                self.failures[repr(error)] += 1
            connection.close()

    def _http2(self) -> None:
        with httpx.Client(http1=False, http2=True, timeout=10) as client:
            while not self._stop.is_set():
                try:
                    answer = client.get(f"http://127.0.0.1:{self._port}{self._path}")
                    self._count(answer.status_code, answer.content)
                except httpx.HTTPError as error:
                    self.failures[repr(error)] += 1
