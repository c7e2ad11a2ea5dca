"""What policies are asked and answer."""

from __future__ import annotations

import pytest

from filters.ext_authz import Headers, Request, allow, deny


def test_headers_have_no_case() -> None:
    headers = Headers({"X-Team": "blue"})
    assert (headers["x-team"], headers.get("X-TEAM"), "x-TEAM" in headers, headers.get("y")) == (
        "blue",
        "blue",
        True,
        None,
    )


def test_values_of_headers_are_not_shown_by_accident() -> None:
    assert "secret" not in repr(Request(headers=Headers({"authorization": "secret"})))


def test_a_refusal_with_a_mapping_is_json() -> None:
    decision = deny(409, body={"error": "é"})
    assert (decision.body, decision.headers) == (
        '{"error": "é"}'.encode(),
        {"content-type": "application/json"},
    )


def test_a_refusal_keeps_the_content_type_that_it_is_given() -> None:
    assert deny(headers={"Content-Type": "a/b"}, body={}).headers == {"Content-Type": "a/b"}


@pytest.mark.parametrize("status", [200, 99, 100, 103, 299, 600])
def test_a_refusal_is_no_success_and_has_a_status_that_ends_a_request(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        deny(status)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 399])
@pytest.mark.parametrize("headers", [{}, {"location": ""}, {"Location": " "}, {"x-location": "/"}])
def test_a_refusal_that_sends_elsewhere_says_where(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"{status} needs an address to go to: write headers="):
        deny(status, headers=headers)
    assert deny(status, headers={"Location": "/login"}).status == status
    assert deny(304).status == 304


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"": "c"}, {"a": "b\r\nc: d"}, {"a": "\0"}, {"a": 1}])
def test_what_is_no_header_is_refused(headers: dict[str, str]) -> None:
    for make in (
        lambda: allow(headers),
        lambda: allow(response_headers=headers),
        lambda: deny(headers=headers),
    ):
        with pytest.raises(ValueError, match=r"header|value"):
            make()


def test_what_is_no_header_cannot_be_removed() -> None:
    with pytest.raises(ValueError, match="header"):
        allow(remove=["a b"])
