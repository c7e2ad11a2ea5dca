"""A request as a policy reads it."""

from __future__ import annotations

import pytest

from filters.ext_authz import asked


def _request(path: str) -> asked.Request:
    attributes = asked.Attributes()
    attributes.request.http.path = path
    return asked.request(attributes)


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
