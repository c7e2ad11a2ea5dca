"""The last good rules on disk: what comes back is what was held, also of a file that was cut short or damaged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from filters.rules import Table
from tests.support.conversation import Delta
from tests.support.rules import NUMBER, snapshot, table
from xds_server.discovery import wire
from xds_server.discovery.events import Response
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.stream import StreamLimits
from xds_server.policy_server.rules_journal import SLACK, LastRules
from xds_server.policy_server.rules_stream import HeldRules

NODE = base_pb2.Node(id="p")


class Process:
    """A policy server from its start: what it restored, and what it is told afterwards."""

    def __init__(self, path: Path, *, keeps: bool = True, slack: int = SLACK) -> None:
        self.words = table()
        self.rules = HeldRules([self.words, Table(NUMBER, lambda message: message.value)])
        self.last = LastRules(path, keeps=keeps, slack=slack)
        self.whole = self.last.restore(self.rules)
        self.sent: list[str] = []

    def follow(self, *served: Snapshot, limit: int = 1 << 20) -> None:
        server = Delta(served[0], limits=StreamLimits(response=limit, resume_window=0))
        for request in self.rules.first_requests(NODE):
            self._take(server, server.say(request))
        for one in served[1:]:
            self._take(server, server.publish(one))
            self._take(server, server.wait(10))

    def _take(self, server: Delta, responses: list[Response]) -> None:
        for response in responses:
            message = discovery_pb2.DeltaDiscoveryResponse.FromString(wire.delta(response))
            self.sent += [one.name for one in message.resources]
            answer, taken = self.rules.receive(message)
            self.last.keep(message, taken.refused, whole=self.rules.whole(message.type_url))
            self._take(server, server.say(answer))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "rules.state"


def test_what_was_held_comes_back_and_only_what_changed_meanwhile_is_sent(path: Path) -> None:
    Process(path).follow(
        snapshot({"a": "one", "b": "two"}), snapshot({"a": "three", "c": "four"}), snapshot({"a": "three"})
    )
    again = Process(path)
    assert (again.words.current, again.whole) == ({"a": "three"}, True)
    assert not again.rules.complete, "nobody knows yet what the control plane has"
    again.follow(snapshot({"a": "three", "d": "five"}))
    assert (again.sent, again.rules.complete) == (["d"], True)
    assert Process(path).words.current == {"a": "three", "d": "five"}


def test_no_file_is_nothing_and_a_server_without_rules_has_everything(path: Path) -> None:
    first = Process(path)
    assert not first.whole
    first.follow(snapshot({}))
    assert Process(path).whole


def test_a_refused_rule_is_kept_as_it_was_when_it_was_good(path: Path) -> None:
    Process(path).follow(snapshot({"a": "one"}), snapshot({"a": "bad", "b": "two"}))
    assert Process(path).words.current == {"a": "one", "b": "two"}


def test_a_state_that_came_in_part_is_not_whole(path: Path) -> None:
    process = Process(path)
    server = Delta(snapshot({"a": "one", "b": "two"}), limits=StreamLimits(response=1, resume_window=0))
    (request, *_) = process.rules.first_requests(NODE)
    (response,) = server.say(request)
    message = discovery_pb2.DeltaDiscoveryResponse.FromString(wire.delta(response))
    process.rules.receive(message)
    process.last.keep(message, (), whole=process.rules.whole(message.type_url))
    assert not Process(path).whole


def test_only_the_owner_may_read_it(path: Path) -> None:
    Process(path).follow(snapshot({"a": "one"}))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_that_was_cut_short_is_what_stood_before_the_cut(path: Path) -> None:
    Process(path).follow(snapshot({"a": "one"}), snapshot({"a": "two"}))
    content = path.read_bytes()
    seen = set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        seen.add(Process(path).words.current.get("a"))
    assert seen == {None, "one"}


def test_any_changed_byte_is_noticed_and_the_next_response_mends_the_file(path: Path) -> None:
    Process(path).follow(snapshot({"a": "one"}), snapshot({"a": "two"}))
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        process = Process(path)
        assert process.words.current.get("a") in (None, "one")
    process.follow(snapshot({"a": "three"}))
    assert Process(path).words.current == {"a": "three"}


def test_it_does_not_grow_for_ever(path: Path) -> None:
    Process(path, slack=1000).follow(*(snapshot({"a": str(number)}) for number in range(200)))
    assert path.stat().st_size < 3000
    assert Process(path).words.current == {"a": "199"}


def test_a_process_beside_the_one_that_keeps_it_reads_only(path: Path) -> None:
    Process(path, keeps=False).follow(snapshot({"a": "one"}))
    assert not path.exists()


def test_a_disk_that_takes_nothing_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    process = Process(tmp_path / "file" / "rules.state")
    process.follow(snapshot({"a": "one"}))
    assert process.words.current == {"a": "one"}
    assert "could not write the last good rules" in caplog.text
