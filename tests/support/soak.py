"""A soak: a gateway whose routes and keys change and whose processes are killed, while each response is checked.

tests/support/versions.py says when a response is right.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.backend import Backend
from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.valkey import Valkey
from tests.support.versions import Observer, Version
from tests.support.wait import wait_for

LIMIT = 3000


GATEWAY = """
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams: {{echo: {{endpoints: [{echo}]}}}}
routes:
  key: {{path: /key, upstream: echo, policies: {{api_key: true}}}}
  limited: {{path: /limited, upstream: echo, policies: {{rate_limit: {{requests: {limit}, per: month, on_error: deny}}}}}}
"""


@dataclass(slots=True)
class Soak:
    """What was seen. `observer.wrong` describes each response that no version explains."""

    folder: Path
    chance: random.Random
    observer: Observer
    lost: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def publish(self) -> None:
        """Write the next version, and wait until requests see it."""
        version = self.observer.versions[-1].next(self.chance)
        self.observer.versions.append(version)
        version.write(self.folder)
        wait_for(lambda: self.observer.sees(version.number), f"version {version.number} to be seen")
        self.observer.seen = version.number

    def clients(self) -> list[threading.Thread]:
        """Start clients that check each response until `end`."""
        asks = [self.observer.route, self.observer.key, self._limited, self.observer.route]
        found = [threading.Thread(target=self._client, args=(ask, number)) for number, ask in enumerate(asks)]
        for one in found:
            one.start()
        return found

    def end(self) -> None:
        self._ended.set()

    def _client(self, ask: Callable[[httpx.Client, random.Random], None], number: int) -> None:
        chance = random.Random(number)
        while not self._ended.is_set():
            with self.observer.client() as client:
                try:
                    for _ in range(100):
                        ask(client, chance)
                except httpx.TransportError:
                    self.lost += 1

    def _limited(self, client: httpx.Client, _chance: random.Random) -> None:
        found = client.get("/limited")
        right = 429 if found.status_code == 429 else 200
        self.observer.check("limited", found, right, frozenset({"rate_limit_unavailable"}))


def soak(folder: Path, seconds: float, seed: int) -> Soak:
    """Run for about so many seconds. The caller checks what was seen."""
    chance = random.Random(seed)
    with ExitStack() as started:
        backend = started.enter_context(Backend("echo"))
        valkey = started.enter_context(Valkey(folder))
        gateway = folder / "gateway"
        gateway.mkdir()
        port = free_port()
        found = Soak(gateway, chance, Observer(f"http://127.0.0.1:{port}", [Version()]))
        (gateway / "gateway.yaml").write_text(GATEWAY.format(port=port, echo=backend.address, limit=LIMIT))
        policy = f"127.0.0.1:{free_port()}"
        found.observer.versions[-1].write(gateway)
        run = started.enter_context(Running(gateway, folder, "--policy-server", policy))
        arguments = ("--counters", valkey.url)
        servers = [PolicyServerProcess(run.xds_address, policy, folder, *arguments) for _ in range(2)]
        for server in servers:
            started.enter_context(server)
        found.publish()
        clients = found.clients()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end or len(found.observer.versions) < 6:
                with _fault(chance, run, servers, valkey):
                    found.publish()
        finally:
            found.end()
            for client in clients:
                client.join()
    return found


@contextmanager
def _fault(
    chance: random.Random, run: Running, servers: list[PolicyServerProcess], valkey: Valkey
) -> Iterator[None]:
    """Kill a process, or pause Redis for a while, or do nothing."""
    kind = chance.choice(["envoy", "policy server", "redis", "nothing", "nothing", "nothing"])
    if kind == "envoy":
        os.kill(chance.choice(_envoys(run)), signal.SIGKILL)
    elif kind == "policy server":
        server = chance.choice(servers)
        server.stop(signal.SIGKILL)
        server.start()
    elif kind == "redis":
        valkey.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if kind == "redis":
            valkey.signal(signal.SIGCONT)


def _envoys(run: Running) -> list[int]:
    """The process that serves and the one that proves."""
    assert run.process is not None
    pid = run.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(one) for one in children if Path(f"/proc/{one}/comm").read_text().strip() == "envoy"]
    assert found, "xds run has an Envoy"
    return found
