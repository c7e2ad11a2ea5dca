"""Values of objects as text of the gateway language: whatever an object has is read back as it is."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from xds_server.gateway import document
from xds_server.gateway_api.gateway_files import GatewayFiles

ODD = [
    "\x80",
    "\uffff",
    "\ufffe",
    "\u2028",
    "\x85",
    "\ufeff",
    "\U0001f600",
    "a" * 1200,
    "\x7f",
    "\t",
    "\r\n",
    "\x00",
]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from([*ODD, "${HOME}", "a: b", "? x"])
VALUES = st.recursive(
    TEXTS | st.integers(-9, 99) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, VALUES)
def test_what_is_written_is_read_back(name: str, value: Any) -> None:
    files = GatewayFiles(files={"a.yaml": {"routes": {name: value}}}, contents={}, origins={}, upstreams={})
    found = document.parse("a.yaml", files.rendered()["a.yaml"], {})
    assert not [one for one in found.problems if one.severity == "error"]
    assert found.values == {"routes": {name: value}}
