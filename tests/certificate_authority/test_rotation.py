"""Rotation of the authority: whoever reads the bundle once in 12 hours trusts every certificate that is in use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xds_server.certificate_authority.rotation import LIFETIME, Authorities, advanced

START = datetime(2026, 1, 1, tzinfo=UTC)
SERVING = timedelta(days=7)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.timedeltas(timedelta(minutes=1), timedelta(days=500)), min_size=5, max_size=40))
def test_every_certificate_in_use_is_trusted_by_an_old_bundle(pauses: list[timedelta]) -> None:
    """After each pause the Secret is looked at every 12 hours for three days, as controllers that run do."""
    now = START
    authorities = advanced(None, now)
    for pause in pauses:
        now += pause
        authorities = advanced(authorities, now)
        for _ in range(6):
            read_before = authorities.bundle
            now += timedelta(hours=12)
            before, authorities = authorities, advanced(authorities, now)
            if before.current.ends > now:  # an authority that nobody renewed in time is replaced at once
                assert authorities.current.certificate.strip() in read_before
                assert before.current.ends <= now or before.current.certificate.strip() in authorities.bundle
        assert authorities.current.ends > now
        assert Authorities.of(authorities.data()) == authorities


def test_nothing_changes_without_need() -> None:
    authorities = advanced(None, START)
    assert advanced(authorities, START + LIFETIME / 2) is authorities


def test_a_successor_signs_a_day_after_it_is_announced() -> None:
    late = START + LIFETIME * 0.7
    announced = advanced(advanced(None, START), late)
    assert announced.upcoming is not None
    assert advanced(announced, late + timedelta(hours=23)) is announced
    promoted = advanced(announced, late + timedelta(hours=25))
    assert promoted.current == announced.upcoming
    assert promoted.former == announced.current.certificate
    assert advanced(promoted, START + LIFETIME + timedelta(days=1)).former == b""


def test_data_that_is_no_authority_is_rejected() -> None:
    good = advanced(None, START).data()
    for bad in ({}, {**good, "tls.key": b"x"}, {"tls.crt": good["tls.crt"]}):
        with pytest.raises(ValueError, match=r"tls\.crt|PEM"):
            Authorities.of(bad)
