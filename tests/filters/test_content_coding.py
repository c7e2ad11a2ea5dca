"""Content codings within a bound: gzip with several members, br, zstd, deflate, and what is wrong with a body."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from filters.content_coding import (
    CodingError,
    MalformedError,
    TooLargeError,
    UnknownCodingError,
    codings,
    decode,
    encode,
)

NAMES = ("gzip", "br", "zstd", "deflate")
TEXT = b'{"price": 1.10}' * 100


@pytest.mark.parametrize("name", NAMES)
def test_a_body_comes_out_as_it_went_in(name: str) -> None:
    assert decode(encode(TEXT, name), name, len(TEXT)) == TEXT


@given(st.binary(max_size=5000), st.lists(st.sampled_from(NAMES), max_size=3))
def test_codings_are_removed_in_the_reverse_order(body: bytes, names: list[str]) -> None:
    header = ", ".join(names)
    assert decode(encode(body, header), header, 10_000) == body


def test_the_names_of_codings_have_no_case_and_identity_is_none() -> None:
    assert codings(" GZIP ,identity,, Br") == ("gzip", "br")
    assert codings("x-gzip") == ("gzip",)


@pytest.mark.parametrize("name", NAMES)
def test_the_limit_holds_to_the_byte(name: str) -> None:
    coded = encode(TEXT, name)
    assert decode(coded, name, len(TEXT)) == TEXT
    with pytest.raises(TooLargeError, match=f"larger than {len(TEXT) - 1} bytes"):
        decode(coded, name, len(TEXT) - 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_body_that_grows_a_thousandfold_is_stopped_at_the_limit(name: str) -> None:
    with pytest.raises(TooLargeError):
        decode(encode(bytes(50_000_000), name), name, 100_000)


def test_the_limit_holds_between_codings_and_without_any() -> None:
    with pytest.raises(TooLargeError):
        decode(encode(bytes(1_000_000), "gzip, gzip"), "gzip, gzip", 500)
    with pytest.raises(TooLargeError):
        decode(b"four", "identity", 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_body_that_ends_too_early_is_malformed(name: str, cut: int) -> None:
    with pytest.raises(MalformedError):
        decode(encode(TEXT, name)[:-cut], name, 10_000)


@pytest.mark.parametrize("name", NAMES)
def test_text_is_no_coded_body(name: str) -> None:
    with pytest.raises(MalformedError, match="the body is not valid"):
        decode(TEXT, name, 10_000)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_after_the_end_are_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        decode(encode(TEXT, name) + b"more", name, 10_000)


def test_all_members_of_gzip_and_all_frames_of_zstd_are_decoded() -> None:
    assert decode(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", 7) == b"one two"
    assert decode(zstandard.compress(b"one ") + zstandard.compress(b"two"), "zstd", 7) == b"one two"
    with pytest.raises(TooLargeError):
        decode(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", 6)
    with pytest.raises(MalformedError):
        decode(gzip.compress(b"one ") + gzip.compress(b"two")[:-1], "gzip", 7)
    assert decode(gzip.compress(b"one") + bytes(512), "gzip", 7) == b"one"


def test_a_wrong_checksum_is_malformed() -> None:
    coded = bytearray(gzip.compress(TEXT))
    coded[-5] ^= 1
    with pytest.raises(MalformedError):
        decode(bytes(coded), "gzip", 10_000)


def test_deflate_without_its_wrapper_is_accepted() -> None:
    raw = zlib.compressobj(wbits=-15)
    assert decode(raw.compress(TEXT) + raw.flush(), "deflate", 10_000) == TEXT


def test_an_empty_body_has_no_coding() -> None:
    assert decode(b"", "gzip", 10) == b""


def test_a_zstd_window_above_eight_mebibytes_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    coder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(MalformedError):
        decode(coder.compress(TEXT) + coder.flush(), "zstd", 10_000)


@pytest.mark.parametrize("header", ["compress", "gzip, exi", "gzip, gzip, gzip, gzip, gzip"])
def test_other_codings_are_unknown(header: str) -> None:
    with pytest.raises(UnknownCodingError):
        decode(TEXT, header, 10_000)


def test_each_fault_has_its_status() -> None:
    assert [one.status for one in (UnknownCodingError, TooLargeError, MalformedError)] == [415, 413, 400]
    assert all(issubclass(one, CodingError) for one in (UnknownCodingError, TooLargeError, MalformedError))


@given(st.binary(max_size=300), st.sampled_from(NAMES))
def test_any_bytes_are_decoded_or_refused(body: bytes, name: str) -> None:
    with contextlib.suppress(CodingError):
        assert len(decode(body, name, 1000)) <= 1000


def test_large_bodies_of_brotli_are_decoded_in_pieces() -> None:
    body = bytes(range(256)) * 4000
    assert decode(brotli.compress(body), "br", len(body)) == body
