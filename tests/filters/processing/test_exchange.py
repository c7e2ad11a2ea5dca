"""Several processors on one route: their order, what each sees, and what goes out."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from filters.model.headers import Headers
from filters.processing.exchange import Changes, Exchange, Failure, Late
from filters.processing.phases import Body
from filters.processing.plan import Plan, Step
from filters.processing.processor import OwnRule, Processor
from filters.processing.values import Answer, Outcome, Request, Response, change, respond


class Adds(Processor):
    """Adds its name to headers and bodies."""

    def __init__(self, name: str) -> None:
        self.name = name

    def request_headers(self, request: Request) -> Outcome:
        return change(
            {"x-last": self.name, "x-before": request.headers.get("x-last", "")}, add={"x-all": self.name}
        )

    def request_body(self, request: Request, body: bytes) -> Outcome:
        return body + self.name.encode()

    def response_body(self, request: Request, response: Response, body: bytes) -> Outcome:
        return change({f"x-{self.name}": request.headers["x-last"]}, body=body + self.name.encode())


class Skips(Processor):
    def request_headers(self, request: Request) -> Outcome:
        return change(skip_body=True)

    def request_body(self, request: Request, body: bytes) -> Outcome:
        return b"never"


class Pieces(Processor):
    def request_chunk(self, request: Request, chunk: bytes, last: bool) -> Outcome:
        return chunk.upper() + (b"." if last else b"")


class Refuses(Processor):
    def request_headers(self, request: Request) -> Outcome:
        return respond(403)


SEEN: list[tuple[str, str, str]] = []


async def _unbounded(work: Awaitable[Any], _seconds: float) -> Any:
    return await work


def _exchange(*processors: Processor, max_body: int = 1000, lenient: bool = False) -> Exchange:
    rules = [OwnRule(f"rule {number}", one) for number, one in enumerate(processors)]
    SEEN.clear()
    plan = Plan(tuple(Step(rule, 1.0, max_body, lenient) for rule in rules))
    return Exchange(plan, _unbounded, lambda *one: SEEN.append(one))


def _changes(result: Changes | Answer) -> Changes:
    assert isinstance(result, Changes)
    return result


async def test_requests_go_through_the_chain_and_responses_back() -> None:
    exchange = _exchange(Adds("a"), Adds("b"))
    changes = _changes(await exchange.headers("request", Request(), ends=False))
    assert changes.values == {
        "x-last": [("b", False)],
        "x-before": [("a", False)],
        "x-all": [("a", True), ("b", True)],
    }
    assert changes.applied(Headers({"x-last": "client", "x-all": "client"})).get_all("x-all") == (
        "client",
        "a",
        "b",
    )
    assert changes.next is Body.UNSIZED
    assert _changes(await exchange.body("request", b"-")).body == b"-ab"
    await exchange.headers("response", Response(), ends=False)
    changes = _changes(await exchange.body("response", b"-"))
    assert changes.body == b"-ba"
    assert changes.values["x-a"] == [("b", False)]
    assert [(name, phase) for name, phase, _ in SEEN if "body" in phase] == [
        ("rule 0", "request_body"),
        ("rule 1", "request_body"),
        ("rule 1", "response_body"),
        ("rule 0", "response_body"),
    ]


async def test_the_first_answer_ends_the_chain() -> None:
    result = await _exchange(Refuses(), Adds("b")).headers("request", Request(), ends=False)
    assert isinstance(result, Answer)
    assert [one[0] for one in SEEN] == ["rule 0"]


async def test_a_body_is_left_out_only_if_no_processor_wants_it() -> None:
    exchange = _exchange(Skips(), Adds("b"))
    assert _changes(await exchange.headers("request", Request(), ends=False)).next is Body.UNSIZED
    assert _changes(await exchange.body("request", b"-")).body == b"-b"
    exchange = _exchange(Skips())
    assert _changes(await exchange.headers("request", Request(), ends=False)).next is Body.UNSEEN
    assert _changes(await exchange.headers("request", Request(), ends=True)).next is None


async def test_a_body_that_one_processor_wants_as_a_whole_is_one_piece() -> None:
    exchange = _exchange(Pieces(), Adds("b"))
    assert _changes(await exchange.headers("request", Request(), ends=False)).next is Body.UNSIZED
    assert _changes(await exchange.body("request", b"x")).body == b"X.b"


async def test_pieces_of_a_body() -> None:
    exchange = _exchange(Pieces())
    assert _changes(await exchange.headers("request", Request(), ends=False)).next is None
    assert _changes(await exchange.chunk("request", b"x", last=False)).body == b"X"
    assert _changes(await exchange.chunk("request", b"X", last=False)).body is None, "unchanged"
    assert _changes(await exchange.chunk("request", b"x", last=True)).body == b"X."
    with pytest.raises(Failure, match="request_chunk"):
        await exchange.chunk("request", b"", last=True, trailers=True)


@pytest.mark.parametrize(("length", "known"), [("", Body.UNSIZED), ("1000", Body.SIZED), ("abc", Body.SIZED)])
async def test_the_length_of_a_body_may_be_known(length: str, known: Body) -> None:
    headers = Headers({"content-length": length} if length else {})
    changes = _changes(await _exchange(Adds("a")).headers("request", Request(headers=headers), ends=False))
    assert changes.next is known


@pytest.mark.parametrize("length", ["1001", "9" * 40])
async def test_a_length_beyond_the_bound_is_rejected_before_the_body_arrives(length: str) -> None:
    asked = Request(headers=Headers({"content-length": length}))
    with pytest.raises(Failure) as failed:
        await _exchange(Adds("a")).headers("request", asked, ends=False)
    assert (failed.value.reason, failed.value.status) == ("body_too_large", 413)


@pytest.mark.parametrize(
    ("side", "kind", "status"),
    [("request", "application/grpc+proto", 415), ("response", "Text/Event-Stream; charset=utf-8", 500)],
)
async def test_streams_are_not_processed_as_a_whole(side: Any, kind: str, status: int) -> None:
    exchange, headers = _exchange(Adds("a")), Headers({"content-type": kind})
    if side == "response":
        await exchange.headers("request", Request(), ends=True)
    message = Request(headers=headers) if side == "request" else Response(headers=headers)
    with pytest.raises(Failure) as failed:
        await exchange.headers(side, message, ends=False)
    assert (failed.value.reason, failed.value.status) == ("processor_stream", status)


class Slow(Processor):
    async def request_headers(self, request: Request) -> Outcome:
        raise Late


async def test_a_lenient_route_goes_on_without_a_processor_that_is_late() -> None:
    changes = _changes(
        await _exchange(Slow(), Adds("b"), lenient=True).headers("request", Request(), ends=True)
    )
    assert changes.values["x-last"] == [("b", False)]
    assert SEEN[0] == ("rule 0", "request_headers", "timeout")
    with pytest.raises(Failure) as failed:
        await _exchange(Slow()).headers("request", Request(), ends=True)
    assert failed.value.reason == "processor_timeout"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: change({"content-length": "1"}),
        lambda: change({"Transfer-Encoding": "chunked"}),
        lambda: change({":path": "/"}),
        lambda: change({"x-envoy-retry-on": "5xx"}),
        lambda: change({"x": "a\nb"}),
        lambda: change({"x": 1}),  # type: ignore[dict-item]
        lambda: change(remove=["host"]),
        lambda: change(status=99),
        lambda: change(body=7),  # type: ignore[arg-type]
        lambda: respond(100),
        lambda: respond(302),
        lambda: respond(200, headers={"content-length": "3"}),
    ],
)
def test_changes_that_no_processor_may_make(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        wrong()
