"""Rotation of the authority: whoever reads the bundle once in 12 hours trusts every certificate that is in use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xds_server.certificate_authority.rotation import LIFETIME, Authorities, advanced

START = datetime(2026, 1, 1, tzinfo=UTC)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.timedeltas(timedelta(minutes=1), timedelta(days=500)), min_size=5, max_size=40))
def test_every_certificate_in_use_is_trusted_by_a_bundle_of_a_year_ago(pauses: list[timedelta]) -> None:
    """The Secret is looked at every 20 days while controllers run, and pods start again once in a year."""
    now = START
    authorities = advanced(None, now)
    read = [(now, authorities.bundle)]
    for pause in pauses:
        for _ in range(pause // timedelta(days=20)):
            now += timedelta(days=20)
            authorities = advanced(authorities, now)
            read.append((now, authorities.bundle))
            for when, bundle in read:
                if now - when < timedelta(days=365):
                    assert authorities.current.certificate.strip() in bundle
            assert authorities.current.ends - now > timedelta(days=365)
            assert Authorities.of(authorities.data()) == authorities


def test_nothing_changes_without_need() -> None:
    authorities = advanced(None, START)
    assert advanced(authorities, START + LIFETIME / 2) is authorities


def test_a_successor_signs_long_after_it_is_announced() -> None:
    announced = advanced(advanced(None, START), START + LIFETIME * 0.7)
    assert announced.upcoming is not None
    assert announced.upcoming.certificate.strip() in announced.bundle
    assert advanced(announced, START + LIFETIME * 0.83) is announced
    promoted = advanced(announced, START + LIFETIME * 0.84)
    assert promoted.current == announced.upcoming
    assert promoted.former == announced.current.certificate
    assert advanced(promoted, START + LIFETIME + timedelta(days=1)).former == b""


def test_an_authority_that_has_expired_is_replaced_at_once() -> None:
    replaced = advanced(advanced(None, START), START + LIFETIME)
    assert replaced.current.ends == START + LIFETIME * 2


def test_data_that_is_no_authority_is_rejected() -> None:
    good = advanced(None, START).data()
    for bad in ({}, {**good, "tls.key": b"x"}, {"tls.crt": good["tls.crt"]}):
        with pytest.raises(ValueError, match=r"tls\.crt|PEM"):
            Authorities.of(bad)
