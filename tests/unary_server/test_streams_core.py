"""Streams in the core, as raw bytes: one message at a time, windows, the end of each side, and what a peer may not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http2 import Client, grpc_message
from xds_server.unary_server import frames
from xds_server.unary_server.events import Began, Cancelled, Ended, Message, ServerLimits
from xds_server.unary_server.frames import END_STREAM, Code, Frame

f = frames.frame
SMALL = ServerLimits(max_message=1000, window=100_000, max_answer_buffer=5000)


def _client(limits: ServerLimits | None = None) -> Client:
    return Client(limits, streams=True)


def _data(body: bytes, *, end: bool = False, stream: int = 1) -> bytes:
    return f(Frame.DATA, END_STREAM if end else 0, stream, body)


def _status(client: Client, stream: int = 1) -> tuple[str, str]:
    """The gRPC status and message with which the server ended a stream."""
    last = [one for one in client.heard() if one.stream == stream and one.kind == Frame.HEADERS][-1]
    assert last.flags & END_STREAM
    fields = client.fields(last)
    return fields["grpc-status"], fields.get("grpc-message", "")


def test_a_conversation() -> None:
    client = _client()
    began, first = client.say(client.head() + _data(grpc_message(b"one")))
    assert isinstance(began, Began)
    assert began.fields.metadata[b"te"] == b"trailers"
    assert first == Message(1, b"one")
    client.connection.respond(1, b"answer one")
    assert client.connection.proceed(1) is None
    assert [(one.kind, one.flags & END_STREAM) for one in client.heard()] == [
        (Frame.HEADERS, 0),
        (Frame.DATA, 0),
    ]
    assert client.say(_data(grpc_message(b"two"))) == [Message(1, b"two")]
    client.connection.respond(1, b"answer two")
    assert client.connection.proceed(1) is None
    assert [one.payload for one in client.heard()] == [grpc_message(b"answer two")]
    assert client.say(_data(b"", end=True)) == [Ended(1)]
    client.connection.finish(1)
    assert _status(client) == ("0", "")
    assert client.connection.active == 0


def test_the_next_message_waits_until_the_one_before_is_done_with() -> None:
    client = _client()
    messages = b"".join(map(grpc_message, (b"one", b"two", b"three")))
    assert client.say(client.head() + _data(messages, end=True))[1:] == [Message(1, b"one")]
    assert client.connection.proceed(1) == Message(1, b"two")
    assert client.connection.proceed(1) == Message(1, b"three")
    assert client.connection.last(1)
    assert client.connection.proceed(1) == Ended(1)


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 30))
def test_messages_come_in_any_pieces(messages: list[bytes], size: int) -> None:
    client = _client()
    sent = b"".join(map(grpc_message, messages))
    found: list[object] = []
    for event in client.say(client.head()):
        assert isinstance(event, Began)
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    for piece in [*map(_data, pieces), _data(b"", end=True)]:
        events: list[object] = list(client.say(piece))
        while events:
            found.append(events.pop(0))
            following = client.connection.proceed(1) if isinstance(found[-1], Message) else None
            events += [] if following is None else [following]
    assert found == [*(Message(1, body) for body in messages), Ended(1)]


def test_the_window_of_a_stream_is_returned_when_half_of_it_is_used() -> None:
    client = _client(SMALL)
    client.say(client.head())
    for _ in range(20):
        assert client.say(_data(grpc_message(bytes(300)))) == [Message(1, bytes(300))]
        assert client.connection.proceed(1) is None
    updates = [one for one in client.heard() if one.kind == Frame.WINDOW_UPDATE and one.stream == 1]
    assert 4 <= len(updates) <= 20
    returned = sum(int.from_bytes(one.payload, "big") for one in updates)
    assert 20 * 305 - 1005 <= returned <= 20 * 305


def test_the_largest_message_fits_whatever_was_sent_before() -> None:
    client = _client(SMALL)
    client.say(client.head() + _data(grpc_message(bytes(400))))
    assert client.connection.proceed(1) is None
    client.heard()
    client.say(_data(grpc_message(bytes(1000))[:300]))
    (update,) = [one for one in client.heard() if one.kind == Frame.WINDOW_UPDATE and one.stream == 1]
    assert int.from_bytes(update.payload, "big") == 405
    assert client.say(_data(grpc_message(bytes(1000))[300:])) == [Message(1, bytes(1000))]


def test_a_peer_that_sends_more_than_the_window_is_reset() -> None:
    client = _client(SMALL)
    client.say(client.head() + _data(grpc_message(bytes(600))))
    assert client.say(_data(grpc_message(bytes(600)))) == [], "the first message is not done with"
    assert client.say(_data(grpc_message(bytes(600)))) == [Cancelled(1)]
    assert client.reset_by() is Code.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\1\0\0\0\1x", "12"),
        (b"\2\0\0\0\1x", "13"),
        (b"\0\0\0\x03\xe9", "8"),
        (b"\0\0\0\0\5abc", "13"),
        (b"\0\0\0", "13"),
    ],
)
def test_a_message_that_is_none_ends_the_stream_with_a_status(sent: bytes, status: str) -> None:
    client = _client(SMALL)
    assert client.say(client.head() + _data(sent, end=True))[1:] == [Cancelled(1)]
    assert _status(client)[0] == status
    assert client.connection.active == 0


def test_a_message_that_is_too_large_is_known_by_its_first_bytes() -> None:
    client = _client(SMALL)
    assert client.say(client.head() + _data(b"\0\0\0\x03\xe9"))[1:] == [Cancelled(1)]
    assert _status(client)[0] == "8"


def test_an_error_after_a_response_is_in_the_trailers() -> None:
    client = _client()
    client.say(client.head() + _data(grpc_message()))
    client.connection.respond(1, b"answer")
    client.heard()
    client.connection.fail(1, 7, "not for you")
    (last, reset) = client.heard()
    assert client.fields(last) == {"grpc-status": "7", "grpc-message": "not for you"}
    assert (reset.kind, reset.payload) == (Frame.RST_STREAM, bytes(4))
    assert client.say(_data(grpc_message(), end=True)) == []
    assert not client.connection.closed


def test_a_stream_that_the_client_resets_is_cancelled_and_counts_until_it_is_released() -> None:
    client = _client()
    client.say(client.head() + _data(grpc_message()))
    assert client.say(f(Frame.RST_STREAM, 0, 1, bytes(4))) == [Cancelled(1)]
    assert client.connection.active == 1
    client.connection.respond(1, b"for nobody")
    assert client.connection.proceed(1) is None
    assert client.heard() == []
    client.connection.release(1)
    assert client.connection.active == 0


def test_a_stream_without_work_is_cancelled_too() -> None:
    client = _client()
    client.say(client.head())
    assert client.say(f(Frame.RST_STREAM, 0, 1, bytes(4))) == [Cancelled(1)]


def test_the_end_of_the_connection_cancels_all_streams() -> None:
    client = _client()
    client.say(client.head(1) + client.head(3) + _data(grpc_message(), stream=3))
    assert client.say(f(Frame.PING, 0, 1, bytes(8))) == [Cancelled(1), Cancelled(3)]
    assert client.ended_by() is Code.PROTOCOL_ERROR


def test_responses_wait_for_the_windows_of_the_peer() -> None:
    client = _client()
    client.say(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 10}))
    client.say(client.head() + _data(grpc_message(b"one") + grpc_message(b"two")))
    client.heard()
    client.connection.respond(1, b"a long answer")
    assert client.connection.proceed(1) is None, "no message before the response is sent"
    assert [one.payload for one in client.heard() if one.kind == Frame.DATA] == [
        grpc_message(b"a long answer")[:10]
    ]
    assert client.say(frames.window_update(1, 100)) == [Message(1, b"two")]
    (rest,) = client.heard()
    assert (rest.payload, rest.flags & END_STREAM) == (grpc_message(b"a long answer")[10:], 0)
    client.connection.finish(1)
    assert client.heard()[0].flags & END_STREAM


def test_trailers_come_after_a_response_that_waits() -> None:
    client = _client()
    client.say(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 10}))
    client.say(client.head() + _data(grpc_message(), end=True))
    client.connection.respond(1, b"a long answer")
    client.connection.finish(1)
    assert not any(one.flags & END_STREAM for one in client.heard() if one.kind == Frame.HEADERS)
    client.say(frames.window_update(1, 100))
    assert [one.kind for one in client.heard()] == [Frame.DATA, Frame.HEADERS]
    assert client.connection.active == 0


def test_no_message_is_handled_while_too_many_responses_wait() -> None:
    client = _client(SMALL)
    client.say(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 0}))
    client.say(client.head(1) + _data(grpc_message()))
    client.connection.respond(1, bytes(6000))
    assert len(client.say(client.head(3) + _data(grpc_message(), stream=3))) == 1, "only that it began"
    assert not client.connection.closed
    events = client.say(frames.window_update(1, 10_000))
    assert events == [Message(3, b"ask")]


def test_a_cancelled_stream_makes_room_for_others() -> None:
    client = _client(SMALL)
    client.say(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 0}))
    client.say(client.head(1) + _data(grpc_message()))
    client.connection.respond(1, bytes(6000))
    client.say(client.head(3) + _data(grpc_message(), stream=3))
    assert Message(3, b"ask") in client.say(f(Frame.RST_STREAM, 0, 1, bytes(4)))


def test_draining_waits_for_streams_that_have_begun() -> None:
    client = _client()
    client.say(client.head() + _data(grpc_message()))
    client.connection.drain()
    client.say(f(Frame.PING, frames.ACK, 0, b"draining"))
    assert not client.connection.closed
    client.connection.respond(1, b"answer")
    client.connection.proceed(1)
    client.say(_data(b"", end=True))
    client.connection.finish(1)
    assert client.connection.closed


def test_incomplete_messages_that_fill_the_connection_fail_the_youngest() -> None:
    limits = ServerLimits(max_message=60_000, window=100_000)
    client = _client(limits)
    head = grpc_message(bytes(50_000))
    client.say(client.head(1) + client.head(3))
    for stream in (1, 3):
        for at in range(0, 48_000, 16_000):
            client.say(_data(head[at : at + 16_000], stream=stream))
    events = client.say(_data(head[48_000:50_000], stream=1) + _data(head[48_000:50_000], stream=3))
    assert events == [Cancelled(3)]
    assert client.say(_data(head[50_000:], stream=1)) == [Message(1, bytes(50_000))]


def test_a_method_that_is_no_stream_stays_unary() -> None:
    client = _client()
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/test.Service/Method"), (":authority", "x")]
    (event,) = client.say(client.head(fields=fields, end=True))
    assert not isinstance(event, Began)


def test_the_length_of_a_stream_must_match() -> None:
    client = _client()
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/test.Service/Method"),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("content-length", "20"),
    ]
    client.say(client.head(fields=fields))
    assert client.say(_data(grpc_message(), end=True)) == [Cancelled(1)]
    assert client.reset_by() is Code.PROTOCOL_ERROR
