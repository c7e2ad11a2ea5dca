"""The processor of mocks: it answers requests instead of the upstream."""

from __future__ import annotations

import json
from random import Random

from filters.api_documents import openapi
from filters.api_documents.faults import DocumentFaults
from filters.mock.names import PHASES
from filters.mock.preferences import preferences
from filters.mock.responder import Found, Responder
from filters.processing.processor import OwnRule, Processor
from filters.processing.values import Answer, Outcome, Request, change
from filters.reasons import MOCK_RESPONDED, MOCK_UNANSWERED
from filters.rules import Refused
from protos import rules_pb2

TITLE = "The mock has no response for this request"


class Mocking(Processor):
    """Answers the requests of callers on some plans, or of all."""

    def __init__(self, responder: Responder, plans: frozenset[str], *, dynamic: bool) -> None:
        self._responder, self._plans, self._dynamic = responder, plans, dynamic

    def request_headers(self, request: Request) -> Outcome:
        """Answer a request without a body. A request with one is answered behind it."""
        if self._plans and request.plan not in self._plans:
            return change(skip_body=True)
        return None if request.has_body else self._answer(request)

    def request_body(self, request: Request, body: bytes) -> Answer:
        """Answer."""
        return self._answer(request)

    def _answer(self, request: Request) -> Answer:
        wanted = preferences(request.headers.get("prefer", ""))
        dynamic = self._dynamic if wanted.dynamic is None else wanted.dynamic
        random = Random(request.id) if dynamic else None  # noqa: S311 - no secret comes from it
        accept = request.headers.get("accept")
        found = self._responder.answer(request.method, request.path, wanted, accept, random)
        if found.detail:
            return _problem(request, found)
        return Answer(status=found.status, headers=found.headers, body=found.body, reason=MOCK_RESPONDED)


def _problem(request: Request, found: Found) -> Answer:
    problem = {
        "type": "about:blank",
        "title": TITLE,
        "status": found.status,
        "reason": MOCK_UNANSWERED,
        "request_id": request.id,
        "detail": found.detail,
    }
    headers = (*found.headers, ("content-type", "application/problem+json"))
    body = json.dumps(problem, ensure_ascii=False).encode("utf-8", "replace")
    return Answer(status=found.status, headers=headers, body=body, reason=MOCK_UNANSWERED)


def load(message: rules_pb2.Mock) -> OwnRule:
    """The rule of a message. Raises Refused."""
    base_path = message.base_path if message.HasField("base_path") else None
    try:
        reference = openapi.read(message.document, base_path)
    except DocumentFaults as faults:
        raise Refused(str(faults)) from None
    processor = Mocking(Responder(reference), frozenset(message.plans), dynamic=message.dynamic)
    return OwnRule(message.name, processor, PHASES)
