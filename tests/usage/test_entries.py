"""What is an entry, and what is not: nothing that a client sends can forge or break one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.usage import entry, message
from xds_server.translate.usage_log import FIELDS
from xds_server.usage.entries import MalformedExport, entries


def test_good_entries_are_returned_as_they_are() -> None:
    sent = [entry(), entry(consumer="-", plan="-", route="-", lasted="-", status=0)]
    assert entries(message(sent)) == ([one.encode() for one in sent], 0)


def test_an_entry_has_the_fields_that_envoy_is_told_to_send() -> None:
    assert len(entry().split("\t")) == len(FIELDS)


BAD = [
    "",
    "hello",
    entry(version="2"),
    entry() + "\n" + entry(),
    entry() + "\t",
    entry(route="a\tb"),
    entry(route=""),
    entry(route="a\nb"),
    entry(consumer="\x1b[31mred"),
    entry(consumer="x" * 256),
    entry(plan="x\x00"),
    entry(status=-1),
    entry(status="20x"),
    entry(status=1000),
    entry(sent="1e3"),
    entry(sent="9" * 16),
    entry(received="١٢"),
    entry(start="-5"),
    entry(lasted=""),
    entry(identity="x" * 36),
    entry(identity="0" * 35),
    entry(consumer="y" * 1_000_000),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_what_is_no_entry_is_rejected_alone(bad: str) -> None:
    good = entry()
    assert entries(message([bad, good])) == ([good.encode()], 1)


def test_a_name_that_is_not_utf_8_does_not_break_its_message() -> None:
    strange = entry(route="ROUTE").encode().replace(b"ROUTE", b"caf\xe9")
    assert entries(message([strange])) == ([strange], 0)


def test_records_without_a_text_are_rejected() -> None:
    assert entries(b"\x0a\x04\x12\x02\x12\x00") == ([], 1)


@pytest.mark.parametrize("payload", [b"\xff", b"\x0a\xff", b"\x0a\x05\x12", b"GET / HTTP/1.1\r\n"])
def test_bytes_that_are_no_message_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedExport):
        entries(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_entries_or_malformed(payload: bytes) -> None:
    try:
        found = entries(payload)
    except MalformedExport:
        return
    assert all(one.count(b"\t") == len(FIELDS) - 1 for one in found.good)


@given(st.binary(max_size=300))
def test_no_text_adds_a_field_or_a_line(name: bytes) -> None:
    changed = entry(route="NAME").encode().replace(b"NAME", name)
    for one in entries(message([changed])).good:
        assert one.count(b"\t") == len(FIELDS) - 1
        assert not any(byte < 0x20 and byte != 0x09 for byte in one)
