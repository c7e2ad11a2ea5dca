"""The messages between the policy server and its engine processes: frames of a length of 4 bytes and MessagePack."""

from __future__ import annotations

import msgspec

from filters.waf.names import WafSource

LENGTH = 4
"""Bytes of the length of a frame, in network order."""


class Load(msgspec.Struct, tag="load"):
    """Use these profiles, and no others. The response is a Verdict, perhaps with an `error`."""

    profiles: dict[str, WafSource]


class Inquiry(msgspec.Struct, tag="inspect"):
    """Inspect a request by a profile. `version` is that of HTTP, such as ``1.1``."""

    profile: str
    client: str
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""


class Match(msgspec.Struct, frozen=True):
    """A rule that matched: its id and its message."""

    rule: int
    message: str


class Verdict(msgspec.Struct):
    """What the rules say about a request. `found` is true if its score reaches the threshold. `error` is a failure."""

    found: bool = False
    score: int = 0
    matches: list[Match] = []
    error: str = ""


_encoder = msgspec.msgpack.Encoder()
asked = msgspec.msgpack.Decoder(Load | Inquiry)
answered = msgspec.msgpack.Decoder(Verdict)


def frame(message: Load | Inquiry | Verdict) -> bytes:
    """A message with its length."""
    content = _encoder.encode(message)
    return len(content).to_bytes(LENGTH, "big") + content
