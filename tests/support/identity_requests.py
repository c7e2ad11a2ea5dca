"""Send a case of the table and compare the answer."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import httpx

from tests.support.identity_cases import Case


def send(url: str, case: Case) -> httpx.Response:
    """The answer to a case. The path goes out as it is written, without a client's own normalization."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.putrequest(case.method, case.path)
        for name, value in case.headers():
            connection.putheader(name, value.encode())
        connection.endheaders()
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    finally:
        connection.close()


def expect(case: Case, answer: httpx.Response) -> None:
    """Status, reason, challenge, and what the upstream saw."""
    found = (answer.status_code, answer.headers.get("x-gateway-reason"))
    assert found == (case.status, case.reason), f"{found}: {answer.text}"
    if case.reason is not None:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["status"], problem["reason"]) == (case.status, case.reason)
    if case.status == 401:
        assert case.challenge is not None
        assert case.challenge in answer.headers["www-authenticate"]
    for name, value in case.upstream.items():
        assert answer.json()["headers"].get(name) == value, name
