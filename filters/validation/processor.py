"""The processor of `validate`: it rejects messages that do not match their schema, or only reports them."""

from __future__ import annotations

import json
from collections.abc import Callable

from filters.processing.processor import OwnRule, Processor
from filters.processing.values import Answer, Outcome, Request, Response, change
from filters.rules import Refused
from filters.validation.documents import DocumentError
from filters.validation.faults import shown
from filters.validation.messages import BodySchema, Described, Head, Rejection, Validator
from filters.validation.names import phases
from filters.validation.openapi import OpenApi
from filters.validation.reasons import TITLES
from filters.validation.schemas import compiled
from protos import rules_pb2

Report = Callable[[str, str, Rejection], None]
"""Reports an invalid message: the name of the route, ``request`` or ``response``, and why."""


class Validation(Processor):
    """Compares messages. With the mode `shadow` an invalid one passes, and `report` gets it."""

    def __init__(self, validator: Validator, requests: str, responses: str, report: Report) -> None:
        self._validator = validator
        self._requests, self._responses = requests, responses
        self._report = report

    def request_headers(self, request: Request) -> Outcome:
        """Compare the parameters. A body without a schema passes as it comes."""
        head = _head(request)
        answer = self._found(request, "request", self._requests, self._validator.head(head))
        return answer or (None if self._validator.compares_body(head) else change(skip_body=True))

    def request_body(self, request: Request, body: bytes) -> Answer | None:
        """Compare the body."""
        return self._found(request, "request", self._requests, self._validator.body(_head(request), body))

    def response_headers(self, request: Request, response: Response) -> Outcome:
        """Compare the status and the headers, unless a body with a schema follows."""
        head = _head(request)
        compares = self._validator.compares_response_body(head, response.status, response.headers)
        if compares and response.has_body:
            return None
        return self._compare_response(request, response, None) or change(skip_body=True)

    def response_body(self, request: Request, response: Response, body: bytes) -> Answer | None:
        """Compare the status, the headers and the body."""
        return self._compare_response(request, response, body)

    def _compare_response(self, request: Request, response: Response, body: bytes | None) -> Answer | None:
        found = self._validator.response(_head(request), response.status, response.headers, body)
        return self._found(request, "response", self._responses, found)

    def _found(self, request: Request, side: str, mode: str, rejection: Rejection | None) -> Answer | None:
        if rejection is None:
            return None
        self._report(request.route, side, rejection)
        return None if mode == "shadow" else _answer(request, rejection)


def _head(request: Request) -> Head:
    return Head(request.method, request.path, request.query_string, request.headers, request.has_body)


def _answer(request: Request, rejection: Rejection) -> Answer:
    problem = {
        "type": "about:blank",
        "title": TITLES[rejection.reason],
        "status": rejection.status,
        "reason": rejection.reason,
        "request_id": request.id,
        "detail": rejection.detail,
    }
    if rejection.faults:
        problem["errors"] = shown(rejection.faults)
    headers = (*rejection.headers, ("content-type", "application/problem+json"))
    body = json.dumps(problem, ensure_ascii=False).encode("utf-8", "replace")
    return Answer(status=rejection.status, headers=headers, body=body, reason=rejection.reason)


def load(message: rules_pb2.Validation, report: Report) -> OwnRule:
    """The rule of a message. Raises Refused."""
    value = json.loads(message.content)
    try:
        validator = _validator(value)
    except DocumentError as error:
        raise Refused(str(error)) from None
    modes = value["requests"], value["responses"]
    return OwnRule(message.name, Validation(validator, *modes, report), phases(*modes))


def _validator(value: dict[str, object]) -> Validator:
    formats = bool(value["formats"])
    if "openapi" in value:
        base = value["base"]
        return Described(OpenApi(value["openapi"], base=None if base is None else str(base), formats=formats))
    request, response = (
        None if value[key] is None else compiled(value[key], formats=formats)
        for key in ("request", "response")
    )
    return BodySchema(request, response)
