"""A soak: a gateway whose routes and keys change and whose processes are killed, while each response is checked.

The model knows every version of the gateway. A response is right if it is that of a version which may have been served
while the request was in progress: not older than what was seen before it began, not newer than what was written when it
ended.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.backend import Backend
from tests.support.identity_cases import sha256
from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.valkey import Valkey
from tests.support.wait import wait_for

ROUTES, KEYS, LIMIT = 200, 20, 3000


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the gateway: the bodies of its routes, and its valid keys."""

    number: int
    bodies: dict[int, str]
    keys: frozenset[str]

    def next(self, chance: random.Random) -> Version:
        """The version after it: routes that come, go or change, and keys that come or go."""
        number, bodies = self.number + 1, dict(self.bodies)
        for at in chance.sample(range(ROUTES), 5):
            if at in bodies and chance.random() < 0.4:
                del bodies[at]
            else:
                bodies[at] = f"{at} of {number}"
        return Version(number, bodies, self.keys ^ {f"key-{chance.randrange(KEYS)}"})

    def files(self) -> Iterator[tuple[str, str]]:
        """The files that change, by name."""
        routes = [
            f"  r-{at}: {{path: /r/{at}/*, respond: {{body: {body!r}}}}}" for at, body in self.bodies.items()
        ]
        routes.append(f"  version: {{path: /version, respond: {{body: '{self.number}'}}}}")
        yield "routes.yaml", "routes:\n" + "\n".join(sorted(routes)) + "\n"
        keys = sorted({*self.keys, f"version-{self.number}"})
        listed = ", ".join(f"{{sha256: {sha256(key)}}}" for key in keys)
        yield "consumers.yaml", f"consumers: {{all: {{api_keys: [{listed}]}}}}\n"


GATEWAY = """
listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}
upstreams: {{echo: {{endpoints: [{echo}]}}}}
routes:
  key: {{path: /key, upstream: echo, policies: {{api_key: true}}}}
  limited: {{path: /limited, upstream: echo, policies: {{rate_limit: {{requests: {limit}, per: month, on_error: deny}}}}}}
"""


@dataclass(slots=True)
class Soak:
    """What was seen. `wrong` describes each response that no version explains."""

    folder: Path
    chance: random.Random
    port: int = field(default_factory=free_port)
    versions: list[Version] = field(default_factory=list)
    seen: int = 0
    """The number of the version that every request sees which begins now."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def publish(self) -> None:
        """Write the next version, and wait until requests see it."""
        version = self.versions[-1].next(self.chance) if self.versions else Version(0, {}, frozenset())
        self.versions.append(version)
        for name, text in version.files():
            new = self.folder / f".{name}"
            new.write_text(text)
            new.rename(self.folder / name)
        wait_for(lambda: self._is_seen(version.number), f"version {version.number} to be seen")
        self.seen = version.number

    def _is_seen(self, number: int) -> bool:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
            key = {"x-api-key": f"version-{number}"}
            return (
                client.get("/version").text == str(number)
                and client.get("/key", headers=key).status_code == 200
            )

    def clients(self) -> list[threading.Thread]:
        """Start clients that check each response until `end`."""
        asks = [self._route, self._key, self._limited, self._route]
        found = [threading.Thread(target=self._client, args=(ask, number)) for number, ask in enumerate(asks)]
        for one in found:
            one.start()
        return found

    def end(self) -> None:
        self._ended.set()

    def _client(self, ask: Callable[[httpx.Client, random.Random], None], number: int) -> None:
        chance = random.Random(number)
        while not self._ended.is_set():
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
                try:
                    for _ in range(100):
                        ask(client, chance)
                except httpx.TransportError:
                    self.lost += 1

    def _between(self, first: int) -> list[Version]:
        return self.versions[first:]

    def _route(self, client: httpx.Client, chance: random.Random) -> None:
        at, first = chance.randrange(ROUTES), self.seen
        found = client.get(f"/r/{at}/x")
        self.statuses["route", found.status_code] += 1
        right = {one.bodies.get(at) for one in self._between(first)}
        if (found.text if found.status_code == 200 else None) not in right or found.status_code not in (
            200,
            404,
        ):
            self.wrong.append(f"/r/{at}: {found.status_code} {found.text!r}, right: {right}")

    def _key(self, client: httpx.Client, chance: random.Random) -> None:
        key, first = f"key-{chance.randrange(KEYS)}", self.seen
        found = client.get("/key", headers={"x-api-key": key})
        self.statuses["key", found.status_code] += 1
        right = {200 if key in one.keys else 401 for one in self._between(first)}
        if found.status_code not in right:
            self.wrong.append(f"{key}: {found.status_code}, right: {right}")

    def _limited(self, client: httpx.Client, _chance: random.Random) -> None:
        found = client.get("/limited")
        self.statuses["limited", found.status_code] += 1
        if found.status_code not in (200, 429, 503):
            self.wrong.append(f"/limited: {found.status_code}")


def soak(folder: Path, seconds: float, seed: int) -> Soak:
    """Run for about so many seconds. The caller checks what was seen."""
    chance = random.Random(seed)
    with ExitStack() as started:
        backend = started.enter_context(Backend("echo"))
        valkey = started.enter_context(Valkey(folder))
        gateway = folder / "gateway"
        gateway.mkdir()
        found = Soak(gateway, chance)
        (gateway / "gateway.yaml").write_text(
            GATEWAY.format(port=found.port, echo=backend.address, limit=LIMIT)
        )
        policy = f"127.0.0.1:{free_port()}"
        for name, text in Version(-1, {}, frozenset()).files():
            (gateway / name).write_text(text)
        run = started.enter_context(Running(gateway, folder, "--policy-server", policy))
        arguments = ("--counters", valkey.url)
        servers = [PolicyServerProcess(run.xds_address, policy, folder, *arguments) for _ in range(2)]
        for server in servers:
            started.enter_context(server)
        found.publish()
        clients = found.clients()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end or len(found.versions) < 5:
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
