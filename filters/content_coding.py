"""Content codings of bodies (RFC 9110 section 8.4.1): decoding within a bound, and encoding.

The bound is on what comes out, because a few kilobytes may decode to gigabytes. Nothing is cut silently: a body is
decoded as a whole, or a `CodingError` says why not.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping

import brotli
import zstandard

PIECE = 1 << 16
"""Bytes that a decoder produces at a time."""
MOST_CODINGS = 4
"""Codings of one body. More than two are never useful, and each costs a whole pass."""
LARGEST_ZSTD_WINDOW = 8 << 20
"""Bytes (RFC 9659 section 3)."""
_ZLIB, _RAW, _GZIP = zlib.MAX_WBITS, -zlib.MAX_WBITS, zlib.MAX_WBITS | 16
"""The `wbits` of each format."""


class CodingError(ValueError):
    """A body cannot be decoded. `status` is the HTTP status for a request with such a body."""

    status = 400


class UnknownCodingError(CodingError):
    """The body has a coding that is not supported (RFC 9110 section 15.5.16)."""

    status = 415


class TooLargeError(CodingError):
    """The decoded body is larger than the limit."""

    status = 413


class MalformedError(CodingError):
    """The body does not have the coding that its headers name, or it ends too early."""


def codings(header: str) -> tuple[str, ...]:
    """The codings of a Content-Encoding header in lower case, in the order in which they were applied."""
    names = (name.strip(" \t").lower() for name in header.split(","))
    return tuple(name.removeprefix("x-") for name in names if name not in ("", "identity"))


def decode(body: bytes, header: str, limit: int) -> bytes:
    """Return a body without the codings of its Content-Encoding header. The result has at most `limit` bytes.

    gzip may have several members (RFC 1952 section 2.2), and zstd several frames (RFC 8878 section 3.1). An empty body
    stays empty: responses to HEAD have a Content-Encoding and no body. Raises UnknownCodingError, TooLargeError or
    MalformedError.
    """
    applied = codings(header)
    if len(applied) > MOST_CODINGS:
        raise UnknownCodingError(f"a body has at most {MOST_CODINGS} content codings")
    for name in applied:
        if name not in _DECODERS:
            raise UnknownCodingError(f"the content coding {name[:40]!r} is not supported")
    if not body:
        return body
    for name in reversed(applied):
        body = _DECODERS[name](body, limit)
    if len(body) > limit:
        raise _too_large(limit)
    return body


def encode(body: bytes, header: str) -> bytes:
    """Return a body with the codings of a Content-Encoding header. Raises UnknownCodingError."""
    for name in codings(header):
        if name not in _ENCODERS:
            raise UnknownCodingError(f"the content coding {name[:40]!r} is not supported")
        body = _ENCODERS[name](body)
    return body


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the decoded body is larger than {limit} bytes")


def _malformed(name: str, why: str) -> MalformedError:
    return MalformedError(f"the body is not valid {name}: {why}")


def _gzip(body: bytes, limit: int) -> bytes:
    parts, room = [], limit
    while body:
        part, body = _inflated(body, _GZIP, room, "gzip", limit)
        parts.append(part)
        room -= len(part)
        if not body.strip(b"\0"):  # padding after the last member, as of gzip files on tapes
            break
    return b"".join(parts)


def _deflate(body: bytes, limit: int) -> bytes:
    """Decode the zlib format (RFC 9110 section 8.4.1.2), or deflate without it, as some senders do."""
    zlib_format = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    result, rest = _inflated(body, _ZLIB if zlib_format else _RAW, limit, "deflate", limit)
    if rest:
        raise _malformed("deflate", "bytes follow its end")
    return result


def _inflated(body: bytes, wbits: int, room: int, name: str, limit: int) -> tuple[bytes, bytes]:
    """Return one complete stream of at most `room` bytes, and the bytes after it."""
    decoder = zlib.decompressobj(wbits)
    try:
        result = decoder.decompress(body, room + 1)
    except zlib.error as error:
        raise _malformed(name, str(error)) from None
    if len(result) > room:
        raise _too_large(limit)
    if not decoder.eof:
        raise _malformed(name, "it ends too early")
    return result, decoder.unused_data


def _brotli(body: bytes, limit: int) -> bytes:
    decoder, parts, size = brotli.Decompressor(), [], 0
    data = body
    try:
        while True:
            part = decoder.process(data, output_buffer_limit=PIECE)
            data = b""
            parts.append(part)
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            if decoder.is_finished():
                return b"".join(parts)
            if not part:
                raise _malformed("brotli", "it ends too early")
    except brotli.error:
        raise _malformed("brotli", "it cannot be decoded") from None


def _zstd(body: bytes, limit: int) -> bytes:
    """Decode one or more frames. A reader measures the result first, because only it can stop at the limit."""
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=LARGEST_ZSTD_WINDOW).stream_reader(
            body, read_across_frames=True
        )
        room = limit
        while part := reader.read(PIECE):
            room -= len(part)
            if room < 0:
                raise _too_large(limit)
        return b"".join(_zstd_frames(body))
    except zstandard.ZstdError as error:
        raise _malformed("zstd", str(error)) from None


def _zstd_frames(body: bytes) -> Iterator[bytes]:
    while body:
        decoder = zstandard.ZstdDecompressor(max_window_size=LARGEST_ZSTD_WINDOW).decompressobj()
        yield decoder.decompress(body)
        if not decoder.eof:
            raise _malformed("zstd", "it ends too early")
        body = decoder.unused_data


_DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "br": _brotli,
    "deflate": _deflate,
    "gzip": _gzip,
    "zstd": _zstd,
}
_ENCODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "br": lambda body: brotli.compress(body, quality=4),
    "deflate": lambda body: zlib.compress(body, 6),
    "gzip": lambda body: gzip.compress(body, 6, mtime=0),
    "zstd": lambda body: zstandard.ZstdCompressor(level=3).compress(body),
}
"""Levels of a server that compresses each response once."""
