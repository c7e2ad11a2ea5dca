"""Limits that a Check decides after a policy in Python or a key lookup, and the response for Envoy."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import cache, partial

from envoy.service.auth.v3 import external_auth_pb2

from filters.check import descriptor_entries, responses
from filters.check.api_keys import KeyOwner
from filters.check.lazy_request import Attributes
from filters.check.responses import PERMISSION_DENIED
from filters.ext_authz.decisions import Decision
from filters.policy import header
from filters.rate_limit import one_call
from filters.rate_limit.client_headers import LimitAnswer
from filters.rate_limit.engine.windows import SECOND
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.server import encoding
from filters.rate_limit.server.service import RateLimits
from filters.reasons import REASON_HEADER
from filters.unary import Undoable, mapped

log = logging.getLogger(__name__)

Answer = bytes | Undoable
"""A serialized CheckResponse. It is Undoable if it took a slot."""


def decide(
    counting: RateLimits | None, attributes: Attributes, decision: Decision, passed: bytes
) -> Answer | Awaitable[Answer]:
    """The response to a request that a policy allows with the response `passed`, after the decision of the limits."""
    route = one_call.decode(attributes.context_extensions[one_call.EXTENSION])
    counted = descriptor_entries.after_policy(route, attributes, decision)
    return _decide(counting, route, counted, partial(_answer, decision, passed))


def decide_for_key(
    counting: RateLimits | None, attributes: Attributes, owner: KeyOwner, header: str
) -> Answer | Awaitable[Answer]:
    """The owner of a key, and the decision of the limits. Keys that the script in Envoy rejects do not count.

    The response omits the expiry, so clock skew cannot let Envoy accept a key that has expired here.
    """
    if not owner.covered:
        return responses.key(owner)
    if counting is not None and 0 < owner.not_after < counting.clock() // SECOND:
        return responses.key(owner._replace(not_after=1))
    if sum(one.key == header for one in attributes.request.http.header_map.headers) != 1:
        return responses.key(owner)
    route = one_call.decode(attributes.context_extensions[one_call.EXTENSION])
    counted = descriptor_entries.for_key(route, attributes, owner)
    return _decide(counting, route, counted, partial(_answer_for_key, owner._replace(not_after=0)))


def _decide(
    counting: RateLimits | None,
    route: one_call.LimitsQuestion,
    entries: dict[str, str],
    answer: Callable[[str, LimitAnswer | None], bytes],
) -> Answer | Awaitable[Answer]:
    lease = secrets.token_hex(8) if route.lease else ""
    if lease:
        entries[descriptors.LEASE] = lease
    try:
        if counting is None:
            raise ValueError("this policy server has no limits")
        limits = counting.before(route.rules, route.styles, entries)
    except Exception as error:  # noqa: BLE001 - `on_error` of the limits decides after any error
        return answer(lease, _uncounted(route, error))
    if isinstance(limits, LimitAnswer):
        return answer(lease, limits)
    later = partial(answer, lease)
    return (
        mapped(limits, later)
        if isinstance(limits, Undoable)
        else _later(route, limits, later, counting.time_limit)
    )


async def _later(
    route: one_call.LimitsQuestion,
    limits: Awaitable[LimitAnswer | Undoable],
    answer: Callable[[LimitAnswer | None], bytes],
    time_limit: timedelta,
) -> Answer:
    try:
        async with asyncio.timeout(time_limit.total_seconds()):
            decided = await limits
    except Exception as error:  # noqa: BLE001 - as above
        return answer(_uncounted(route, error))
    result: Answer = mapped(decided, answer)
    return result


def _uncounted(route: one_call.LimitsQuestion, error: Exception) -> LimitAnswer | None:
    """The result for a request that could not be counted. None if such requests are rejected."""
    outcome = "is rejected" if route.strict else "passes"
    log.warning("request could not be counted; it %s error=%s", outcome, str(error) or type(error).__name__)
    return None if route.strict else LimitAnswer(True, [])


def _answer_for_key(owner: KeyOwner, lease: str, limits: LimitAnswer | None) -> bytes:
    """A response that allows, with metadata by which the script rejects. So the script writes the identity first."""
    passed = responses.key(owner)
    if limits is None:
        limits = LimitAnswer(False, [], one_call.UNAVAILABLE)
    # The script or Envoy's local reply sets these headers.
    headers = [one for one in limits.headers if one[0] not in ("content-type", REASON_HEADER)]
    more = external_auth_pb2.CheckResponse()
    if lease and limits.admitted:
        more.dynamic_metadata.fields[descriptors.CHECKED_LEASE].string_value = lease
    if not limits.admitted:
        refusal = {"reason": limits.reason, "body": limits.body.decode()}
        more.dynamic_metadata.update({one_call.EXTENSION: refusal})
    return passed + encoding.checked(headers) + more.SerializeToString()


def _answer(decision: Decision, passed: bytes, lease: str, limits: LimitAnswer | None) -> bytes:
    """The CheckResponse. Concatenated serialized messages are parsed as one message."""
    if limits is None:
        return _unavailable()
    headers = limits.headers
    if decision.response_headers:
        own = {name.lower() for name in decision.response_headers}
        headers = [one for one in headers if one[0] not in own]
    if not limits.admitted:
        return _rejected(limits, headers, decision)
    response = passed + encoding.checked(headers)
    if lease:
        more = external_auth_pb2.CheckResponse()
        more.dynamic_metadata.fields[descriptors.CHECKED_LEASE].string_value = lease
        response += more.SerializeToString()
    return response


def _rejected(limits: LimitAnswer, headers: Iterable[tuple[str, str]], decision: Decision) -> bytes:
    """A rejection by a limit, with the response headers and the metadata of the policy."""
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    denied = response.denied_response
    denied.status.code = 429  # type: ignore[assignment]
    denied.body = limits.body.decode()
    denied.headers.extend(header(*one) for one in headers)
    denied.headers.extend(header(name.lower(), value) for name, value in decision.response_headers.items())
    if decision.metadata:
        response.dynamic_metadata.update(decision.metadata)
    response.dynamic_metadata.fields[one_call.LIMITED].string_value = limits.reason
    return response.SerializeToString()


@cache
def _unavailable() -> bytes:
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.denied_response.status.code = 503  # type: ignore[assignment]
    response.dynamic_metadata.fields[one_call.UNCOUNTED].bool_value = True
    return response.SerializeToString()
