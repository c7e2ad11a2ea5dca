"""Which response of a document answers a request: the rules of Prism (https://docs.stoplight.io/docs/prism).

1. The operation is found by path and method. HEAD is GET without a body.
2. `Prefer: code=404` chooses the response; otherwise it is the lowest 2xx, else `default`, else the first.
3. Accept chooses the media type.
4. `Prefer: example=NAME` chooses the example; otherwise it is the first, else a value that fits the schema. With
   `Prefer: dynamic=true` the value is random.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from filters import framing
from filters.api_documents.example_values import of_parameter, of_schema
from filters.api_documents.matching_texts import Random
from filters.api_documents.reference import ABSENT, ApiReference, MediaType, Operation, Response
from filters.language.tokens import TOKEN
from filters.mock.preferences import Preferences, best_type

_NAME = re.compile(r"\{([^{}/]+)\}")
_BODYLESS = frozenset({204, 205, 304})
_RANGES = "*"


@dataclass(frozen=True, slots=True)
class Found:
    """A response. A `detail` makes it a problem of the mock itself."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    detail: str = ""


class Responder:
    """Answers from one document."""

    def __init__(self, reference: ApiReference) -> None:
        self._reference = reference
        paths: dict[str, dict[str, Operation]] = {}
        for one in reference.operations:
            paths.setdefault(one.path, {})[one.method.upper()] = one
        self._paths = sorted(
            ((_expression(reference.base_path + path), methods) for path, methods in paths.items()),
            key=lambda one: one[0].groups,
        )

    def answer(
        self, method: str, path: str, wanted: Preferences, accept: str | None, random: Random | None = None
    ) -> Found:
        """Return the response to a request. With `random`, values without an example are random."""
        if wanted.faulty:
            return _problem(400, f"The preference '{wanted.faulty[0]}' has no such value.")
        methods: dict[str, Operation] = {}
        for expression, some in self._paths:
            if expression.fullmatch(path):
                operation = some.get(method) or (some.get("GET") if method == "HEAD" else None)
                if operation is not None:
                    return self._respond(operation, wanted, accept, random)
                methods.update(some)
        if methods:
            allow = ", ".join(sorted(methods))
            return _problem(405, "The document has no operation with this method.", ("allow", allow))
        return _problem(404, "The document has no operation with this path.")

    def _respond(
        self, operation: Operation, wanted: Preferences, accept: str | None, random: Random | None
    ) -> Found:
        chosen = _chosen(operation, wanted.code)
        if chosen is None:
            what = "no response" if wanted.code is None else f"no response with the status {wanted.code}"
            return _problem(404, f"The operation has {what}.")
        status, response = chosen
        headers = list(self._headers(response, random))
        if 300 <= status <= 399 and status != 304 and "location" not in dict(headers):
            headers.append(("location", "/"))
        if wanted != Preferences():
            headers.append(("preference-applied", ", ".join(_applied(wanted))))
        kinds = [one.name for one in response.content]
        if not kinds or status in _BODYLESS:
            return Found(status, tuple(headers))
        kind = best_type(accept, kinds)
        if kind is None:
            return _problem(406, f"The response has only these types: {', '.join(kinds)}.")
        media = next(one for one in response.content if one.name == kind)
        value = self._value(media, wanted.example, random)
        if value is ABSENT and wanted.example is not None:
            return _problem(404, f"The response has no example '{wanted.example}'.")
        name = kind if _RANGES not in kind else "application/octet-stream"
        return Found(status, (*headers, ("content-type", _line(name))), _written(value, name))

    def _headers(self, response: Response, random: Random | None) -> Iterator[tuple[str, str]]:
        for one in response.headers:
            value = of_parameter(one, self._reference)
            if random is not None and not one.examples:
                value = of_schema(one.schema, self._reference, random=random)
            if value is not ABSENT and value is not None and _may_be_sent(one.name.lower()):
                yield one.name.lower(), _line(value)

    def _value(self, media: MediaType, example: str | None, random: Random | None) -> Any:
        if example is not None:
            return next((one.value for one in media.examples if one.name == example), ABSENT)
        if random is None:
            for one in media.examples:
                if one.value is not ABSENT:
                    return one.value
        return of_schema(media.schema, self._reference, random=random)


def _may_be_sent(name: str) -> bool:
    """True for a header that a response may have of its own: the others are those of messages and of Envoy."""
    return bool(re.fullmatch(TOKEN, name)) and name not in framing.HEADERS and not name.startswith("x-envoy-")


def _expression(template: str) -> re.Pattern[str]:
    parts = _NAME.split(template)
    return re.compile("".join("([^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts)))


def _chosen(operation: Operation, code: int | None) -> tuple[int, Response] | None:
    """Return the response with a status, or the one that stands for success, and its status."""
    by_status = {one.status.upper(): one for one in operation.responses if not one.status.startswith("1")}
    if code is not None:
        for status in (str(code), f"{code // 100}XX", "DEFAULT"):
            if status in by_status:
                return code, by_status[status]
        return None
    successes = sorted(status for status in by_status if status.startswith("2"))
    for status in (*successes, "DEFAULT", *by_status):
        if status in by_status:
            number = status.replace("XX", "00")
            return int(number) if number.isdecimal() else 200, by_status[status]
    return None


def _applied(wanted: Preferences) -> Iterator[str]:
    """Yield the preferences that were applied (RFC 7240 section 3)."""
    if wanted.code is not None:
        yield f"code={wanted.code}"
    if wanted.example is not None:
        yield f"example={json.dumps(_line(wanted.example))}"
    if wanted.dynamic is not None:
        yield f"dynamic={str(wanted.dynamic).lower()}"


def _line(value: Any) -> str:
    """Return a value as a header has it, in one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _written(value: Any, kind: str) -> bytes:
    if value is ABSENT:
        return b""
    name = kind.partition(";")[0].strip().lower()
    if isinstance(value, str) and not (name == "application/json" or name.endswith("+json")):
        return value.encode()
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _problem(status: int, detail: str, *headers: tuple[str, str]) -> Found:
    return Found(status, headers, detail=detail)
