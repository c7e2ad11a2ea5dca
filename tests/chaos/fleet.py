"""The fleet: a control plane, edges with an Envoy and a policy server each, stores for counters, and services.

Each host has an address, a disk and a clock of its own. A part is a process that is started again after it was killed.
"""

from __future__ import annotations

import os
import signal
import string
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.chaos.network import Host, moved_clock
from tests.support.envoy import binary
from tests.support.logged_process import LoggedProcess
from tests.support.tokens import ISSUER, jwks
from tests.support.valkey import BINARY as VALKEY

LISTENER, XDS, POLICY, SERVICE, SENTINEL, REDIS = 8080, 18000, 18001, 9000, 26379, 6379
TRIAL_LIMIT = 200
"""How many requests each trial consumer has in a month."""

GATEWAY = string.Template("""
listeners: {http: {port: $port, address: 0.0.0.0}}
identity: {idp: {issuer: "$issuer", audiences: [shop], jwks: {file: keys.json}}}
upstreams:
  service: {endpoints: [$services], outlier_detection: {consecutive_5xx: 3}}
routes:
  key: {path: /key, upstream: service, timeout: 3s, policies: {api_key: true}}
  token: {path: /token, upstream: service, timeout: 3s, policies: {jwt: idp}}
  forbidden: {path: /forbidden, upstream: service, timeout: 3s, policies: {ext_authz: {python: "access.py:operators"}}}
  trial:
    path: /trial
    upstream: service
    timeout: 3s
    policies:
      api_key: true
      rate_limit: {requests: $limit, per: month, align: rolling, by: consumer, on_error: deny}
""")
ACCESS = """
from filters.ext_authz import Decision, Request, allow, deny


def operators(request: Request) -> Decision:
    return allow() if request.headers.get("x-team") == "operators" else deny(403)
"""


@dataclass(slots=True)
class Part:
    """A process of the fleet on its host. `serves_counters` is true for the stores and their Sentinels."""

    name: str
    host: Host
    process: LoggedProcess
    serves_counters: bool = False

    def kill(self) -> None:
        """End it as a crash does, with nothing said to its children."""
        assert self.process.process is not None
        self.process.process.kill()
        self.process.process.wait()
        self.process.process = None

    def start(self) -> None:
        self.process.start()

    def ended(self) -> bool:
        """Whether it ended by itself, or is not running."""
        return self.process.process is None or self.process.process.poll() is not None

    def pids(self) -> list[int]:
        """Its process and all below it."""
        assert self.process.process is not None
        return [*_below(self.process.process.pid)]

    def signal(self, number: int) -> None:
        """Send a signal to its process and to all below it."""
        for pid in self.pids():
            _send(pid, number)

    def kill_child(self, choice: int) -> None:
        """Kill one process below it, if there is one."""
        if children := self.pids()[1:]:
            _send(children[choice % len(children)], signal.SIGKILL)


def _below(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return
    for child in children:
        yield from _below(int(child))


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


@dataclass(slots=True)
class Fleet:
    """Every host and every part."""

    folder: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def gateway(self) -> Path:
        """The folder of the gateway's files."""
        return self.folder / "gateway"

    @property
    def edges(self) -> list[Host]:
        return self.named("edge")

    @property
    def stores(self) -> list[Host]:
        return self.named("store")

    def named(self, beginning: str) -> list[Host]:
        return [host for name, host in self.hosts.items() if name.startswith(beginning)]

    def add(self, name: str, host: Host, command: Iterable[object], *, serves_counters: bool = False) -> None:
        self.parts[name] = Part(name, host, host.process(command, name), serves_counters)

    def fail_over(self) -> None:
        """Ask a Sentinel for another primary, which it may refuse."""
        sentinel = redis.Redis(self.stores[0].address, SENTINEL, socket_timeout=2)
        with sentinel as client, suppress(redis.RedisError):  # it does not answer, or one is on its way
            client.execute_command("SENTINEL", "FAILOVER", "counters")


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """Start everything. The files of the gateway must have been written."""
    made = Fleet(folder)
    clock = moved_clock(folder)
    names = ("control", "edge-1", "edge-2", "store-1", "store-2", "store-3", "service-1", "service-2")
    for number, name in enumerate(names, 2):
        made.hosts[name] = Host(name, number, folder, clock)
    _stores(made)
    for host in made.named("service"):
        made.add(host.name, host, (sys.executable, "-m", "tests.chaos.service", host.address, SERVICE))
    _control_plane(made)
    for host in made.edges:
        _edge(made, host)
    try:
        for part in made.parts.values():
            part.start()
        yield made
    finally:
        for part in made.parts.values():
            part.process.stop(signal.SIGKILL)
        for host in made.hosts.values():
            host.take_disk_away()


def write_gateway(made: Path, services: Iterable[str]) -> None:
    """Write the files of the gateway that stay as they are."""
    values = {"port": LISTENER, "issuer": ISSUER, "services": ", ".join(services), "limit": TRIAL_LIMIT}
    made.mkdir()
    (made / "gateway.yaml").write_text(GATEWAY.substitute(values))
    (made / "access.py").write_text(ACCESS)
    (made / "keys.json").write_text(jwks())


def _stores(made: Fleet) -> None:
    first = made.stores[0]
    for number, host in enumerate(made.stores, 1):
        config = host.disk / "valkey.conf"
        config.write_text(
            f"port {REDIS}\nbind {host.address}\nprotected-mode no\ndir {host.disk}\nsave ''\nappendonly yes\n"
            "maxmemory-policy noeviction\nmin-replicas-to-write 1\nmin-replicas-max-lag 2\n"
            + (f"replicaof {first.address} {REDIS}\n" if host is not first else "")
        )
        watching = host.disk / "sentinel.conf"
        watching.write_text(
            f"port {SENTINEL}\nbind {host.address}\nprotected-mode no\ndir {host.disk}\n"
            f"sentinel monitor counters {first.address} {REDIS} 2\n"
            "sentinel down-after-milliseconds counters 2000\nsentinel failover-timeout counters 5000\n"
        )
        made.add(f"valkey-{number}", host, (VALKEY, config), serves_counters=True)
        made.add(f"sentinel-{number}", host, (VALKEY, watching, "--sentinel"), serves_counters=True)


def _control_plane(made: Fleet) -> None:
    host = made.hosts["control"]
    command = (sys.executable, "-m", "xds_server", "run", made.gateway, "--no-proxy", "--console", "off")
    command += ("--xds", f"{host.address}:{XDS}", "--admin", "127.0.0.1:19000")
    command += ("--policy-server", f"127.0.0.1:{POLICY}", "--state", host.disk / "state")
    made.add("control-plane", host, command)


def _edge(made: Fleet, host: Host) -> None:
    xds = f"{made.hosts['control'].address}:{XDS}"
    sentinels = ",".join(f"{store.address}:{SENTINEL}" for store in made.stores)
    command = (sys.executable, "-m", "xds_server", "policy-server", "--xds", xds, "--workers", "2")
    command += ("--listen", f"127.0.0.1:{POLICY}", "--node-id", f"policy-{host.name}")
    command += ("--state", host.disk / "rules", "--counters", f"redis+sentinel://{sentinels}/counters")
    made.add(f"policy-server-{host.name}", host, command)
    bootstrap = made.folder / f"{host.name}.yaml"
    arguments = ("--xds", xds, "--node-id", host.name, "--max-heap", str(2**30))
    bootstrap.write_text(
        subprocess.run(
            (sys.executable, "-m", "xds_server", "bootstrap", *arguments),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    envoy = (binary(), "-c", bootstrap, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
    made.add(f"envoy-{host.name}", host, envoy)
