"""The client's side of the protocol against the server's state machine, step by step, without a wire."""

from __future__ import annotations

from collections.abc import Mapping

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from filters.rules import Table
from tests.support.conversation import Delta
from tests.support.rules import NUMBER, snapshot, table
from xds_server.discovery import wire
from xds_server.discovery.events import Acked, Nacked, Response
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.stream import StreamLimits
from xds_server.policy_server.rules_stream import HeldRules

NODE = base_pb2.Node(id="p")


class Pair:
    """A client with a stream of the real server's core between them."""

    def __init__(self, rules: HeldRules, served: Snapshot, limit: int = 1 << 20) -> None:
        self.rules = rules
        self.server = Delta(served, limits=StreamLimits(response=limit, resume_window=0))
        self.responses: list[Response] = []
        self.judged: list[object] = []
        for request in rules.first_requests(NODE):
            self.deliver(self.server.say(request))

    def publish(self, served: Snapshot) -> None:
        self.deliver(self.server.publish(served))
        self.deliver(self.server.wait(10))

    def deliver(self, responses: list[Response]) -> None:
        for response in responses:
            self.responses.append(response)
            answer, _ = self.rules.receive(_message(response))
            more = self.server.say(answer)
            self.judged.append(self.server.event)
            self.deliver(more)


def _message(response: Response) -> discovery_pb2.DeltaDiscoveryResponse:
    return discovery_pb2.DeltaDiscoveryResponse.FromString(wire.delta(response))


def _pair(words: Mapping[str, str], limit: int = 1 << 20) -> tuple[Table[str], Pair]:
    words_table = table()
    rules = HeldRules([words_table, Table(NUMBER, lambda message: message.value)])
    return words_table, Pair(rules, snapshot(words), limit)


def test_the_first_stream_brings_every_rule_and_each_response_is_acknowledged() -> None:
    words, pair = _pair({"a": "one", "b": "two"})
    assert words.current == {"a": "one", "b": "two"}
    assert {type(one) for one in pair.judged} == {Acked}


def test_the_rules_are_complete_when_every_type_is_there_also_an_empty_one() -> None:
    rules = HeldRules([table(), Table(NUMBER, lambda message: message.value)])
    assert not rules.complete
    Pair(rules, snapshot({}))
    assert rules.complete


def test_a_state_in_several_responses_is_complete_only_with_the_last() -> None:
    rules = HeldRules([table()])
    server = Delta(
        snapshot({"a": "one", "b": "two", "c": "three"}), limits=StreamLimits(response=1, resume_window=0)
    )
    (request,) = rules.first_requests(NODE)
    seen = []
    responses = server.say(request)
    while responses:
        answer, _ = rules.receive(_message(responses[0]))
        seen.append(rules.complete)
        responses = server.say(answer)
    assert seen == [False, False, True]


def test_one_changed_rule_is_one_resource_on_the_wire() -> None:
    words, pair = _pair({f"w{number}": "x" for number in range(100)})
    pair.publish(snapshot({**{f"w{number}": "x" for number in range(100)}, "new": "y"}))
    assert [one.name for one in pair.responses[-1].resources] == ["new"]
    assert words.current["new"] == "y"


def test_a_removed_rule_is_forgotten() -> None:
    words, pair = _pair({"a": "one", "b": "two"})
    pair.publish(snapshot({"b": "two"}))
    assert words.current == {"b": "two"}


def test_a_rejected_rule_keeps_its_last_good_form() -> None:
    """The other rules of the response are taken."""
    words, pair = _pair({"a": "one", "b": "two"})
    pair.publish(snapshot({"a": "bad", "b": "three"}))
    assert words.current == {"a": "one", "b": "three"}
    rejected = [one for one in pair.judged if isinstance(one, Nacked)]
    assert [(one.message, one.blamed) for one in rejected] == [("a: bad word", frozenset({"a"}))]
    assert pair.rules.refused == {"a": "bad word"}


def test_a_mended_rule_is_no_longer_among_the_refused() -> None:
    words, pair = _pair({"a": "bad"})
    assert (dict(words.current), pair.rules.complete) == ({}, True)
    pair.publish(snapshot({"a": "good"}))
    assert (dict(words.current), pair.rules.refused) == ({"a": "good"}, {})


def test_a_new_stream_sends_only_what_changed_meanwhile() -> None:
    words, pair = _pair({"a": "one", "b": "two", "c": "three"})
    again = Pair(pair.rules, snapshot({"a": "one", "b": "changed"}))
    again.publish(snapshot({"a": "one", "b": "changed"}))
    sent = {name for response in again.responses for name in (one.name for one in response.resources)}
    assert sent == {"b"}
    assert words.current == {"a": "one", "b": "changed"}


def test_a_request_holds_one_state_of_the_rules() -> None:
    words, pair = _pair({"a": "one"})
    held = words.current
    pair.publish(snapshot({"a": "two"}))
    assert (held, words.current) == ({"a": "one"}, {"a": "two"})


def test_a_response_of_a_type_that_was_not_asked_for_is_rejected() -> None:
    response = discovery_pb2.DeltaDiscoveryResponse(type_url="type.googleapis.com/x.Y", nonce="1")
    answer, taken = HeldRules([table()]).receive(response)
    assert "did not subscribe to" in answer.error_detail.message
    assert taken.refused
