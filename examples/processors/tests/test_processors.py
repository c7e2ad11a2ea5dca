"""Tests of this gateway's processors, which are plain classes."""

from pathlib import Path

from filters.ext_proc.testing import exchange, processor, request, response

GATEWAY = Path(__file__).parents[1] / "gateway"
Partners = processor("policies/partners.py:Partners", GATEWAY)
Reports = processor("policies/reports.py:Reports", GATEWAY)
ACME = {"x-partner": "acme"}


def test_the_service_does_not_see_card_numbers() -> None:
    seen = exchange(Partners, request("POST", "/partners", ACME), b'{"card": "4111111111111111"}')
    assert seen.request_body == b'{"card": "****1111"}'
    assert seen.request.headers["content-length"] == str(len(seen.request_body))


def test_a_request_without_a_partner_is_rejected() -> None:
    refused = exchange(Partners, request("POST", "/partners"))
    assert refused.answer is not None
    assert refused.answer.status == 400


def test_the_client_learns_its_partner() -> None:
    seen = exchange(Partners, request("GET", "/partners", ACME), answered=response())
    assert seen.response is not None
    assert seen.response.headers["x-partner"] == "acme"


def test_reports_pass_as_they_are() -> None:
    seen = exchange(Reports, request(), answered=response(), response_body=[b"one", b"two"])
    assert seen.response_body == b"onetwo"
