"""A soak: see tests/support/soak.py. With `--soak 600 --log-cli-level=info` it takes ten minutes and reports figures."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.support.soak import LIMIT, soak

log = logging.getLogger(__name__)


def test_every_response_is_that_of_a_version_that_was_served(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("--soak")
    run = soak(tmp_path, seconds, seed=int(seconds))
    found = run.observer
    log.info(
        "versions=%d lost connections=%d statuses=%s", len(found.versions), run.lost, dict(found.statuses)
    )
    assert found.wrong == []
    assert 0 < found.statuses["limited", 200] <= LIMIT
    assert {200, 404} <= {status for kind, status in found.statuses if kind == "route"}
    assert {200, 401} == {status for kind, status in found.statuses if kind == "key"}
