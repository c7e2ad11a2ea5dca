"""Answers that last: server-sent events, downloads and long polls, with and without a time limit."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import Gateway, Gateways
from xds_server.gateway.model.routes import TIMEOUT

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


class Events:
    """An upstream that answers with an event, and with another one and the end when it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:" + str(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            asked = connection.recv(65536)
            if b"/never" not in asked:
                connection.sendall(HEAD + b"data: first\n\n")
            self.release.wait(60)
            connection.sendall(b"data: last\n\n")

    def close(self) -> None:
        self.release.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture(scope="module")
def events() -> Iterator[Events]:
    with contextlib.closing(Events()) as upstream:
        yield upstream


YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {events: {endpoints: ["$events"]}}
routes:
  unlimited: {path: /unlimited, upstream: events, timeout: 0}
  begun: {path: /begun/*, upstream: events, timeout: 0, retry: {attempts: 0, per_try_timeout: 2s}}
  limited: {path: /limited, upstream: events, timeout: 2s}
  idle: {path: /idle, upstream: events, timeout: 0, idle_timeout: 2s}
"""


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, events: Events) -> Gateway:
    return gateways.start(YAML, events=events.address)


def test_a_time_limit_and_an_idle_limit_end_what_has_begun(gateway: Gateway) -> None:
    for path in ("/limited", "/idle"):
        with pytest.raises(httpx.RemoteProtocolError):
            gateway.get(path)


def test_the_beginning_of_an_answer_has_a_limit_of_its_own(gateway: Gateway) -> None:
    answer = gateway.get("/begun/never")
    assert (answer.status_code, answer.json()["reason"]) == (504, "upstream_timeout")


def test_events_last_where_there_is_no_time_limit(gateway: Gateway, events: Events, tmp_path: Path) -> None:
    with gateway.client() as client, contextlib.ExitStack() as opened:
        streams = [opened.enter_context(client.stream("GET", path)) for path in ("/unlimited", "/begun/x")]
        read = [one.iter_bytes() for one in streams]
        assert [next(one) for one in read] == [b"data: first\n\n"] * 2
        threading.Event().wait(TIMEOUT.total_seconds() + 1)
        events.release.set()
        assert [b"".join(one) for one in read] == [b"data: last\n\n"] * 2
