"""A request as a policy reads it."""

from __future__ import annotations

import pytest

from filters.check import lazy_request


def _request(path: str) -> lazy_request.Request:
    attributes = lazy_request.Attributes()
    attributes.request.http.path = path
    return lazy_request.request(attributes)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("/caf%c3%A9/%zz?q=%c3", "/caf%C3%A9/%zz"),
        ("/100%", "/100%"),
        ("/a%2bb", "/a%2Bb"),
    ],
)
def test_escapes_in_the_path_have_one_case(sent: str, read: str) -> None:
    assert _request(sent).path == read
    assert _request(sent).query_string == sent.partition("?")[2]
