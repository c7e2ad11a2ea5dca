"""The headers of a decision for the client, and the body of a rejection, from the decision's own figures."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from filters.rate_limit.engine.algorithms import Limit, TokenBucket, Unit
from filters.rate_limit.engine.decision import Figure, LimitDecision
from filters.rate_limit.engine.windows import SECOND
from filters.reasons import REASON_HEADER

X_RATELIMIT = "x-ratelimit"
IETF = "ietf"
STYLES = (X_RATELIMIT, IETF)
TITLES = {
    "rate_limited": "Too many requests",
    "quota_exceeded": "The quota is used up",
    "concurrency_exceeded": "Too many concurrent requests",
}
HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy")
"""All headers that this module may set. Headers of these names from an upstream describe other limits."""
REASONS: dict[Unit, str] = {
    "requests": "rate_limited",
    "content-bytes": "quota_exceeded",
    "concurrent-requests": "concurrency_exceeded",
}
TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""draft-ietf-httpapi-ratelimit-headers-11 section 6.1."""


class LimitAnswer(NamedTuple):
    """The response to the client, for both kinds of call. `reason` and `body` are empty if the request passes."""

    admitted: bool
    headers: list[tuple[str, str]]
    reason: str = ""
    body: bytes = b""


def limit_answer(decision: LimitDecision, styles: Collection[str], request_id: str) -> LimitAnswer:
    """The complete response to the client for a decision."""
    pairs = headers(decision, styles)
    if decision.admitted:
        return LimitAnswer(True, pairs)
    name = reason(decision)
    pairs += [("content-type", "application/problem+json"), (REASON_HEADER, name)]
    return LimitAnswer(False, pairs, name, problem(decision, TITLES[name], request_id))


def seconds(microseconds: int) -> int:
    """Whole seconds, rounded up, so that a client that waits them has waited long enough."""
    return -(-microseconds // SECOND)


def headers(decision: LimitDecision, styles: Collection[str] = STYLES) -> list[tuple[str, str]]:
    """The headers of a response, whether the request passed or not. They do not contain limits in shadow."""
    if not styles and decision.admitted:
        return []
    pairs = _x_ratelimit(decision) if X_RATELIMIT in styles else []
    if IETF in styles:
        now, figures = decision.now, [figure for figure in decision.figures if not figure.limit.shadow]
        if figures:
            pairs.append(("ratelimit-policy", ", ".join([policy(figure.limit) for figure in figures])))
            pairs.append(("ratelimit", ", ".join([_state(figure, now) for figure in figures])))
    if not decision.admitted:
        pairs.append(("retry-after", str(retry_after(decision))))
    return pairs


def _x_ratelimit(decision: LimitDecision) -> list[tuple[str, str]]:
    """The headers of the strictest limit: on a rejection of those that reject, else of the limits of requests."""
    if decision.admitted and len(decision.figures) > 1:
        shown = [figure for figure in decision.figures if figure.limit.unit == "requests"] or decision.figures
        decision = decision._replace(figures=tuple(shown))
    strictest = decision.strictest()
    if strictest is None:
        return []
    return [
        ("x-ratelimit-limit", str(capacity(strictest.limit))),
        ("x-ratelimit-remaining", str(strictest.remaining)),
        ("x-ratelimit-reset", str(seconds(strictest.reset))),
    ]


def capacity(limit: Limit) -> int:
    """The amount that is available if nothing is used."""
    return limit.burst if isinstance(limit, TokenBucket) else limit.amount


def retry_after(decision: LimitDecision) -> int:
    """Seconds after which no limit rejects the request any more, at least 1 (RFC 9110 section 10.2.3)."""
    return max([1, *(seconds(one.wait) for one in decision.violated)])


@lru_cache(maxsize=4096)
def policy(limit: Limit) -> str:
    """An item of RateLimit-Policy (draft 11 section 3)."""
    unit = "" if limit.unit == "requests" else f';qu="{limit.unit}"'
    window = "" if limit.unit == "concurrent-requests" else f";w={limit.length // SECOND}"
    return f"{string(limit.name)};q={capacity(limit)}{unit}{window}"


def _state(figure: Figure, now: int) -> str:
    """An item of RateLimit (draft 11 section 4)."""
    reset = "" if figure.limit.unit == "concurrent-requests" else f";t={seconds(figure.reset - now)}"
    return f"{string(figure.limit.name)};r={figure.remaining}{reset}"


@lru_cache(maxsize=4096)
def string(text: str) -> str:
    """A string of structured fields (RFC 9651 section 3.3.3). It contains only printable ASCII."""
    plain = "".join(one if " " <= one <= "~" else "?" for one in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def reason(decision: LimitDecision) -> str:
    """The named reason of a rejection: that of the strictest limit."""
    strictest = decision.strictest()
    return REASONS[strictest.limit.unit if strictest is not None else "requests"]


def problem(decision: LimitDecision, title: str, request_id: str = "") -> bytes:
    """The body of a rejection (RFC 9457, with draft 11's `violated-policies`)."""
    body = {
        "type": TYPE,
        "title": title,
        "status": 429,
        "reason": reason(decision),
        "violated-policies": _names(decision.violated),
    }
    if request_id:
        body["request_id"] = request_id
    return json.dumps(body, separators=(",", ":")).encode()


def _names(figures: Iterable[Figure]) -> list[str]:
    return [figure.limit.name for figure in figures]
