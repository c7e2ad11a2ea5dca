"""Limits when clients, proxies, policy servers and Redis go away in the middle: what is counted, what is given back."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.ports import free_port
from tests.support.valkey import Valkey
from tests.support.wait import wait_for

SIZE = 1_000_000


class Stalling:
    """Answers each request with `part` bytes of SIZE that it promises, and waits. Use as a context manager."""

    def __init__(self, part: int) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.seen = 0
        self._part = part
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that waits in accept() is woken by shutdown and not by close.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in self._open:
            one.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._open.append(connection)
                connection.recv(65536)
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"
                connection.sendall(head.encode() + bytes(self._part))
                self.seen += 1


class Faults:
    """A gateway with limits, and what their counters say, in memory or in Redis."""

    def __init__(self, stack: Stack, backend: Backend, valkey: Valkey | None, *, checked: bool) -> None:
        self.stack, self.backend, self.valkey, self.checked = stack, backend, valkey, checked

    def used(self, key: str) -> int:
        """What is counted under the key, 0 where nothing is."""
        if self.valkey is None:
            shown = httpx.get(f"http://{self.stack.policy_server.admin}/limits").json()["counters"]
            return sum(one["used"] for one in shown if one["key"] == key)
        stored = f"xds:2:{{{key.rpartition('|')[2]}}}{key}"
        if "concurrency" in key:
            return int(self.valkey.ask("ZCARD", stored))  # type: ignore[call-overload, no-any-return]
        return self.valkey.used(stored)

    @contextlib.contextmanager
    def under_way(self, path: str, key: str) -> Iterator[Callable[[], httpx.Response]]:
        """A request that holds a slot while the upstream waits, and what lets it end."""
        self.backend.release = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(self.stack.get, path)
            try:
                wait_for(lambda: self.used(key) == 1, "the slot to be taken")
                release = self.backend.release

                def end() -> httpx.Response:
                    release.set()
                    return asking.result()

                yield end
            finally:
                self.backend.release.set()
                self.backend.release = None


def slots(name: str) -> str:
    return f"route/{name}|concurrent-requests|concurrency|route={name}"


def sizes(name: str, direction: str) -> str:
    return f"route/{name}|content-bytes-{direction}|fixed_window|month|route={name}"


POLICY = """
from filters.ext_authz import Decision, Request, allow

async def check(request: Request) -> Decision:
    return allow()
"""


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}, stalling: {endpoints: [$stalling]}}
$policies
routes:
  given-up: {path: /given-up, upstream: echo, policies: {concurrency: {requests: 100000, by: route}}}
  left: {path: /left, upstream: stalling, timeout: 0, policies: {concurrency: {requests: 5, by: route}, quota: {bytes: 10MB, per: month, by: route, direction: out}}}
  upload: {path: /upload, upstream: echo, policies: {quota: {bytes: 10MB, per: month, by: route, direction: in}}}
  leased: {path: /leased, upstream: echo, policies: {concurrency: {requests: 1, by: route, lease: 2s}}}
  killed: {path: /killed, upstream: echo, policies: {concurrency: {requests: 1, by: route, lease: 2s}, quota: {bytes: 10MB, per: month, by: route, direction: out}, rate_limit: {requests: 50, per: month, by: route}}}
  told: {path: /told, upstream: echo, policies: {rate_limit: {requests: 1000, per: month, by: route}}}
"""


@pytest.fixture(scope="module", params=["memory", "redis", "check"])
def faults(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stacks: Stacks
) -> Iterator[Faults]:
    """Counters in memory, in Redis, and in memory with a policy in Python whose Check decides limits too."""
    policies = (
        'policies: {ext_authz: {python: "p.py:check", timeout: 20s}}' if request.param == "check" else ""
    )
    with contextlib.ExitStack() as started:
        valkey = None
        if request.param == "redis":
            valkey = started.enter_context(Valkey(tmp_path_factory.mktemp("valkey")))
        echo, stalling = started.enter_context(Backend("echo")), started.enter_context(Stalling(300))
        stack = stacks.start(
            YAML,
            files={"p.py": POLICY},
            tcp=True,
            arguments=("--counters", valkey.url) if valkey else (),
            echo=echo.address,
            stalling=stalling.address,
            policies=policies,
        )
        wait_for(lambda: "ratelimit" in stack.get("/told").headers, "the first decision")
        yield Faults(stack, echo, valkey, checked=bool(policies))


def reset_requests(port: int, path: str, count: int) -> None:
    """HTTP/2 requests that are given up at once, or as soon as they are on their way to the policy server."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(client.data_to_send())
        pause = threading.Event()
        for number in range(count):
            stream = 2 * number + 1
            fields = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "a")]
            client.send_headers(stream, fields, end_stream=True)
            connection.sendall(client.data_to_send())
            pause.wait(number % 10 * 0.0001)
            client.reset_stream(stream)
            connection.sendall(client.data_to_send())
        # All of them have come when the PING is answered.
        client.ping(b"are they")
        connection.sendall(client.data_to_send())
        connection.settimeout(30)
        while not any(isinstance(one, h2.events.PingAckReceived) for one in _heard(client, connection)):
            pass


def _heard(client: h2.connection.H2Connection, connection: socket.socket) -> list[h2.events.Event]:
    received = connection.recv(65536)
    assert received
    return client.receive_data(received)


def test_requests_that_are_given_up_while_they_are_decided_hold_no_slots(faults: Faults) -> None:
    assert faults.stack.get("/given-up").status_code == 200
    for _ in range(4):
        reset_requests(faults.stack.listener, "/given-up", 60)
    wait_for(lambda: faults.used(slots("given-up")) == 0, "all slots to be given back")
    assert (
        faults.stack.get("/given-up")
        .headers["ratelimit"]
        .startswith('"concurrent-requests-by-route";r=99999')
    )


def test_a_client_that_leaves_gives_its_slot_back_and_pays_for_what_it_got(faults: Faults) -> None:
    with socket.create_connection(("127.0.0.1", faults.stack.listener)) as client:
        client.sendall(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n")
        got = b""
        while not got.endswith(bytes(300)):
            got += client.recv(65536)
        assert faults.used(slots("left")) == 1
        assert faults.used(sizes("left", "out")) == 0
    wait_for(lambda: faults.used(slots("left")) == 0, "the slot to be given back")
    wait_for(lambda: faults.used(sizes("left", "out")) == 300, "the bytes to count")


def test_an_upload_that_is_broken_off_pays_for_what_came_and_not_for_its_promise(faults: Faults) -> None:
    before = sent_upstream(faults)
    with socket.create_connection(("127.0.0.1", faults.stack.listener)) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000000\r\n\r\n" + bytes(500))
        wait_for(lambda: sent_upstream(faults) >= before + 500, "the upload to begin")
    wait_for(lambda: faults.used(sizes("upload", "in")) > 0, "the bytes to count")
    assert 500 <= faults.used(sizes("upload", "in")) < 2000  # with its headers
    assert httpx.post(faults.stack.url + "/upload", content=bytes(400)).status_code == 200


def sent_upstream(faults: Faults) -> int:
    """Bytes that the Envoy has sent to the upstream, of all requests so far."""
    return faults.stack.envoy.stats(r"^cluster\.echo\.upstream_cx_tx_bytes_total$").popitem()[1]


def test_slots_of_an_envoy_that_was_killed_come_back_after_their_lease(faults: Faults) -> None:
    with faults.under_way("/leased", slots("leased")):
        faults.stack.envoy.kill()
    wait_for(lambda: faults.used(slots("leased")) == 0, "the lease to end")
    faults.stack.envoy.start()
    faults.stack.envoy.ready()
    wait_for(lambda: "ratelimit" in faults.stack.get("/leased").headers, "the first decision")
    wait_for(lambda: faults.used(slots("leased")) == 0, "the slot to be given back")


def test_a_policy_server_that_is_killed_costs_no_request(
    faults: Faults,
) -> None:
    """What is in Redis outlives it: windows go on, and slots whose end nobody heard come back after their lease."""
    window = "route/killed|requests|fixed_window|month|route=killed"
    server = faults.stack.policy_server
    with faults.under_way("/killed", slots("killed")) as end:
        server.stop(signal.SIGKILL)
        assert end().status_code == 200
        # Nobody counts: on_error is allow. A policy in Python that cannot be asked closes.
        assert faults.stack.get("/killed").status_code == (503 if faults.checked else 200)
    server.start()
    server.ready()
    if faults.valkey is not None:
        assert faults.used(window) == 1
        wait_for(lambda: faults.used(slots("killed")) == 0, "the lease to end")
    before = faults.used(window)
    wait_for(lambda: "ratelimit" in faults.stack.get("/killed").headers, "decisions by the new process")
    assert faults.used(window) == before + 1
    wait_for(lambda: faults.used(slots("killed")) == 0, "the slot to be given back")
    wait_for(lambda: faults.used(sizes("killed", "out")) > 0, "the bytes of the last request to count")
