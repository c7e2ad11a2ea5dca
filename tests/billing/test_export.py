"""Exports: each call once at the receiver, whatever fails or is killed in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.market import Market
from xds_server.billing.export import Event, EventsRejected, ExportFailed, export
from xds_server.billing.targets import CloudEventsTarget, LagoTarget, StripeTarget
from xds_server.marketplace.actor import COMMAND


class Receiver:
    """A billing system: it counts each identifier once. `fails` makes requests fail before or after they count."""

    name = "receiver"

    def takes(self, consumer: str) -> bool:
        return consumer != "unknown"

    def __init__(self) -> None:
        self.seen: dict[str, Event] = {}
        self.fails: list[str] = []

    def send(self, events: Sequence[Event]) -> None:
        how = self.fails.pop(0) if self.fails else ""
        if how == "before":
            raise ExportFailed("away")
        for one in events:
            assert self.seen.setdefault(one.id, one) == one
        if how == "after":
            raise ExportFailed("the answer was lost")

    def calls(self) -> dict[tuple[str, str, int], int]:
        found: dict[tuple[str, str, int], int] = {}
        for one in self.seen.values():
            key = (one.consumer, one.plan, one.hour)
            found[key] = found.get(key, 0) + one.calls
        return found


def rows(counts: dict[tuple[str, str, int], int]) -> list[tuple[str, str, int, int]]:
    return [(*key, calls) for key, calls in counts.items()]


steps = st.lists(
    st.tuples(st.sampled_from(("a", "b")), st.integers(0, 2), st.integers(1, 5), st.sampled_from(("", "before", "after"))),
    max_size=12,
)  # fmt: skip


@given(steps)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_receiver_has_what_was_counted(market: Market, steps: list[tuple[str, int, int, str]]) -> None:
    """Counts grow between exports, and exports fail before or after the receiver has counted."""
    with market.store.begin(COMMAND) as now:
        now.connection.exec_driver_sql("DELETE FROM market_exports")
    receiver, counts = Receiver(), dict[tuple[str, str, int], int]()
    for consumer, hour, calls, how in steps:
        counts[consumer, "free", hour] = counts.get((consumer, "free", hour), 0) + calls
        receiver.fails = [how] if how else []
        try:
            export(market.store, receiver, lambda: rows(counts))
        except ExportFailed:
            continue
        assert receiver.calls() == counts
    export(market.store, receiver, lambda: rows(counts))
    assert receiver.calls() == counts
    assert export(market.store, receiver, lambda: rows(counts)) == 0


def test_two_exports_at_once_and_consumers_that_are_unknown(market: Market) -> None:
    """The second begins while the first sends; what nobody takes is kept."""
    receiver, counts = Receiver(), {("a", "free", 1): 10, ("unknown", "free", 1): 7}
    send = receiver.send

    def slow(events: Sequence[Event]) -> None:
        counts["a", "free", 1] = 15
        receiver.send = send  # type: ignore[method-assign] # the first call only
        export(market.store, receiver, lambda: rows(counts))
        send(events)

    receiver.send = slow  # type: ignore[method-assign] # as above
    export(market.store, receiver, lambda: rows({("a", "free", 1): 10}))
    export(market.store, receiver, lambda: rows(counts))
    assert receiver.calls() == {("a", "free", 1): 15}
    receiver.takes = lambda _consumer: True  # type: ignore[method-assign] # as above
    export(market.store, receiver, lambda: rows(counts))
    assert receiver.calls()["unknown", "free", 1] == 7


def test_many_hours_are_sent_in_parts(market: Market) -> None:
    receiver = Receiver()
    counts = {(f"c{number}", "free", hour): 1 for number in range(5) for hour in range(70)}
    receiver.fails = ["", "", "after"]
    with pytest.raises(ExportFailed):
        export(market.store, receiver, lambda: rows(counts))
    assert len(receiver.seen) == 300
    assert export(market.store, receiver, lambda: rows(counts)) == 150
    assert receiver.calls() == counts


@pytest.mark.parametrize("together", [True, False])
def test_events_that_are_rejected_do_not_hold_the_others_back(market: Market, together: bool) -> None:
    receiver = Receiver()
    send = receiver.send

    def picky(events: Sequence[Event]) -> None:
        if any(one.consumer == "gone" for one in events):
            raise EventsRejected("no such customer")
        send(events)

    receiver.send = picky  # type: ignore[method-assign] # a target that rejects one customer
    hours = range(3) if together else range(150)
    counts = {(consumer, "free", hour): 2 for consumer in ("a", "gone", "z") for hour in hours}
    for _ in range(2):
        with pytest.raises(ExportFailed, match="those of gone"):
            export(market.store, receiver, lambda: rows(counts))
        assert receiver.calls() == {key: 2 for key in counts if key[0] != "gone"}
    receiver.takes = lambda consumer: consumer != "gone"  # type: ignore[method-assign] # taken off the list
    assert export(market.store, receiver, lambda: rows(counts)) == 0
    receiver.takes, receiver.send = (lambda _consumer: True), send  # type: ignore[method-assign] # mended
    assert export(market.store, receiver, lambda: rows(counts)) == 2 * len(hours)
    assert receiver.calls() == counts


class Server:
    """A fake of Lago, Stripe or a receiver of CloudEvents. `status` is what it answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any, str]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.requests.append((self.path, self.headers, body.decode()))
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


EVENTS = [Event(id="1", consumer="acme.mobile.shop", plan="gold", hour=500_000, calls=7)]


def test_cloud_events_are_batches(server: Server) -> None:
    CloudEventsTarget(f"{server.url}/events", "secret").send(EVENTS)
    ((path, headers, body),) = server.requests
    assert (path, headers["content-type"]) == ("/events", "application/cloudevents-batch+json")
    assert headers["authorization"] == "Bearer secret"
    (event,) = json.loads(body)
    assert (event["specversion"], event["id"], event["subject"]) == ("1.0", "1", "acme.mobile.shop")
    assert (event["data"]["requests"], event["data"]["plan"]) == (7, "gold")


def test_lago_gets_events_with_their_transaction(server: Server) -> None:
    LagoTarget(server.url, "secret").send(EVENTS)
    ((path, _, body),) = server.requests
    assert path == "/api/v1/events/batch"
    assert json.loads(body)["events"] == [
        {"transaction_id": "1", "external_subscription_id": "acme.mobile.shop", "code": "calls", "timestamp": 1_800_000_000, "properties": {"calls": 7, "plan": "gold"}}
    ]  # fmt: skip


def test_stripe_gets_meter_events_of_known_customers(server: Server) -> None:
    target = StripeTarget(server.url, "secret", {"acme.mobile.shop": "cus_1"})
    assert (target.takes("acme.mobile.shop"), target.takes("other")) == (True, False)
    target.send(EVENTS)
    ((path, headers, body),) = server.requests
    assert (path, headers["idempotency-key"]) == ("/v1/billing/meter_events", "1")
    assert parse_qs(body) == {
        "event_name": ["calls"],
        "identifier": ["1"],
        "timestamp": ["1800000000"],
        "payload[stripe_customer_id]": ["cus_1"],
        "payload[value]": ["7"],
    }


def test_a_refusal_is_told_without_the_token(server: Server) -> None:
    server.status = 422
    with pytest.raises(ExportFailed, match="with 422") as failure:
        LagoTarget(server.url, "secret-token").send(EVENTS)
    assert "secret-token" not in str(failure.value)
    with pytest.raises(ExportFailed, match="cannot be reached"):
        LagoTarget("http://127.0.0.1:1", "secret-token").send(EVENTS)
