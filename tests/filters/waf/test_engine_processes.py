"""Engine processes as policy servers use them: they learn settings, answer in turn, and are replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from filters.waf import crs, install
from filters.waf.engines import EngineError, Engines
from filters.waf.frames import Inquiry
from filters.waf.names import Excluded, WafSource
from tests.support.firewall import needs_rules

HEADERS = [("host", "api.example.com"), ("user-agent", "tests"), ("accept", "*/*")]


def _source(*exclude: Excluded, timeout: float = 20) -> WafSource:
    return WafSource(
        paranoia=1, threshold=5, blocks=True, lenient=False, timeout=timeout, body=True, exclude=exclude
    )


def _inquiry(source: WafSource, target: str = "/?id=1%27%20OR%20%271%27=%271") -> Inquiry:
    return Inquiry(source.name, "127.0.0.1", "GET", target, "1.1", HEADERS)


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    started = Engines(crs.folder(), asyncio.get_running_loop(), processes=1)
    yield started
    await started.close()


@needs_rules
async def test_settings_that_come_later_are_used_at_once(engines: Engines) -> None:
    first, second = _source(), _source(Excluded(942100, None, None))
    one = engines.profile(first.name, first)
    verdict = await engines.inspect(one, _inquiry(first))
    assert (verdict.found, verdict.score, [match.rule for match in verdict.matches]) == (True, 5, [942100])
    other = engines.profile(second.name, second)
    found = await asyncio.gather(
        *(engines.inspect(other, _inquiry(second)) for _ in range(3)),
        *(engines.inspect(one, _inquiry(first)) for _ in range(3)),
    )
    assert [verdict.found for verdict in found] == [False] * 3 + [True] * 3


@needs_rules
async def test_a_request_is_never_inspected_by_other_settings(engines: Engines) -> None:
    known, unknown = _source(), _source(timeout=19)
    profile = engines.profile(known.name, known)
    with pytest.raises(EngineError, match="is not loaded"):
        await engines.inspect(profile, _inquiry(unknown))


@needs_rules
async def test_a_process_that_ended_is_replaced(engines: Engines) -> None:
    source = _source()
    profile = engines.profile(source.name, source)
    await engines.inspect(profile, _inquiry(source))
    for number in _children():
        os.kill(number, signal.SIGKILL)
    for _ in range(10):
        try:
            verdict = await engines.inspect(profile, _inquiry(source))
            break
        except EngineError:
            continue
    assert verdict.found


def _children() -> list[int]:
    """The engine processes of this process."""
    me = os.getpid()
    listed = Path(f"/proc/{me}/task").glob("*/children")
    found = [int(one) for file in listed for one in file.read_text().split()]
    return [one for one in found if b"engine_process" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_missing_rules_are_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crs.VARIABLE, str(tmp_path))
    with pytest.raises(crs.NotInstalledError, match=f"is not in {tmp_path}; run make waf"):
        crs.folder()


def test_rules_of_another_version_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "REQUEST-901-INITIALIZATION.conf").write_text("# OWASP_CRS/3.3.4\n")
    monkeypatch.setenv(crs.VARIABLE, str(tmp_path))
    with pytest.raises(crs.NotInstalledError, match=r"has the version 3\.3\.4, not 4"):
        crs.folder()


def test_installed_rules_say_their_version() -> None:
    if not crs.INSTALLED.exists():
        pytest.skip("the rules are not installed: make waf")
    assert crs.version(crs.INSTALLED) == install.MODULE.rpartition("@v")[2]
