"""The client's side of HTTP/2 as raw bytes, to say what no well-behaved library would say."""

from __future__ import annotations

from dataclasses import dataclass

import hpack

from xds_server.unary_server import frames
from xds_server.unary_server.connection import Connection
from xds_server.unary_server.events import Event, Request, ServerLimits
from xds_server.unary_server.frames import Code, Frame

PATH = "/test.Service/Method"
FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "x"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def grpc_message(body: bytes = b"ask") -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


@dataclass(frozen=True)
class Seen:
    """A frame that the server sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def parse(data: bytes) -> list[Seen]:
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        stream = int.from_bytes(data[at + 5 : at + 9], "big")
        found.append(Seen(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length]))
        at += 9 + length
    return found


class Client:
    """Talks to a `Connection`; `begin` says the preface and the first SETTINGS. With `streams`, PATH is a stream."""

    def __init__(
        self, limits: ServerLimits | None = None, *, begin: bool = True, streams: bool = False
    ) -> None:
        self.connection = Connection(limits, {PATH.encode()} if streams else ())
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        if begin:
            self.say(frames.PREFACE + frames.settings({}))
            self.first = self.heard()

    def say(self, data: bytes) -> list[Event]:
        return self.connection.receive(data)

    def heard(self) -> list[Seen]:
        return parse(self.connection.take())

    def block(self, fields: list[tuple[str, str]] | None = None) -> bytes:
        return self.encoder.encode(FIELDS if fields is None else fields)

    def head(
        self, stream: int = 1, *, end: bool = False, fields: list[tuple[str, str]] | None = None
    ) -> bytes:
        flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
        return frames.frame(Frame.HEADERS, flags, stream, self.block(fields))

    def request(self, stream: int = 1, body: bytes = b"ask") -> bytes:
        return self.head(stream) + frames.frame(Frame.DATA, frames.END_STREAM, stream, grpc_message(body))

    def fields(self, seen: Seen) -> dict[str, str]:
        return dict(self.decoder.decode(seen.payload))

    def works(self, stream: int) -> bool:
        """Whether a request on this stream is still taken and answered."""
        events = self.say(self.request(stream))
        if events != [event for event in events if isinstance(event, Request)] or not events:
            return False
        self.connection.answer(stream, b"answer")
        kinds = [one.kind for one in self.heard() if one.stream == stream]
        return kinds == [Frame.HEADERS, Frame.DATA, Frame.HEADERS]

    def ended_by(self) -> Code | None:
        """The code of GOAWAY, when the connection has ended."""
        found = [one for one in self.heard() if one.kind == Frame.GOAWAY]
        return (
            Code(int.from_bytes(found[-1].payload[4:8], "big")) if found and self.connection.closed else None
        )

    def reset_by(self, stream: int = 1) -> Code | None:
        """The code of RST_STREAM, when that stream was reset."""
        found = [one for one in self.heard() if one.kind == Frame.RST_STREAM and one.stream == stream]
        return (
            Code(int.from_bytes(found[-1].payload, "big")) if found and not self.connection.closed else None
        )
