"""Tests that need the engine and the rules of the web application firewall."""

from __future__ import annotations

import pytest

from filters.waf.crs import NotInstalledError, folder, require_engine


def _missing() -> str:
    try:
        require_engine()
        folder()
    except NotInstalledError as error:
        return str(error)
    return ""


needs_rules = pytest.mark.skipif(bool(_missing()), reason=_missing())
"""Skips a test, and says what to install, if they are not there."""
