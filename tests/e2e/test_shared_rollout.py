"""Two control planes of one gateway share a rollout through a real Redis or PostgreSQL; three real Envoys are divided between them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.e2e.test_rollout import FIRST, NODES, YAML
from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.postgres import Postgres
from tests.support.running import Served
from tests.support.valkey import Valkey
from tests.support.wait import wait_for
from xds_server.cli.main import main
from xds_server.proxy.bootstrap import bootstrap
from xds_server.translate.readable import plain

OTHERS = tuple(node for node in NODES if node != FIRST)
KEY = "xds:rollout:{shop}"


class Replica(Served):
    """A control plane with a folder and a state file of its own, as on a machine of its own."""

    def rollout(self, action: str = "status") -> int:
        return main(["rollout", action, "--admin", self.admin])

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"http://{self.admin}/rollout").json()
        return found


class Shared:
    """Two replicas, the store that they share, and the Envoys: the first of all is at `one`, the others at `two`."""

    def __init__(self, root: Path, store: Valkey | Postgres, good: Backend, bad: Backend) -> None:
        self.store, self.good, self.bad = store, good, bad
        self._root, self.port = root, 0
        self.one, self.two = self._replica("one"), self._replica("two")
        self.replicas = (self.one, self.two)
        self.envoys: dict[str, Envoy] = {}

    def _replica(self, name: str, *, state: bool = True) -> Replica:
        root = self._root / name
        root.mkdir()
        store = ("--rollout-store", self.store.url, "--rollout-name", "shop")
        kept = ("--state", str(root / "state")) if state else ()
        flags = ("--no-proxy", "--no-prove", *kept, *store)
        values = {"port": self.port} if self.port else {}
        made = Replica(root, YAML, *flags, pause="1s", backend=self.good.address, timeout="1s", **values)
        self.port = made.port if not self.port else self.port
        return made

    def another(self) -> Replica:
        """A replica that knows nothing of before."""
        return self._replica("three", state=False)

    def connect(self, replica: Replica, *nodes: str) -> None:
        for node in nodes:
            made = bootstrap(xds_address=replica.xds_address, node_id=node)
            self.envoys[node] = Envoy(plain(made), self._root)
            self.envoys[node].start()

    def write(self, version: str, *only: Replica, **values: object) -> None:
        for one in only or self.replicas:
            one.write(version, **values)

    def versions(self) -> dict[str, str]:
        """The version that each Envoy has loaded."""
        found: dict[str, str] = {}
        for node, envoy in self.envoys.items():
            text = str(envoy.config_dump())
            found[node] = "".join(one for one in ("v1", "v2", "v3") if f"'inline_string': '{one}'" in text)
        return found

    def has(self, first: str, others: str) -> None:
        """Wait until the first Envoy and the others have these versions."""
        wanted = {FIRST: first, **dict.fromkeys(OTHERS, others)}
        wait_for(
            lambda: self.versions() == wanted, lambda: f"{wanted}, it is {self.versions()}; {self.logs()}"
        )

    def know_all(self) -> None:
        """Wait until each replica knows the Envoys of both, because a step takes a share of those that are known."""

        def known() -> bool:
            pages = [httpx.get(f"http://{one.admin}/rollout").json() for one in self.replicas]
            return all(page["envoys"] == 1 + len(OTHERS) for page in pages)

        wait_for(known, lambda: f"the reports of both replicas; {self.logs()}")

    def logs(self) -> str:
        return "\n\n".join(f"{one.folder}:\n{one.log[-2500:]}" for one in self.replicas)

    def both_say(self, text: str) -> None:
        for one in self.replicas:
            one.says(text)

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Requests on a connection each, so that all Envoys get some."""
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                with suppress(httpx.HTTPError):
                    httpx.get(f"http://127.0.0.1:{self.port}/", timeout=5)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def spoil(self, record: bytes | None) -> None:
        """Write something else in the place of the record, None for nothing."""
        if isinstance(self.store, Valkey):
            self.store.ask(*(("DEL", KEY) if record is None else ("SET", KEY, record)))  # type: ignore[arg-type]
            return
        with psycopg.connect(self.store.url, autocommit=True) as connection:
            if record is None:
                connection.execute("delete from xds_rollout")
            else:
                connection.execute("update xds_rollout set record = %s", (record,))


@pytest.fixture(params=["redis", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    with ExitStack() as stack:
        store = stack.enter_context(Valkey(tmp_path) if request.param == "redis" else Postgres())
        good, bad = (stack.enter_context(Backend(name)) for name in ("good", "bad"))
        bad.status = 503
        made = Shared(tmp_path, store, good, bad)
        made.write("v1")
        for one in made.replicas:
            stack.enter_context(one)
        try:
            made.connect(made.one, FIRST)
            made.connect(made.two, *OTHERS)
            made.has("v1", "v1")
            made.know_all()
            yield made
        finally:
            for envoy in made.envoys.values():
                envoy.stop()


def test_a_good_version_reaches_the_envoys_of_all_replicas_step_by_step(shared: Shared) -> None:
    with shared.traffic():
        shared.write("v2")
        for text in ("step=1 of 3 envoys=1 of 3", "step=2 of 3", "step=3 of 3", "rollout completed"):
            shared.both_say(text)
        shared.has("v2", "v2")
    for one in shared.replicas:
        assert one.state()["envoys"] == 3
        assert one.rollout() == 0


def test_orders_to_any_replica_are_orders_to_all(shared: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = shared.replicas
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    assert two.rollout("pause") == 0
    wait_for(lambda: one.state()["paused"], "the pause")
    assert one.rollout("resume") == 0
    wait_for(lambda: not two.state()["paused"], "the end of the pause")
    assert two.rollout("abort") == 1
    shared.has("v1", "v1")
    one.says("reason=by order of an operator")
    assert one.rollout() == 1
    assert one.rollout("promote") == 0
    shared.has("v2", "v2")
    two.says("rollout")
    shared.write("v3", pause="10m")
    shared.has("v3", "v2")
    assert two.rollout("promote") == 0
    shared.has("v3", "v3")
    assert "shared through" in capsys.readouterr().out


def test_envoys_of_one_replica_that_get_worse_withdraw_a_version_everywhere(shared: Shared) -> None:
    with shared.traffic():
        wait_for(lambda: len(shared.good.seen) > 50, "traffic")
        shared.write("v2", backend=shared.bad.address, pause="10m")
        shared.both_say("reason=error rate")
        shared.has("v1", "v1")
    shared.write("v3", pause="10m")
    shared.has("v3", "v1")


def test_a_rejection_by_an_envoy_of_one_replica_withdraws_everywhere_and_it_is_still_so_after_a_restart(
    shared: Shared,
) -> None:
    shared.write("v2", timeout="-1s")
    shared.both_say("rollout withdrawn")
    shared.has("v1", "v1")
    shared.two.stop(signal.SIGKILL)
    mark = len(shared.two.log)
    shared.two.start()
    # it says the first if it had written its state before it was killed, else the other
    told = ("because it was withdrawn: 1 rejections", "rollout withdrawn")
    wait_for(lambda: any(one in shared.two.log[mark:] for one in told), lambda: shared.two.log[mark:])
    shared.has("v1", "v1")


def test_a_replica_that_has_not_read_the_new_version_holds_the_rollout_and_is_named(shared: Shared) -> None:
    one, two = shared.replicas
    shared.write("v2", two)  # the Envoy of the first step is at the other one
    one.says("what is served here stays: this control plane does not have version")
    wait_for(lambda: "does not have version" in two.state()["waiting"], "the reason")
    shared.has("v1", "v1")
    assert two.state()["step"] == 0
    with shared.traffic():
        shared.write("v2", one)
        shared.both_say("rollout completed")
    shared.has("v2", "v2")
    shared.write("v1", one)  # a return is a new version, too
    two.says("what is served here stays")
    assert two.state()["stable"] != two.state()["candidate"]
    shared.write("v2", one)
    wait_for(lambda: not two.state()["candidate"], "the end")
    shared.has("v2", "v2")


def test_a_replica_that_is_killed_goes_on_where_the_others_are(shared: Shared) -> None:
    one, two = shared.replicas
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    one.stop(signal.SIGKILL)
    two.says("rollout goes on" if two.state()["step"] else "rollout begins")
    assert two.rollout("pause") == 0
    wait_for(lambda: len(two.state()["replicas"]) == 1, "the report of the killed one to be old")
    mark = len(one.log)
    one.start()
    one.says("the rollout goes on at step 1", mark)
    wait_for(lambda: one.state()["paused"], "the order that came while it was away")
    assert one.rollout("resume") == 0
    with shared.traffic():
        shared.write("v2", pause="1s")
        shared.both_say("rollout completed")
        shared.has("v2", "v2")


def test_a_version_that_completed_while_a_replica_was_away_is_served_when_it_is_back(shared: Shared) -> None:
    one, two = shared.replicas
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    two.stop(signal.SIGKILL)
    assert one.rollout("promote") == 0
    two.start()
    shared.has("v2", "v2")


def test_a_replica_without_the_version_of_the_others_serves_nothing_until_it_is_agreed(
    shared: Shared,
) -> None:
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    new = shared.another()
    new.write("v2", pause="10m")
    with new:
        new.says("is not served now: this control plane does not have version")
        assert httpx.get(f"http://{new.admin}/ready").status_code == 503
        wait_for(lambda: len(shared.two.state()["replicas"]) == 3, "its report")
        assert shared.two.rollout("abort") == 1
        new.says("rollout withdrawn")
        assert httpx.get(f"http://{new.admin}/ready").status_code == 503
        assert new.rollout("promote") == 0
        wait_for(lambda: httpx.get(f"http://{new.admin}/ready").status_code == 200, "the new replica")
        shared.has("v2", "v2")


def test_a_replica_that_starts_without_the_store_serves_what_it_served(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    shared.store.kill()
    one = shared.one
    one.stop(signal.SIGKILL)
    one.start()
    wait_for(lambda: one.state()["problem"], "the store to be away")
    wait_for(lambda: one.state()["envoys"] == 1, "the Envoy")
    shared.has("v2", "v1")
    assert httpx.get(f"http://{one.admin}/ready").status_code == 200
    one.write("v3")
    one.says("is not served now")
    main(["status", "--admin", one.admin])
    assert "HOLDS" in capsys.readouterr().out
    one.write("v2", pause="10m")
    shared.store.start()
    wait_for(lambda: not one.state()["problem"], "the store")
    shared.has("v2", "v1")
    assert one.rollout("promote") == 0
    shared.has("v2", "v2")


def test_without_the_store_everything_stays_and_a_store_that_lost_its_data_gets_it_again(
    shared: Shared,
) -> None:
    one, two = shared.replicas
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    shared.store.kill()
    shared.both_say("the store of the rollout is not available; what is served stays")
    assert one.rollout("promote") == 2
    shared.write("v3")
    shared.both_say("is not served now")
    shared.has("v2", "v1")
    shared.write("v2", pause="10m")
    shared.store.start()
    if isinstance(shared.store, Postgres):
        shared.spoil(None)
    shared.both_say("the store of the rollout answers again")
    wait_for(lambda: not one.state()["problem"] and not two.state()["problem"], "the agreement")
    shared.has("v2", "v1")
    assert one.state()["step"] == 0
    with shared.traffic():
        shared.write("v2", pause="1s")
        shared.both_say("rollout completed")
        shared.has("v2", "v2")


def test_without_the_store_a_replica_withdraws_for_its_own_envoys_and_tells_the_others_later(
    shared: Shared,
) -> None:
    one, two = shared.replicas
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    shared.store.kill()
    one.says("the store of the rollout is not available")
    assert one.rollout("abort") == 1
    shared.has("v1", "v1")
    assert two.state()["withdrawn"] is None
    shared.store.start()
    two.says("rollout withdrawn")
    assert two.rollout() == 1


def test_a_record_that_cannot_be_read_changes_nothing(shared: Shared) -> None:
    shared.write("v2", pause="10m")
    shared.has("v2", "v1")
    shared.spoil(b'{"stable": 5}')
    shared.both_say("the record cannot be read")
    shared.has("v2", "v1")
    assert shared.one.rollout("promote") == 2
    shared.spoil(None)
    wait_for(lambda: not shared.one.state()["problem"], "the record")
    shared.has("v2", "v1")
    assert shared.two.rollout("promote") == 0
    shared.has("v2", "v2")
