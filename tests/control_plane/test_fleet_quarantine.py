"""The log of the fleet says what is held back, in place of what, and where it came from."""

from __future__ import annotations

import pytest

from xds_server.control_plane.fleet import Fleet
from xds_server.discovery.types import ROUTE
from xds_server.serving.events import Held, Quarantined


@pytest.mark.parametrize(
    ("standing", "said"), [("1", "served in its last accepted form"), (None, "left out")]
)
def test_what_is_held_back_is_logged_with_its_place(
    standing: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held(
        type=ROUTE,
        name="http",
        version="2",
        standing=standing,
        message="missing ): (",
        node="e1",
        place="a.yaml:3:5",
    )
    Fleet(lambda _group, _type, _name: None).observe(Quarantined(group="", held=held))
    assert f"route 'http' was rejected and is {said}" in caplog.text
    assert "node=e1 place=a.yaml:3:5 reason=missing ): (" in caplog.text
