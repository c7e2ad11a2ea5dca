"""Usage through the real Envoy: the counts equal the requests answered, whatever is killed or frozen meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.folder import filled, write
from tests.support.load import Load
from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.postgres import Postgres
from tests.support.running import Running, Served
from tests.support.usage import UsageServer, requests
from tests.support.wait import wait_for
from tests.support.xds import bootstrap
from xds_server.cli.main import main
from xds_server.usage.store import Question, Store

KEY = "a key of acme"
YAML = f"""
listeners: {{http: {{port: $port, address: 127.0.0.1}}}}
telemetry: {{usage: true}}
upstreams: {{echo: {{endpoints: ["$echo"]}}}}
plans: {{gold: {{rate_limit: 1000000/second}}}}
consumers: {{acme: {{plan: gold, api_keys: [{{sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}]}}}}
routes:
  echo: {{path: /echo, upstream: echo}}
  mine: {{path: /mine, upstream: echo, policies: {{api_key: true}}}}
  version: {{path: /version, respond: {{body: "$version"}}}}
  health: {{path: /health, respond: {{body: fine}}, policies: {{metering: off}}}}
"""


def rows(url: str, *by: str) -> list[dict[str, Any]]:
    store = Store(url, reads=True)
    try:
        return store.report(Question(by=by))
    finally:
        store.close()


@pytest.fixture
def served(tmp_path: Path, backend: Backend) -> Iterator[Served]:
    """`xds run` with usage in ``usage.db`` of the test's folder."""
    where = ("--usage-store", f"sqlite:///{tmp_path}/usage.db", "--usage-spool", str(tmp_path / "spool"))
    served = Served(tmp_path, YAML, *where, echo=backend.address)
    served.write("1")
    with served:
        served.says("ready http://")
        yield served


def children(served: Served, command: str) -> list[int]:
    assert served.process is not None
    listed = ["ps", "-o", "pid=,args=", "--ppid", str(served.process.pid)]
    lines = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if command in line]


def test_xds_run_counts_every_request_and_loses_none_at_its_end(served: Served, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/usage.db"
    for _ in range(3):
        served.get("/echo")
        served.get("/mine", headers={"x-api-key": KEY})
        served.get("/mine", headers={"x-api-key": "wrong"})
    served.get("/nowhere")
    served.get("/health")
    (pid,) = children(served, "usage-server")
    os.kill(pid, signal.SIGKILL)
    served.says("the usage server ended; it is started again")
    served.get("/echo")
    wait_for(lambda: httpx.get(f"http://{served.admin}/usage/status").status_code == 200, "the usage server")
    assert "xds_usage_spool_bytes" in httpx.get(f"http://{served.admin}/metrics/all").text
    assert served.stop() == 0
    found = {
        tuple(row.values())[:4]: row["requests"] for row in rows(url, "consumer", "plan", "route", "status")
    }
    assert found == {
        ("-", "-", "echo", 200): 4,
        ("acme", "gold", "mine", 200): 3,
        ("-", "-", "mine", 401): 3,
        ("-", "-", "-", 404): 1,
    }


def asked_until(served: Served, version: str) -> int:
    """Ask for the version until it is this one. Returns the number of requests."""
    seen: list[str] = []

    def ask() -> bool:
        seen.append(served.get("/version").text)
        return seen[-1] == version

    wait_for(ask, "the change")
    return len(seen)


def test_a_change_of_the_gateway_loses_no_entry(served: Served, tmp_path: Path, backend: Backend) -> None:
    """The listener is replaced, and its old access log still has entries to send."""
    url = f"sqlite:///{tmp_path}/usage.db"
    sent = 0
    for version in ("2", "3", "4"):
        for _ in range(10):
            served.get("/echo")
        changed = f"address: 127.0.0.1, limits: {{max_header_count: {50 + int(version)}}}"
        text = YAML.replace("address: 127.0.0.1", changed)
        write(served.folder, gateway=filled(text, port=served.port, echo=backend.address, version=version))
        sent += 10 + asked_until(served, version)
    assert served.stop() == 0
    assert requests(url) == sent


def test_what_clients_send_never_forges_or_breaks_an_entry(served: Served, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/usage.db"
    evil = {
        "x-request-id": "1\t2\t3",
        "user-agent": "a\tred\"'\\n",
        "x-consumer": "acme\tgold",
        "referer": "é".encode("latin-1"),
        "x-large": "y" * 40_000,
    }
    assert served.get("/echo", headers=evil).status_code == 200
    assert served.get('/no%1bwhere%0a%09"', headers={"x-consumer-plan": "gold"}).status_code == 404
    assert served.stop() == 0
    for row in rows(url, "consumer", "plan", "route", "status"):
        assert (row["consumer"], row["plan"]) == ("-", "-")
        assert (row["route"], row["status"], row["requests"]) in (
            ("echo", 200, 1),
            ("-", 404, 1),
            ("-", 400, 1),
        )
    assert requests(url) >= 2


def test_what_is_no_usage_store_or_server_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path), "--usage-store", "mysql://root:secret@host/db"]) == 2
    error = capsys.readouterr().err
    assert "must be sqlite:///FILE" in error
    assert "secret" not in error
    assert main(["run", str(tmp_path), "--usage-server", "nowhere"]) == 2
    assert "--usage-server" in capsys.readouterr().err


class Machine(ExitStack):
    """A control plane, a policy server, a usage server and an Envoy, each a process of its own."""

    def __init__(self, folder: Path, store: str, backend: Backend) -> None:
        super().__init__()
        self.port, policy = free_port(), f"127.0.0.1:{free_port()}"
        write(folder / "gateway", gateway=filled(YAML, port=self.port, echo=backend.address, version="1"))
        self.usage = UsageServer(folder / "usage", store=store)
        elsewhere = ("--no-proxy", "--usage-server", self.usage.address, "--policy-server", policy)
        self.control_plane = Running(folder / "gateway", folder, *elsewhere, "--state", str(folder / "state"))
        self.policy_server = PolicyServerProcess(self.control_plane.xds_address, policy, folder)
        self.envoy = Envoy(bootstrap(self.control_plane.xds_port), folder)

    def start(self) -> None:
        for process in (self.usage, self.control_plane, self.policy_server, self.envoy):
            self.enter_context(process)
        self.envoy.ready()

    def answered(self) -> int:
        """Return the number of requests that Envoy has answered."""
        name = f"http.127_0_0_1_{self.port}.downstream_rq_completed"
        return self.envoy.stats(f"^{re.escape(name)}$")[name]


def kills(machine: Machine, store: str, freeze: Callable[[int], None]) -> Iterator[Callable[[], object]]:
    """Yield what happens to the processes, one after the other."""
    usage, control, policy = machine.usage, machine.control_plane, machine.policy_server
    yield lambda: usage.stop(signal.SIGKILL)
    yield usage.start
    yield lambda: policy.stop(signal.SIGKILL)
    yield lambda: usage.signal(signal.SIGSTOP)
    yield lambda: usage.signal(signal.SIGCONT)
    yield lambda: control.stop(signal.SIGKILL)
    yield lambda: usage.stop(signal.SIGKILL)
    yield lambda: freeze(signal.SIGSTOP)
    yield usage.start
    yield control.start
    yield policy.start
    yield lambda: freeze(signal.SIGCONT)
    yield lambda: usage.stop(signal.SIGKILL)
    yield usage.start


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_counts_equal_requests_whatever_is_killed(kind: str, tmp_path: Path, backend: Backend) -> None:
    with ExitStack() as stack:
        if kind == "sqlite":
            url = f"sqlite:///{tmp_path}/usage.db"
            freeze: Callable[[int], None] = _Lock(tmp_path / "usage.db")
        else:
            postgres = stack.enter_context(Postgres())
            url, freeze = postgres.url, postgres.signal
        machine = stack.enter_context(Machine(tmp_path, url, backend))
        machine.start()
        with Load(machine.port, "/echo") as load:
            for happen in kills(machine, url, freeze):
                before = load.done
                wait_for(lambda before=before: load.done > before + 300, "some requests")
                happen()
            if kind == "postgresql":
                postgres.kill()
                before = load.done
                wait_for(lambda: load.done > before + 300, "some requests")
                postgres.start()
        assert not load.failures
        wait_for(
            lambda: requests(url) >= load.done, lambda: f"{load.done} requests; {requests(url)} are counted"
        )
        assert requests(url) == load.done == machine.answered()
        dropped = machine.envoy.stats(r"open_telemetry_access_log.*logs_dropped")
        assert sum(dropped.values()) == 0


class _Lock:
    """Freezes SQLite by a lock of another process, and thaws it."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)

    def __call__(self, number: int) -> None:
        self._connection.execute("BEGIN IMMEDIATE" if number == signal.SIGSTOP else "ROLLBACK")


def test_an_envoy_that_is_killed_loses_only_what_it_has_not_sent(tmp_path: Path, backend: Backend) -> None:
    url = f"sqlite:///{tmp_path}/usage.db"
    with Machine(tmp_path, url, backend) as machine:
        machine.start()
        with Load(machine.port, "/version") as load:
            wait_for(lambda: load.done > 1000, "some requests")
        wait_for(lambda: requests(url) == load.done, "all of them in the store")
        assert machine.usage.metric("xds_usage_connections") == 1
        with Load(machine.port, "/version") as last:
            wait_for(lambda: last.done > 10, "more requests")
            machine.envoy.kill()
        wait_for(lambda: machine.usage.metric("xds_usage_connections") == 0, "the end of the connection")
        machine.usage.stop()
        assert load.done <= requests(url) <= load.done + last.done + 3
