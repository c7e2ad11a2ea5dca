"""The test kit: a whole exchange through a processor, by the same code as in the policy server."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest

from filters.ext_proc import Answer, Outcome, Processor, Request, Response, change, respond
from filters.ext_proc.testing import exchange, processor, request, response
from filters.processing.exchange import Failure


class Both(Processor):
    async def request_headers(self, request: Request) -> Outcome:
        self.asked = request.method
        return change({"x-set": "1"}, add={"x-many": "2"}, remove=["x-secret"])

    def request_body(self, request: Request, body: bytes) -> bytes:
        assert request.headers["x-set"] == "1", "the headers after the change"
        return body.upper()

    async def response_headers(self, request: Request, response: Response) -> Outcome:
        return change({"x-asked": self.asked}, status=response.status + 1)

    async def response_body(self, request: Request, response: Response, body: bytes) -> Outcome:
        await asyncio.sleep(0)
        return change({"x-size": str(len(body))}, body=body + b"!")


def test_a_whole_exchange() -> None:
    asked = request("POST", "/users?a=1&b", {"X-Secret": "s", "x-many": "1", "content-length": "3"})
    answered = response(200, {"etag": '"x"', "content-encoding": "gzip", "digest": "d"})
    seen = exchange(Both, asked, b"abc", answered, gzip.compress(b"answer"))
    assert (seen.request.path, seen.request.query) == ("/users", {"a": "1", "b": ""})
    assert "x-secret" not in seen.request.headers
    assert seen.request.headers.get_all("x-many") == ("1", "2")
    assert (seen.request_body, seen.request.headers["content-length"]) == (b"ABC", "3")
    assert seen.response is not None
    assert (seen.response.status, seen.response_body) == (201, b"answer!")
    assert dict(seen.response.headers) == {
        "x-asked": "POST",
        "x-size": "6",
        "content-length": "7",
        "etag": 'W/"x"',
    }


class Pieces(Processor):
    def request_chunk(self, request: Request, chunk: bytes, last: bool) -> bytes:
        return chunk.upper() + (b"." if last else b"")


def test_a_body_in_pieces() -> None:
    assert exchange(Pieces, request("POST"), [b"a", b"b", b"c"]).request_body == b"ABC."
    assert exchange(Pieces, request("POST"), b"a").request_body == b"A."
    assert exchange(Pieces, request("POST")).request_body == b""


class Answers(Processor):
    async def request_headers(self, request: Request) -> Outcome:
        return respond(403, {"no": 1}) if "no" in request.query else None

    async def response_body(self, request: Request, response: Response, body: bytes) -> Outcome:
        return respond(502)


def test_answers() -> None:
    refused = exchange(Answers, request("GET", "/?no"), answered=response())
    assert refused.answer is not None
    assert (refused.answer.status, refused.answer.body) == (403, b'{"no": 1}')
    assert refused.answer.headers == (("content-type", "application/json"),)
    assert refused.response is None
    assert exchange(Answers, request(), answered=response(), response_body=b"x").answer == Answer(status=502)


class Fails(Processor):
    def request_headers(self, request: Request) -> Any:
        if request.method == "GET":
            raise RuntimeError("no luck")
        return 7


def test_errors_are_the_processors_own() -> None:
    with pytest.raises(RuntimeError, match="no luck"):
        exchange(Fails, request())
    with pytest.raises(TypeError, match="returned int"):
        exchange(Fails, request("POST"))
    with pytest.raises(Failure, match="larger than 3 bytes"):
        exchange(Both, request("POST"), b"four", max_body=3)


def test_a_class_is_loaded_as_the_policy_server_loads_it(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/base.py").write_text(
        "from filters.ext_proc import Processor\n\n\nclass Base(Processor):\n    async def request_body(self, request, body):\n"
        "        return body[::-1]\n"
    )
    (tmp_path / "policies/own.py").write_text("from .base import Base\n\n\nclass Own(Base):\n    pass\n")
    own = processor("policies/own.py:Own", tmp_path)
    assert exchange(own, request("POST"), b"abc").request_body == b"cba"
