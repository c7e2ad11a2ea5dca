"""envoy.service.auth.v3.Authorization, the service behind Envoy's ext_authz filters.

It decides on requests by policies in Python, looks up API keys and passwords, and reports usage.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

from envoy.service.auth.v3 import external_auth_pb2
from prometheus_client import CollectorRegistry, Counter, Histogram

from filters.check import grpc_calls, limit_decisions, responses
from filters.check.api_keys import KeyIndex, NotComplete
from filters.check.lazy_request import Attributes, identity, request
from filters.check.lingering import Lingering
from filters.check.passwords import Missing, Passwords
from filters.ext_authz.decisions import Decision, Request, deny
from filters.ext_authz.functions import Failed, Function, load
from filters.ext_authz.names import POLICY
from filters.grpc_transcoding.messages import Methods, NotAMessage
from filters.grpc_transcoding.names import EXTENSION as METHODS_EXTENSION
from filters.grpc_transcoding.names import METHODS
from filters.identity import key_lookup, password_lookup
from filters.policy_server import USAGE
from filters.rate_limit import one_call
from filters.rate_limit.server.service import RateLimits
from filters.rules import Service, Table
from filters.unary import Busy, RpcError, UnaryMethod
from protos import rules_pb2

log = logging.getLogger(__name__)

NAME = "envoy.service.auth.v3.Authorization"
DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 4, 8, 14
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""
STEP = 0.005
"""Seconds between two lookups of a policy that has not arrived yet."""
MOST_LABELS = 4096
"""Label sets of metrics that are cached."""
_JSON = {"content-type": "application/json", "cache-control": "no-store"}
DEFAULT_LIMIT = 1.0
"""Seconds, for an Envoy that does not send its timeout."""


Usage = Callable[[str, str, str], Awaitable[Mapping[str, Any]]]
"""Reports limits. Its arguments are the consumer, the plan, and the context extension of the route."""


class Authorization:
    """The service. `clock` gives seconds for the metrics. `usage` reports their limits to consumers.

    `counting` decides limits if a Check asks for them too. With `subscribers`, keys of a marketplace are looked up too.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.perf_counter,
        usage: Usage | None = None,
        counting: RateLimits | None = None,
        *,
        subscribers: bool = False,
    ) -> None:
        self._usage = usage
        self._counting = counting
        self._leaving: Lingering[Function] = Lingering(clock)
        self.functions: Table[Function] = Table(POLICY, _function, self._leaving.note)
        self._leaving_methods: Lingering[Methods] = Lingering(clock)
        self.methods: Table[Methods] = Table(METHODS, grpc_calls.load, self._leaving_methods.note)
        self.keys = KeyIndex(follows=subscribers)
        self.passwords = Passwords()
        self._clock = clock
        decisions = Counter(
            "xds_policy_decisions",
            "Decisions of the service behind Envoy's ext_authz filters. outcome of a policy in Python: allowed, "
            "denied, failed (it raised), timeout, busy or missing; of api_key: found, unknown or missing; of basic_auth: "
            "found, wrong, busy or missing; of usage: told, denied or failed.",
            ["policy", "outcome"],
            registry=registry,
        )
        seconds = Histogram(
            "xds_policy_seconds",
            "Seconds that a policy in Python took.",
            ["policy"],
            registry=registry,
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        )

        self._decisions = lru_cache(MOST_LABELS)(decisions.labels)
        self._seconds = lru_cache(MOST_LABELS)(seconds.labels)

    def service(self) -> Service:
        """The gRPC service that a server mounts."""
        check = UnaryMethod(
            path=f"/{NAME}/Check",
            parse=external_auth_pb2.CheckRequest.FromString,
            call=self.check,
            serialize=external_auth_pb2.CheckResponse.SerializeToString,
        )
        return Service(
            name=NAME,
            methods=(check,),
            tables=(self.functions, self.methods, self.keys.table, self.passwords.table),
            subscribers=(self.keys.subscribers,) if self.keys.follows else (),
            close=self._close,
        )

    def check(
        self, message: external_auth_pb2.CheckRequest
    ) -> limit_decisions.Answer | Awaitable[limit_decisions.Answer]:
        """Decide on one request, without an await if possible. Returns a serialized CheckResponse."""
        attributes = message.attributes
        extensions = attributes.context_extensions
        name = extensions.get("policy", "")
        if name:
            return self._decide(name, attributes)
        if key_lookup.EXTENSION in extensions:
            return self._look_up_key(attributes)
        if password_lookup.EXTENSION in extensions:
            return self._verify_password(attributes)
        if USAGE in extensions:
            return self._report_usage(attributes)
        return self._missing(name)

    def _missing(self, name: str) -> bytes:
        log.error("policy does not exist; the request is rejected policy=%s", name)
        self._count(name, "missing")
        return responses.failure()

    async def _report_usage(self, attributes: Attributes) -> bytes:
        """A denial whose body is the report. A caller that is not a consumer gets 403."""
        consumer = identity(attributes, "consumer")
        if self._usage is None or not consumer:
            self._count(USAGE, "denied")
            return responses.decided(Decision(allowed=False, status=403))
        try:
            extension = attributes.context_extensions[USAGE]
            report = await self._usage(consumer, identity(attributes, "plan") or "", extension)
        except (KeyError, TimeoutError) as error:
            log.warning("usage could not be reported; the request is rejected error=%s", error)
            self._count(USAGE, "failed")
            return responses.failure()
        self._count(USAGE, "told")
        body = json.dumps(report).encode()
        return responses.decided(Decision(allowed=False, status=200, headers=_JSON, body=body))

    def _decide(
        self, name: str, attributes: Attributes
    ) -> limit_decisions.Answer | Awaitable[limit_decisions.Answer]:
        """Call a policy. A coroutine that never waits is run at once, without a task."""
        function = self.functions.current.get(name) or self._leaving.get(name)
        if function is None or not function.immediate:
            return self._wait_for(name, function, attributes)
        began = self._clock()
        try:
            decision = function.at_once(self._request(attributes))
            response = self._decided(name, decision)
        except Failed as failed:
            return self._failed(name, failed, attributes)
        finally:
            self._seconds(name).observe(self._clock() - began)
        return self._limited(attributes, decision, response)

    async def _wait_for(
        self, name: str, function: Function | None, attributes: Attributes
    ) -> limit_decisions.Answer:
        """Call a policy. If it takes too long or is busy, the gRPC status is not OK, so Envoy applies `on_error`."""
        limit = _limit(attributes.context_extensions.get("timeout", ""))
        function = function or await self._arrival(name, limit)
        if function is None:
            return self._missing(name)
        began = self._clock()
        try:
            decision = await function.decide(self._request(attributes), limit)
            response = self._decided(name, decision)
        except TimeoutError:
            self._count(name, "timeout")
            raise RpcError(DEADLINE_EXCEEDED, f"{name} took too long") from None
        except Busy as busy:
            self._count(name, "busy")
            raise RpcError(RESOURCE_EXHAUSTED, str(busy)) from None
        except Failed as failed:
            return self._failed(name, failed, attributes)
        finally:
            self._seconds(name).observe(self._clock() - began)
        answer = self._limited(attributes, decision, response)
        return await answer if isinstance(answer, Awaitable) else answer

    def _request(self, attributes: Attributes) -> Request:
        name = attributes.context_extensions.get(METHODS_EXTENSION, "")
        methods = (self.methods.current.get(name) or self._leaving_methods.get(name)) if name else None
        return request(attributes, methods)

    def _limited(
        self, attributes: Attributes, decision: Decision, response: bytes
    ) -> limit_decisions.Answer | Awaitable[limit_decisions.Answer]:
        """`response`, unless a limit rejects a request that the policy allows."""
        if decision.allowed is not True or one_call.EXTENSION not in attributes.context_extensions:
            return response
        return limit_decisions.decide(self._counting, attributes, decision, response)

    def _decided(self, name: str, decision: Decision) -> bytes:
        """The response for a decision. Raises Failed."""
        response = responses.decided(decision)
        self._count(name, "allowed" if decision.allowed else "denied")
        return response

    def _failed(self, name: str, failed: Failed, attributes: Attributes) -> bytes:
        if isinstance(failed.__cause__, NotAMessage):  # the client's failure, and not the policy's
            self._count(name, "denied")
            return responses.decided(_not_a_message(failed.__cause__, attributes))
        log.error("policy failed; the request is rejected policy=%s", name, exc_info=failed)
        self._count(name, "failed")
        return responses.failure(str(failed))

    def _look_up_key(
        self, attributes: Attributes
    ) -> limit_decisions.Answer | Awaitable[limit_decisions.Answer]:
        extensions = attributes.context_extensions
        rule = _rule(extensions[key_lookup.EXTENSION])
        try:
            owner = self.keys.find(rule, attributes.request.http.header_map.headers)
        except NotComplete:
            self._count("api_key", "missing")
            raise RpcError(UNAVAILABLE, "the subscriptions of the marketplace are not here yet") from None
        self._count("api_key", "unknown" if owner is None else "found")
        if owner is None or one_call.EXTENSION not in extensions:
            return responses.key(owner)
        return limit_decisions.decide_for_key(self._counting, attributes, owner, rule["headers"][0])

    async def _verify_password(self, attributes: Attributes) -> bytes:
        """The user of a password. Raises RpcError if it cannot be verified, so that Envoy writes no metadata."""
        list_name = attributes.context_extensions[password_lookup.EXTENSION]
        try:
            user = await self.passwords.user(list_name, attributes.request.http.header_map.headers)
        except Missing:
            self._count("basic_auth", "missing")
            raise RpcError(UNAVAILABLE, f"the users of {list_name} are not here yet") from None
        except Busy as busy:
            self._count("basic_auth", "busy")
            raise RpcError(RESOURCE_EXHAUSTED, str(busy)) from None
        self._count("basic_auth", "wrong" if user is None else "found")
        return responses.password(user)

    async def _arrival(self, name: str, limit: float) -> Function | None:
        """Wait for a new policy: the route and its policy arrive over two streams, and the route may be first."""
        for _ in range(int(limit / STEP) if name else 0):
            await asyncio.sleep(STEP)
            if name in self.functions.current:
                return self.functions.current[name]
        return None

    def _count(self, policy: str, outcome: str) -> None:
        self._decisions(policy, outcome).inc()

    def _close(self) -> None:
        self.passwords.close()


def _not_a_message(why: NotAMessage, attributes: Attributes) -> Decision:
    problem = {
        "type": "about:blank",
        "title": "The request does not fit the message of the method",
        "status": 400,
        "reason": "invalid_message",
        "request_id": attributes.request.http.headers.get("x-request-id", ""),
        "detail": str(why),
    }
    return deny(400, body=problem, headers={"content-type": "application/problem+json"})


def _function(message: rules_pb2.PythonPolicy) -> Function:
    modules = {module.file: module.source for module in message.modules}
    return load(message.file, message.function, message.source, modules)


@lru_cache(maxsize=1024)
def _rule(text: str) -> Mapping[str, Any]:
    rule: Mapping[str, Any] = json.loads(text)
    return rule


def _limit(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return DEFAULT_LIMIT
