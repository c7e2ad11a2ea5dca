"""What HTTP/2 servers fell for: floods, bombs, slow readers. Memory and work stay bounded, then the peer is cut."""

from __future__ import annotations

import itertools

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http2 import FIELDS, Client, grpc_message, parse
from xds_server.unary_server import frames
from xds_server.unary_server.connection import Connection
from xds_server.unary_server.events import Cancelled, Request, ServerLimits
from xds_server.unary_server.fields import FieldDecoder
from xds_server.unary_server.frames import END_HEADERS, END_STREAM, Code, Frame

f = frames.frame
CALM = ServerLimits(max_idle_frames=200, max_streams=10, max_header_block=1000, max_answer_buffer=5000)


@pytest.mark.parametrize(
    "flood",
    [
        f(Frame.PING, 0, 0, bytes(8)),
        frames.settings({}),
        f(Frame.PRIORITY, 0, 7, bytes(5)),
        f(0x77, 0, 0, b""),
        frames.window_update(0, 1),
        f(Frame.DATA, 0, 1, b""),
        f(Frame.DATA, frames.PADDED, 1, b"\0"),
    ],
    ids=["ping", "settings", "priority", "unknown", "window", "empty data", "padding only"],
)
def test_frames_without_progress_end_the_connection(flood: bytes) -> None:
    client = Client(CALM)
    client.say(client.head())
    for _ in range(300):
        client.say(flood)
    assert client.ended_by() is Code.ENHANCE_YOUR_CALM


def test_rapid_reset_does_not_multiply_the_work() -> None:
    """CVE-2023-44487: requests that are reset at once, one after the other."""
    client = Client(ServerLimits(max_idle_frames=10_000, max_streams=10))
    wanted = 0
    for number in range(500):
        stream = 2 * number + 1
        events = client.say(client.request(stream) + f(Frame.RST_STREAM, 0, stream, bytes(4)))
        wanted += sum(isinstance(one, Request) and client.connection.wanted(one.stream) for one in events)
        assert client.connection.active <= 10
    assert wanted == 0


def test_resets_without_an_end_are_cut() -> None:
    client = Client(CALM)
    for number in range(300):
        client.say(client.request(2 * number + 1) + f(Frame.RST_STREAM, 0, 2 * number + 1, bytes(4)))
    assert client.ended_by() is Code.ENHANCE_YOUR_CALM


def test_work_that_goes_on_after_its_reset_counts_against_the_streams() -> None:
    client = Client(ServerLimits(max_streams=2))
    for stream in (1, 3):
        client.say(client.request(stream))
        client.say(f(Frame.RST_STREAM, 0, stream, bytes(4)))
    client.say(client.head(5))
    assert client.reset_by(5) is Code.REFUSED_STREAM
    client.connection.release(1)
    assert client.works(7)


@pytest.mark.parametrize("size", [0, 100])
def test_a_continuation_flood_is_cut(size: int) -> None:
    """CVE-2024-27316: a field block that never ends."""
    client = Client(CALM)
    client.say(f(Frame.HEADERS, 0, 1, b""))
    for _ in range(300):
        client.say(f(Frame.CONTINUATION, 0, 1, bytes(size)))
    assert client.ended_by() is Code.ENHANCE_YOUR_CALM


def test_a_bomb_of_indexed_fields_is_cut() -> None:
    client = Client(CALM)
    client.say(client.head(1, fields=[*FIELDS, ("x-large", "x" * 500)]))
    block = client.block([("x-large", "x" * 500)])
    assert len(block) < 3
    client.say(f(Frame.HEADERS, END_HEADERS, 3, block * 200))
    assert client.ended_by() is Code.ENHANCE_YOUR_CALM


def test_answers_that_nobody_reads_end_the_connection() -> None:
    client = Client(CALM)
    client.say(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 0}))
    for stream in (1, 3, 5):
        client.say(client.request(stream))
        client.connection.answer(stream, bytes(2000))
    assert client.ended_by() is Code.ENHANCE_YOUR_CALM


def test_requests_fill_no_more_than_the_connections_window() -> None:
    client = Client(ServerLimits(window=100_000, max_message=1 << 20))
    client.say(b"".join(client.head(2 * number + 1) for number in range(10)))
    for number in range(10):
        client.say(f(Frame.DATA, 0, 2 * number + 1, grpc_message(bytes(12_000))[:-1]))
    assert client.ended_by() is Code.FLOW_CONTROL_ERROR


def test_the_window_is_given_back_as_requests_end() -> None:
    client = Client(ServerLimits(window=100_000))
    for number in range(50):
        assert len(client.say(client.request(2 * number + 1, bytes(10_000)))) == 1
        client.connection.answer(2 * number + 1, b"")
    assert not client.connection.closed


def _piece(stream: int, body: bytes) -> bytes:
    cut = [body[at : at + frames.SMALLEST_FRAME] for at in range(0, len(body), frames.SMALLEST_FRAME)]
    return b"".join(f(Frame.DATA, 0, stream, one) for one in cut)


def test_requests_that_fill_the_window_piece_by_piece_do_not_wait_for_each_other() -> None:
    """Each of three has half of the window: the youngest is refused, and the others become whole in its place."""
    client = Client(ServerLimits(window=90_000))
    whole = grpc_message(bytes(44_000))
    client.say(client.head(1) + client.head(3) + client.head(5))
    for stream in (1, 3, 5):
        client.say(_piece(stream, whole[:30_000]))
    answer, reset, given = client.heard()
    assert (answer.stream, client.fields(answer)["grpc-status"]) == (5, "8")
    assert (reset.kind, reset.stream, reset.payload) == (Frame.RST_STREAM, 5, bytes(4))
    assert (given.kind, given.stream, int.from_bytes(given.payload, "big")) == (
        Frame.WINDOW_UPDATE,
        0,
        30_000,
    )
    for stream in (1, 3):
        (event,) = client.say(_piece(stream, whole[30_000:]) + f(Frame.DATA, END_STREAM, stream, b""))
        assert isinstance(event, Request)
        assert event.body == whole
        client.connection.answer(stream, b"")
    client.heard()
    assert client.works(7)


def test_a_window_that_gets_small_is_given_back_before_half_of_it_was_used() -> None:
    """What ended requests took is given to those that are not whole."""
    client = Client(ServerLimits(window=100_000))
    client.say(client.request(1, bytes(16_000)))
    client.connection.answer(1, b"")
    client.heard()
    client.say(client.head(3) + _piece(3, grpc_message(bytes(90_000))[: 100_000 - 16_005]))
    (given,) = client.heard()
    assert (given.kind, given.stream, int.from_bytes(given.payload, "big")) == (
        Frame.WINDOW_UPDATE,
        0,
        16_005,
    )
    (event,) = client.say(
        _piece(3, grpc_message(bytes(90_000))[100_000 - 16_005 :]) + f(Frame.DATA, END_STREAM, 3, b"")
    )
    assert isinstance(event, Request)


def test_a_message_above_the_limit_is_refused_before_it_has_come() -> None:
    client = Client(ServerLimits(max_message=1000))
    client.say(client.head() + f(Frame.DATA, 0, 1, b"\0\0\x10\0\0"))
    answer, reset = client.heard()
    assert client.fields(answer)["grpc-status"] == "8"
    assert (reset.kind, reset.payload) == (Frame.RST_STREAM, bytes(4))


def test_the_kept_blocks_are_forgotten_when_the_table_changes() -> None:
    """An indexed field means another one after an insertion; even one that is equal to the newest."""
    encoder, decoder = hpack.Encoder(), FieldDecoder(1 << 16, 4096)
    first = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/one"),
        ("content-type", "application/grpc"),
    ]
    other = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/two"),
        ("content-type", "application/grpc"),
    ]
    for fields, path in (
        (first, b"/one"),
        (first, b"/one"),
        (other, b"/two"),
        (first, b"/one"),
        (other, b"/two"),
    ) * 3:
        assert decoder.request(1, encoder.encode(fields)).path == path


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_arbitrary_bytes_never_raise(pieces: list[bytes]) -> None:
    client = Client(CALM)
    for piece in pieces:
        client.say(piece)
        client.heard()
    assert client.connection.active <= CALM.max_streams


_frames = st.builds(
    f,
    st.integers(0, 10),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=40), st.just(b"\0\0\0\0\3ask"), st.just(bytes(4)), st.just(b"\x83\x86\x44\x01/")
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_frames, max_size=40))
def test_arbitrary_frames_never_raise_and_hold_few_streams(sent: list[bytes]) -> None:
    client = Client(CALM)
    for one in sent:
        for event in client.say(one):
            if isinstance(event, Request) and client.connection.wanted(event.stream):
                client.connection.answer(event.stream, b"x")
            elif isinstance(event, Cancelled):
                client.connection.release(event.stream)
    assert client.connection.active <= CALM.max_streams
    parse(client.connection.take())


def _conversation() -> bytes:
    client = Client()
    data = frames.PREFACE + frames.settings({}) + client.request(1) + client.head(3)
    data += (
        f(Frame.DATA, 0, 3, grpc_message()[:3]) + f(Frame.PING, 0, 0, bytes(8)) + frames.window_update(0, 5)
    )
    data += f(Frame.DATA, END_STREAM, 3, grpc_message()[3:]) + client.request(5, b"") + client.request(7)
    return data + f(Frame.RST_STREAM, 0, 7, bytes(4))


CONVERSATION = _conversation()


def _played(pieces: list[bytes]) -> tuple[list[object], bytes]:
    connection, seen = Connection(), []
    for piece in pieces:
        seen += connection.receive(piece)
    for event in seen:
        if isinstance(event, Request) and connection.wanted(event.stream):
            connection.answer(event.stream, event.body)
    return seen, connection.take()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=12))
def test_the_answers_are_the_same_however_the_bytes_are_split(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    pieces = [CONVERSATION[begin:end] for begin, end in itertools.pairwise(edges)]
    assert _played(pieces) == _played([CONVERSATION])
