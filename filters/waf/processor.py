"""The processor of `waf`: it has requests inspected, and rejects those that are found."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from filters.processing.processor import OwnRule, Processor
from filters.processing.values import Answer, Change, Outcome, Outcomes, Request
from filters.rules import Refused
from filters.waf.crs import NotInstalledError
from filters.waf.engines import EngineError, Engines, Profile
from filters.waf.frames import Inquiry, Verdict
from filters.waf.names import BLOCKED, TITLES, UNAVAILABLE, WafSource
from filters.waf.reporting import Reporter
from protos import rules_pb2

MOST_LOGGED = 20
"""Ids of rules in the access log."""


class Firewall(Processor):
    """Has the requests of a profile inspected: one without a body by its headers, another when its body has come."""

    def __init__(self, profile: Profile, engines: Engines, reporter: Reporter) -> None:
        self._profile, self._engines, self._reporter = profile, engines, reporter

    def request_headers(self, request: Request) -> Outcomes:
        """Inspect a request without a body, or whose body is not inspected."""
        waits = self._profile.source.body and request.has_body
        return None if waits else self._inspected(request, b"")

    def request_body(self, request: Request, body: bytes) -> Awaitable[Outcome]:
        """Inspect a request with its body."""
        return self._inspected(request, body)

    async def _inspected(self, request: Request, body: bytes) -> Outcome:
        source = self._profile.source
        try:
            verdict = await self._engines.inspect(self._profile, inquiry(self._profile.name, request, body))
        except EngineError as error:
            self._reporter.unavailable(request.route, str(error))
            return None if source.lenient else _answer(request, 503, UNAVAILABLE)
        outcome = "passed" if not verdict.found else "blocked" if source.blocks else "detected"
        self._reporter.inspected(request.route, outcome, verdict.matches)
        note = _note(verdict, outcome) if verdict.matches else ()
        if outcome == "blocked":
            return _answer(request, 403, BLOCKED, verdict, note)
        return Change(note=note) if note else None


def inquiry(profile: str, request: Request, body: bytes) -> Inquiry:
    """What the engine needs of a request."""
    query = f"?{request.query_string}" if request.query_string else ""
    return Inquiry(
        profile=profile,
        client=request.client_address or "0.0.0.0",
        method=request.method,
        target=request.path + query,
        version=_version(request),
        headers=[("host", request.host), *_headers(request)],
        body=body,
    )


def _headers(request: Request) -> Iterator[tuple[str, str]]:
    for name in request.headers:
        for value in request.headers.get_all(name):
            yield name, value


def _version(request: Request) -> str:
    """HTTP/2 and 3 need no header for the length of a body, which the rules demand of HTTP/1."""
    headers = request.headers
    framed = "content-length" in headers or "transfer-encoding" in headers
    return "1.1" if framed or not request.has_body else "2"


def _note(verdict: Verdict, outcome: str) -> tuple[tuple[str, str], ...]:
    """What the access log tells."""
    rules = ",".join(str(one.rule) for one in verdict.matches[:MOST_LOGGED])
    return (("rules", rules), ("score", str(verdict.score)), ("outcome", outcome))


def _answer(
    request: Request,
    status: int,
    reason: str,
    verdict: Verdict | None = None,
    note: tuple[tuple[str, str], ...] = (),
) -> Answer:
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES[reason],
        "status": status,
        "reason": reason,
        "request_id": request.id,
    }
    if verdict is not None and verdict.matches:
        first = verdict.matches[0]
        problem["detail"] = f"Rule {first.rule}: {first.message}."
        problem["rules"] = [one.rule for one in verdict.matches[:MOST_LOGGED]]
    body = json.dumps(problem, ensure_ascii=False).encode("utf-8", "replace")
    headers = (("content-type", "application/problem+json"),)
    return Answer(status=status, headers=headers, body=body, reason=reason, note=note)


def load(message: rules_pb2.Waf, engines: Callable[[], Engines], reporter: Reporter) -> OwnRule:
    """The rule of a message. `engines` makes the processes when they are first needed. Raises Refused."""
    source = msgspec.json.decode(message.content, type=WafSource)
    try:
        found = engines()
    except NotInstalledError as error:
        raise Refused(str(error)) from None
    processor = Firewall(found.profile(message.name, source), found, reporter)
    return OwnRule(message.name, processor, source.phases, immediate=False)
