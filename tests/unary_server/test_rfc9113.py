"""What RFC 9113 asks of a server, section by section, as raw bytes."""

from __future__ import annotations

import pytest

from tests.support.http2 import FIELDS, Client, Seen, grpc_message
from xds_server.unary_server import frames
from xds_server.unary_server.events import Cancelled, Request, ServerLimits, Unread
from xds_server.unary_server.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PRIORITIZED,
    Code,
    Frame,
    Setting,
)

f = frames.frame


def _settings(**values: int) -> bytes:
    return frames.settings({Setting[name]: value for name, value in values.items()})


# --- 3 Starting HTTP/2 ------------------------------------------------------------------------------------------


def test_3_4_the_server_begins_with_settings() -> None:
    assert Client().first[0].kind == Frame.SETTINGS


def test_3_4_the_preface_may_come_in_any_pieces() -> None:
    client = Client(begin=False)
    for byte in frames.PREFACE + frames.settings({}):
        client.say(bytes([byte]))
    assert client.works(1)


def test_3_4_another_preface_ends_the_connection() -> None:
    client = Client(begin=False)
    client.say(b"GET / HTTP/1.1\r\n")
    assert client.ended_by() is Code.PROTOCOL_ERROR


def test_3_4_the_first_frame_is_settings() -> None:
    client = Client(begin=False)
    client.say(frames.PREFACE + f(Frame.PING, 0, 0, bytes(8)))
    assert client.ended_by() is Code.PROTOCOL_ERROR


# --- 4 Frames ---------------------------------------------------------------------------------------------------


def test_4_1_unknown_frames_and_flags_are_ignored() -> None:
    client = Client()
    client.say(f(0x77, 0xFF, 0, b"x") + f(0x78, 0, 1, b"y") + f(Frame.PING, 0xFE, 0, bytes(8)))
    assert client.works(1)


def test_4_1_the_reserved_bit_is_ignored() -> None:
    client = Client()
    client.say(b"\0\0\x08\x06\0\x80\0\0\0" + bytes(8))
    assert [one.kind for one in client.heard()] == [Frame.PING]


def test_4_2_a_frame_above_the_size_that_was_offered_ends_the_connection() -> None:
    client = Client()
    client.say(client.head() + b"\x00\x40\x01\0\0\0\0\0\x01")
    assert client.ended_by() is Code.FRAME_SIZE_ERROR


def test_4_2_the_largest_frame_that_was_offered_is_taken() -> None:
    client = Client()
    body = grpc_message(bytes(frames.SMALLEST_FRAME - 5))
    (event,) = client.say(client.head() + f(Frame.DATA, END_STREAM, 1, body))
    assert isinstance(event, Request)
    assert event.body == body


def test_4_3_a_field_block_that_is_no_hpack_ends_the_connection() -> None:
    client = Client()
    client.say(f(Frame.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"))
    assert client.ended_by() is Code.COMPRESSION_ERROR


def test_4_3_a_field_block_may_be_split_anywhere() -> None:
    client = Client()
    block = client.block()
    parts = [block[:1], *[block[at : at + 7] for at in range(1, len(block), 7)]]
    data = f(Frame.HEADERS, 0, 1, parts[0])
    data += b"".join(f(Frame.CONTINUATION, 0, 1, part) for part in parts[1:])
    data += f(Frame.CONTINUATION, END_HEADERS, 1) + f(Frame.DATA, END_STREAM, 1, grpc_message())
    (event,) = client.say(data)
    assert isinstance(event, Request)


def test_6_5_2_the_table_of_fields_may_be_as_large_as_was_offered() -> None:
    client = Client(ServerLimits(field_table=10_000))
    (offered,) = [one for one in client.first if one.kind == Frame.SETTINGS and not one.flags & ACK]
    assert offered.payload[:6] == Setting.HEADER_TABLE_SIZE.to_bytes(2, "big") + (10_000).to_bytes(4, "big")
    client.encoder.header_table_size = 10_000
    assert client.works(1)
    client.encoder.header_table_size = 10_001
    client.say(client.head(3))
    assert client.ended_by() is Code.COMPRESSION_ERROR


def test_4_3_the_table_of_fields_is_kept_over_requests_that_are_refused() -> None:
    client = Client(ServerLimits(max_streams=1))
    more = [*FIELDS, ("x-once", "value")]
    client.say(client.head(1))
    client.say(client.head(3, fields=more))
    assert client.reset_by(3) is Code.REFUSED_STREAM
    client.say(f(Frame.RST_STREAM, 0, 1, bytes(4)))
    client.say(client.head(5, fields=more) + f(Frame.DATA, END_STREAM, 5, grpc_message()))
    assert not client.connection.closed


# --- 5 Streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Frame.DATA, Frame.RST_STREAM, Frame.WINDOW_UPDATE])
def test_5_1_a_frame_on_an_idle_stream_ends_the_connection(kind: Frame) -> None:
    client = Client()
    client.say(f(kind, 0, 1, b"\0\0\0\1"))
    assert client.ended_by() is Code.PROTOCOL_ERROR


@pytest.mark.parametrize(("kind", "flags"), [(Frame.DATA, 0), (Frame.HEADERS, END_HEADERS | END_STREAM)])
def test_5_1_a_half_closed_stream_takes_nothing_more(kind: Frame, flags: int) -> None:
    client = Client()
    assert len(client.say(client.request())) == 1
    payload = client.block([("x", "y")]) if kind is Frame.HEADERS else b"x"
    assert client.say(f(kind, flags, 1, payload)) == [Cancelled(1)]
    assert client.reset_by() is Code.STREAM_CLOSED


def test_5_1_a_closed_stream_takes_no_headers() -> None:
    client = Client()
    assert client.works(1)
    client.say(client.head(1))
    assert client.ended_by() is Code.STREAM_CLOSED


def test_5_1_data_on_a_closed_stream_is_answered_with_stream_closed() -> None:
    client = Client()
    assert client.works(1)
    client.say(f(Frame.DATA, 0, 1, b"x"))
    assert client.reset_by() is Code.STREAM_CLOSED


@pytest.mark.parametrize(
    ("kind", "payload"), [(Frame.RST_STREAM, bytes(4)), (Frame.WINDOW_UPDATE, b"\0\0\0\1")]
)
def test_5_1_a_closed_stream_takes_rst_stream_and_window_update_for_a_while(
    kind: Frame, payload: bytes
) -> None:
    client = Client()
    assert client.works(1)
    client.say(f(kind, 0, 1, payload))
    assert client.works(3)


def test_5_1_what_was_on_its_way_for_a_stream_that_the_server_reset_is_ignored() -> None:
    client = Client()
    client.say(client.head(1, fields=[(":method", "POST")]))
    assert client.reset_by() is Code.PROTOCOL_ERROR
    client.say(f(Frame.DATA, 0, 1, b"late") + client.head(1, end=True, fields=[("late", "1")]))
    assert client.heard() == []
    assert client.works(3)


@pytest.mark.parametrize("stream", [0, 2])
def test_5_1_1_a_clients_stream_has_an_odd_number(stream: int) -> None:
    client = Client()
    client.say(client.head(stream))
    assert client.ended_by() is Code.PROTOCOL_ERROR


def test_5_1_1_stream_numbers_only_grow() -> None:
    client = Client()
    assert client.works(5)
    client.say(client.head(3))
    assert client.ended_by() is Code.STREAM_CLOSED


def test_5_1_2_more_streams_than_offered_are_refused() -> None:
    client = Client(ServerLimits(max_streams=2))
    client.say(client.head(1) + client.head(3) + client.head(5))
    assert client.reset_by(5) is Code.REFUSED_STREAM
    assert len(client.say(f(Frame.DATA, END_STREAM, 1, grpc_message()))) == 1


def test_5_2_an_answer_waits_for_the_windows() -> None:
    client = Client()
    client.say(_settings(INITIAL_WINDOW_SIZE=10))
    client.say(client.request())
    client.heard()
    client.connection.answer(1, bytes(20))
    assert [(one.kind, len(one.payload)) for one in client.heard()][1:] == [(Frame.DATA, 10)]
    client.say(frames.window_update(1, 5))
    assert [len(one.payload) for one in client.heard()] == [5]
    client.say(_settings(INITIAL_WINDOW_SIZE=30))
    kinds = [(one.kind, one.flags & END_STREAM) for one in client.heard() if one.stream == 1]
    assert kinds == [(Frame.DATA, 0), (Frame.HEADERS, END_STREAM)]
    assert client.connection.active == 0


def test_5_2_an_answer_is_cut_to_the_peers_frame_size_and_to_the_connections_window() -> None:
    client = Client()
    client.say(_settings(INITIAL_WINDOW_SIZE=1 << 20) + client.request())
    client.heard()
    client.connection.answer(1, bytes(100_000))
    sent = [len(one.payload) for one in client.heard() if one.kind == Frame.DATA]
    assert sent == [16384, 16384, 16384, 16383]
    client.say(frames.window_update(0, 1 << 20))
    assert sum(len(one.payload) for one in client.heard() if one.kind == Frame.DATA) == 100_005 - 65_535


# --- 6 Frame definitions ----------------------------------------------------------------------------------------


def test_6_1_padding_of_data_is_taken_off_and_counts_for_the_window() -> None:
    client = Client()
    padded = bytes([3]) + grpc_message() + bytes(3)
    (event,) = client.say(client.head() + f(Frame.DATA, PADDED | END_STREAM, 1, padded))
    assert isinstance(event, Request)
    assert event.body == grpc_message()


@pytest.mark.parametrize(("kind", "flags"), [(Frame.DATA, PADDED), (Frame.HEADERS, PADDED | END_HEADERS)])
@pytest.mark.parametrize(("payload", "code"), [(b"\x02x", Code.PROTOCOL_ERROR), (b"", Code.FRAME_SIZE_ERROR)])
def test_6_1_and_6_2_more_padding_than_payload_ends_the_connection(
    kind: Frame, flags: int, payload: bytes, code: Code
) -> None:
    client = Client()
    client.say(client.head(1))
    client.heard()
    client.say(f(kind, flags, 1 if kind is Frame.DATA else 3, payload))
    assert client.ended_by() is code


def test_6_1_data_on_stream_0_ends_the_connection() -> None:
    client = Client()
    client.say(f(Frame.DATA, 0, 0, b"x"))
    assert client.ended_by() is Code.PROTOCOL_ERROR


def test_6_2_the_priority_of_headers_is_ignored() -> None:
    client = Client()
    data = f(Frame.HEADERS, PRIORITIZED | END_HEADERS, 1, b"\0\0\0\1\x10" + client.block())
    (event,) = client.say(data + f(Frame.DATA, END_STREAM, 1, grpc_message()))
    assert isinstance(event, Request)


def test_6_2_headers_too_short_for_their_priority_end_the_connection() -> None:
    client = Client()
    client.say(f(Frame.HEADERS, PRIORITIZED | END_HEADERS, 1, b"\0\0"))
    assert client.ended_by() is Code.FRAME_SIZE_ERROR


def test_6_3_priority_is_ignored_on_any_stream() -> None:
    client = Client()
    client.say(f(Frame.PRIORITY, 0, 7, bytes(5)))
    assert client.works(1)


def test_6_3_priority_of_another_size_is_an_error_of_the_stream() -> None:
    client = Client()
    client.say(client.head() + f(Frame.PRIORITY, 0, 1, bytes(4)))
    assert client.reset_by() is Code.FRAME_SIZE_ERROR


def test_6_3_priority_on_stream_0_ends_the_connection() -> None:
    client = Client()
    client.say(f(Frame.PRIORITY, 0, 0, bytes(5)))
    assert client.ended_by() is Code.PROTOCOL_ERROR


def test_6_4_a_reset_request_is_given_up() -> None:
    client = Client()
    client.say(client.request())
    assert client.say(f(Frame.RST_STREAM, 0, 1, bytes(4))) == [Cancelled(1)]
    client.heard()
    client.connection.answer(1, b"too late")
    assert client.heard() == []
    assert client.connection.active == 0


def test_6_4_a_reset_of_an_answered_request_says_that_the_answer_was_not_read() -> None:
    client = Client()
    assert client.works(1)
    assert client.say(f(Frame.RST_STREAM, 0, 1, bytes(4))) == [Unread(1)]
    client.say(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 0}))
    client.say(client.request(3))
    client.connection.answer(3, b"waits for the window")
    assert client.say(f(Frame.RST_STREAM, 0, 3, bytes(4))) == [Unread(3)]
    client.say(client.head(5, fields=[(":method", "POST")]))
    assert client.say(f(Frame.RST_STREAM, 0, 5, bytes(4))) == []  # the server itself had reset it


@pytest.mark.parametrize(
    ("stream", "size", "code"), [(0, 4, Code.PROTOCOL_ERROR), (1, 3, Code.FRAME_SIZE_ERROR)]
)
def test_6_4_a_malformed_rst_stream_ends_the_connection(stream: int, size: int, code: Code) -> None:
    client = Client()
    client.say(client.head() + f(Frame.RST_STREAM, 0, stream, bytes(size)))
    assert client.ended_by() is code


def test_6_5_settings_are_acknowledged() -> None:
    client = Client()
    client.say(_settings(MAX_CONCURRENT_STREAMS=1) + f(Frame.SETTINGS, 0, 0, b"\x7f\xff\0\0\0\1"))
    assert [(one.kind, one.flags) for one in client.heard()] == [(Frame.SETTINGS, ACK)] * 2


@pytest.mark.parametrize(
    ("flags", "stream", "payload", "code"),
    [
        (ACK, 0, bytes(6), Code.FRAME_SIZE_ERROR),
        (0, 0, bytes(5), Code.FRAME_SIZE_ERROR),
        (0, 1, bytes(6), Code.PROTOCOL_ERROR),
        (0, 0, b"\0\2\0\0\0\2", Code.PROTOCOL_ERROR),
        (0, 0, b"\0\4\x80\0\0\0", Code.FLOW_CONTROL_ERROR),
        (0, 0, b"\0\5\0\0\x3f\xff", Code.PROTOCOL_ERROR),
        (0, 0, b"\0\5\1\0\0\0", Code.PROTOCOL_ERROR),
    ],
)
def test_6_5_malformed_settings_end_the_connection(
    flags: int, stream: int, payload: bytes, code: Code
) -> None:
    client = Client()
    client.say(f(Frame.SETTINGS, flags, stream, payload))
    assert client.ended_by() is code


def test_6_6_a_client_does_not_push() -> None:
    client = Client()
    client.say(client.head() + f(Frame.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2"))
    assert client.ended_by() is Code.PROTOCOL_ERROR


def test_6_7_a_ping_is_answered_with_what_it_held() -> None:
    client = Client()
    client.say(f(Frame.PING, 0, 0, b"12345678") + f(Frame.PING, ACK, 0, b"87654321"))
    (pong,) = client.heard()
    assert (pong.flags, pong.payload) == (ACK, b"12345678")


@pytest.mark.parametrize(
    ("stream", "size", "code"), [(1, 8, Code.PROTOCOL_ERROR), (0, 7, Code.FRAME_SIZE_ERROR)]
)
def test_6_7_a_malformed_ping_ends_the_connection(stream: int, size: int, code: Code) -> None:
    client = Client()
    client.say(f(Frame.PING, 0, stream, bytes(size)))
    assert client.ended_by() is code


def _last_stream(seen: Seen) -> int:
    assert (seen.kind, seen.payload[4:8]) == (Frame.GOAWAY, bytes(4))
    return int.from_bytes(seen.payload[:4], "big")


def test_6_8_draining_finishes_what_was_sent() -> None:
    """Requests that are on their way are still taken, later ones are not, and all that are under way are finished."""
    client = Client()
    client.say(client.request(1))
    client.heard()
    client.connection.drain()
    goaway, ping = client.heard()
    assert (_last_stream(goaway), ping.kind) == (2**31 - 1, Frame.PING)
    assert len(client.say(client.request(3))) == 1
    client.say(f(Frame.PING, ACK, 0, ping.payload))
    assert [_last_stream(one) for one in client.heard()] == [3]
    assert client.say(client.request(5)) == []
    client.connection.answer(1, b"answer")
    assert not client.connection.closed
    client.connection.answer(3, b"answer")
    assert client.connection.closed


def test_6_8_draining_ends_a_connection_on_which_nothing_was_said() -> None:
    client = Client(begin=False)
    client.connection.drain()
    assert client.connection.closed


def test_6_8_only_the_ping_of_the_drain_ends_it() -> None:
    client = Client()
    client.connection.drain()
    client.say(f(Frame.PING, ACK, 0, bytes(8)))
    assert client.works(1)


@pytest.mark.parametrize(
    ("stream", "size", "code"), [(1, 8, Code.PROTOCOL_ERROR), (0, 7, Code.FRAME_SIZE_ERROR)]
)
def test_6_8_a_malformed_goaway_ends_the_connection(stream: int, size: int, code: Code) -> None:
    client = Client()
    client.say(f(Frame.GOAWAY, 0, stream, bytes(size)))
    assert client.ended_by() is code


def test_6_9_a_window_increment_of_0_is_an_error() -> None:
    client = Client()
    client.say(client.head() + frames.window_update(1, 0))
    assert client.reset_by() is Code.PROTOCOL_ERROR
    client.say(frames.window_update(0, 0))
    assert client.ended_by() is Code.PROTOCOL_ERROR


def test_6_9_a_window_update_of_another_size_ends_the_connection() -> None:
    client = Client()
    client.say(f(Frame.WINDOW_UPDATE, 0, 0, bytes(3)))
    assert client.ended_by() is Code.FRAME_SIZE_ERROR


def test_6_9_1_a_window_above_its_maximum_is_an_error() -> None:
    client = Client()
    client.say(client.head() + frames.window_update(1, frames.LARGEST_WINDOW))
    assert client.reset_by() is Code.FLOW_CONTROL_ERROR
    client.say(frames.window_update(0, frames.LARGEST_WINDOW))
    assert client.ended_by() is Code.FLOW_CONTROL_ERROR


def test_6_9_2_a_new_initial_window_may_make_a_window_negative() -> None:
    client = Client()
    client.say(client.request())
    client.say(_settings(INITIAL_WINDOW_SIZE=10))
    client.heard()
    client.connection.answer(1, bytes(20))
    client.say(_settings(INITIAL_WINDOW_SIZE=0))
    client.heard()
    client.say(frames.window_update(1, 9))
    assert client.heard() == []
    client.say(frames.window_update(1, 16))
    assert client.connection.active == 0


def test_6_9_2_an_initial_window_that_makes_a_window_overflow_ends_the_connection() -> None:
    client = Client()
    client.say(client.head() + frames.window_update(1, 100))
    client.say(_settings(INITIAL_WINDOW_SIZE=frames.LARGEST_WINDOW))
    assert client.ended_by() is Code.FLOW_CONTROL_ERROR


def test_6_10_a_field_block_is_not_interrupted() -> None:
    for other in (f(Frame.PING, 0, 0, bytes(8)), f(Frame.CONTINUATION, 0, 3, b""), f(0x77, 0, 1, b"")):
        client = Client()
        client.say(f(Frame.HEADERS, 0, 1, client.block()) + other)
        assert client.ended_by() is Code.PROTOCOL_ERROR


def test_6_10_continuation_follows_headers_only() -> None:
    client = Client()
    client.say(client.head() + f(Frame.CONTINUATION, END_HEADERS, 1, b""))
    assert client.ended_by() is Code.PROTOCOL_ERROR


# --- 8 HTTP semantics -------------------------------------------------------------------------------------------


def test_8_1_trailers_end_a_request() -> None:
    client = Client()
    data = (
        client.head() + f(Frame.DATA, 0, 1, grpc_message()) + client.head(end=True, fields=[("x-end", "1")])
    )
    (event,) = client.say(data)
    assert isinstance(event, Request)


def test_8_1_trailers_that_do_not_end_the_request_are_malformed() -> None:
    client = Client()
    client.say(client.head() + client.head(fields=[("x-end", "1")]))
    assert client.reset_by() is Code.PROTOCOL_ERROR


def test_8_1_trailers_have_no_pseudo_fields() -> None:
    client = Client()
    client.say(client.head() + client.head(end=True, fields=[(":path", "/x")]))
    assert client.reset_by() is Code.PROTOCOL_ERROR


def test_8_1_1_a_content_length_that_differs_is_malformed() -> None:
    client = Client()
    client.say(
        client.head(fields=[*FIELDS, ("content-length", "9")]) + f(Frame.DATA, END_STREAM, 1, grpc_message())
    )
    assert client.reset_by() is Code.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "more",
    [
        ("X-Upper", "1"),
        ("", "1"),
        ("x y", "1"),
        ("x:y", "1"),
        ("x", "a\r\nb"),
        ("x", "a\0b"),
        ("x", " a"),
        ("x", "a\t"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("content-length", "-1"),
        (":path", "/other"),
        (":status", "200"),
    ],
)
def test_8_2_malformed_fields_are_an_error_of_the_stream(more: tuple[str, str]) -> None:
    client = Client()
    client.say(client.head(fields=[*FIELDS, more]))
    assert client.reset_by() is Code.PROTOCOL_ERROR
    assert client.works(3)


@pytest.mark.parametrize("missing", [":method", ":scheme", ":path"])
def test_8_3_1_a_request_has_its_pseudo_fields(missing: str) -> None:
    client = Client()
    client.say(client.head(fields=[one for one in FIELDS if one[0] != missing]))
    assert client.reset_by() is Code.PROTOCOL_ERROR


def test_8_3_1_the_path_is_not_empty() -> None:
    client = Client()
    client.say(client.head(fields=[(name, "" if name == ":path" else value) for name, value in FIELDS]))
    assert client.reset_by() is Code.PROTOCOL_ERROR
