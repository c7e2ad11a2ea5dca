"""envoy.service.auth.v3.Authorization: requests of any Envoy, decided by the gateway's policies in Python."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import re2
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2
from google.protobuf import struct_pb2
from prometheus_client import CollectorRegistry, Counter, Histogram

from filters import consumers, passwords
from filters.ext_authz.decisions import Decision, Headers, Peer, Request
from filters.ext_authz.functions import Busy, Failed, Function, load
from filters.ext_authz.names import FAILED, POLICY, PROBLEM, USAGE
from filters.identity import NAMESPACE
from filters.policy import header
from filters.rules import Service, Table
from filters.unary import RpcError, UnaryMethod
from protos import rules_pb2

log = logging.getLogger(__name__)

NAME = "envoy.service.auth.v3.Authorization"
OK, PERMISSION_DENIED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 0, 7, 4, 8, 14
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""
STEP = 0.005
"""Seconds between two looks for a policy that is not here yet."""
MOST_LABELS = 4096
"""Metrics that are found without a search."""
_JSON = {"content-type": "application/json", "cache-control": "no-store"}
DEFAULT_LIMIT = 1.0
"""Seconds, for an Envoy that does not say how long it waits."""


Usage = Callable[[str, str, str], Awaitable[Mapping[str, Any]]]
"""The limits of a consumer with a plan, where a route says which apply."""


class Authorization:
    """The service. `clock` gives seconds for the metrics; `usage` answers consumers that read their limits."""

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.perf_counter,
        usage: Usage | None = None,
    ) -> None:
        self._usage = usage
        self.functions: Table[Function] = Table(POLICY, _function)
        self.keys = consumers.Keys()
        self.passwords = passwords.Passwords()
        self._clock = clock
        decisions = Counter(
            "xds_policy_decisions",
            "Decisions by policy and outcome",
            ["policy", "outcome"],
            registry=registry,
        )
        seconds = Histogram(
            "xds_policy_seconds",
            "How long policies took",
            ["policy"],
            registry=registry,
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        )

        self._decisions = lru_cache(MOST_LABELS)(decisions.labels)
        self._seconds = lru_cache(MOST_LABELS)(seconds.labels)

    def service(self) -> Service:
        """What a server mounts."""
        check = UnaryMethod(
            path=f"/{NAME}/Check",
            parse=external_auth_pb2.CheckRequest.FromString,
            call=self.check,
            serialize=external_auth_pb2.CheckResponse.SerializeToString,
        )
        return Service(
            name=NAME,
            methods=(check,),
            tables=(self.functions, self.keys.table, self.passwords.table),
            close=self._close,
        )

    def check(
        self, asked: external_auth_pb2.CheckRequest
    ) -> external_auth_pb2.CheckResponse | Awaitable[external_auth_pb2.CheckResponse]:
        """Decide one request, at once where nobody has to be waited for."""
        if consumers.EXTENSION in asked.attributes.context_extensions:
            return self._whose_key(asked.attributes)
        if passwords.EXTENSION in asked.attributes.context_extensions:
            return self._whose_password(asked.attributes)
        if USAGE in asked.attributes.context_extensions:
            return self._tell_usage(asked.attributes)
        return self._decide(asked)

    async def _tell_usage(
        self, asked: attribute_context_pb2.AttributeContext
    ) -> external_auth_pb2.CheckResponse:
        """The answer to the request itself; a refusal for whoever is no consumer."""
        identity = asked.metadata_context.filter_metadata.get(NAMESPACE)
        who = _mapping(identity) if identity is not None else {}
        if self._usage is None or not who.get("consumer"):
            self._count(USAGE, "denied")
            return _denied(Decision(allowed=False, status=403))
        try:
            said = asked.context_extensions[USAGE]
            found = await self._usage(who["consumer"], who.get("plan") or "", said)
        except (KeyError, TimeoutError) as error:
            log.warning("no usage can be told: %s", error)
            return _failure(self._count(USAGE, "failed"))
        self._count(USAGE, "told")
        body = json.dumps(found).encode()
        return _denied(Decision(allowed=False, status=200, headers=_JSON, body=body))

    async def _decide(self, asked: external_auth_pb2.CheckRequest) -> external_auth_pb2.CheckResponse:
        """Ask a policy. A status other than OK is what Envoy's `on_error` is for: no time, no room."""
        said = asked.attributes.context_extensions
        name, limit = said.get("policy", ""), _limit(said.get("timeout", ""))
        function = self.functions.current.get(name) or await self._arrival(name, limit)
        if function is None:
            log.error("there is no policy %r; the request is refused", name)
            return _failure(self._count(name, "missing"))
        began = self._clock()
        try:
            decision = await function.decide(_request(asked.attributes), limit)
            response = _allowed(decision) if decision.allowed is True else _denied(decision)
        except TimeoutError:
            self._count(name, "timeout")
            raise RpcError(DEADLINE_EXCEEDED, f"{name} took too long") from None
        except Busy as busy:
            self._count(name, "busy")
            raise RpcError(RESOURCE_EXHAUSTED, str(busy)) from None
        except Failed as failed:
            log.exception("the policy %s failed; the request is refused", name)
            return _failure(self._count(name, "failed"), str(failed))
        except Exception:
            # As a status of gRPC it would let the request pass where `on_error` says so.
            log.exception("the decision of %s cannot be told; the request is refused", name)
            return _failure(self._count(name, "failed"))
        finally:
            self._seconds(name).observe(self._clock() - began)
        self._count(name, "allowed" if decision.allowed else "denied")
        return response

    def _whose_key(self, asked: attribute_context_pb2.AttributeContext) -> external_auth_pb2.CheckResponse:
        """Always a yes: what it says of the key is judged in Envoy, beside the other ways to authenticate."""
        rule = _rule(asked.context_extensions[consumers.EXTENSION])
        found = self.keys.find(rule, asked.request.http.header_map.headers)
        self._count("api_key", "unknown" if found is None else "found")
        response = external_auth_pb2.CheckResponse(ok_response=external_auth_pb2.OkHttpResponse())
        answer = response.dynamic_metadata.fields[consumers.EXTENSION].struct_value.fields
        if found is None:
            answer["unknown"].bool_value = True
            return response
        answer["consumer"].string_value = found.consumer
        if found.plan:
            answer["plan"].string_value = found.plan
        if found.not_after:
            answer["not_after"].number_value = found.not_after
        return response

    async def _whose_password(
        self, asked: attribute_context_pb2.AttributeContext
    ) -> external_auth_pb2.CheckResponse:
        """A yes, as for keys; a status other than OK where nobody can tell, so that Envoy hears nothing."""
        list_name = asked.context_extensions[passwords.EXTENSION]
        try:
            user = await self.passwords.user(list_name, asked.request.http.header_map.headers)
        except passwords.Missing:
            self._count("basic_auth", "missing")
            raise RpcError(UNAVAILABLE, f"the users of {list_name} are not here yet") from None
        except Busy as busy:
            self._count("basic_auth", "busy")
            raise RpcError(RESOURCE_EXHAUSTED, str(busy)) from None
        self._count("basic_auth", "wrong" if user is None else "found")
        response = external_auth_pb2.CheckResponse(ok_response=external_auth_pb2.OkHttpResponse())
        answer = response.dynamic_metadata.fields[passwords.EXTENSION].struct_value.fields
        if user is None:
            answer["wrong"].bool_value = True
        else:
            answer["user"].string_value = user
        return response

    async def _arrival(self, name: str, limit: float) -> Function | None:
        """A new route and its policy come over two streams, to Envoy and to here: the route may be first."""
        for _ in range(int(limit / STEP) if name else 0):
            await asyncio.sleep(STEP)
            if name in self.functions.current:
                return self.functions.current[name]
        return None

    def _count(self, policy: str, outcome: str) -> str:
        self._decisions(policy, outcome).inc()
        return outcome

    def _close(self) -> None:
        for function in self.functions.current.values():
            function.close()
        self.passwords.close()


def _function(message: rules_pb2.PythonPolicy) -> Function:
    return load(message.file, message.function, message.source)


@lru_cache(maxsize=1024)
def _rule(text: str) -> Mapping[str, Any]:
    rule: Mapping[str, Any] = json.loads(text)
    return rule


def _limit(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return DEFAULT_LIMIT


def _request(asked: attribute_context_pb2.AttributeContext) -> Request:
    http = asked.request.http
    said = asked.context_extensions
    path, _, query = http.path.partition("?")
    identity = asked.metadata_context.filter_metadata.get(NAMESPACE)
    who = _mapping(identity) if identity is not None else {}
    return Request(
        method=http.method,
        scheme=http.scheme,
        host=http.host,
        path=path,
        query=dict(reversed(parse_qsl(query, keep_blank_values=True))) if query else {},
        query_string=query,
        path_params=_path_params(said.get("path", ""), path),
        headers=Headers(http.headers.items()),
        client_address=asked.source.address.socket_address.address,
        peer=_peer(asked.source),
        claims=who.get("claims", {}),
        consumer=who.get("consumer"),
        plan=who.get("plan"),
        authenticated_by=who.get("method"),
        route=said.get("route", ""),
        id=http.headers.get("x-request-id", http.id),
        body=(http.raw_body or http.body.encode()) if "body" in said else None,
    )


def _peer(source: attribute_context_pb2.AttributeContext.Peer) -> Peer | None:
    if not source.principal and not source.certificate:
        return None
    return Peer(principal=source.principal, certificate=unquote(source.certificate))


_TEMPLATE = re.compile(r"(?:[^\\()\[\]*+?{}|]|\\.|\(\?P<\w+>\[\^/\]\+\))*")
"""Segments with names, as the paths of most routes are: Python's own expressions need no backtracking for these."""


@lru_cache(maxsize=4096)
def _pattern(regex: str) -> re.Pattern[str] | None:
    """What a user wrote for RE2 is matched by RE2: a client chooses the path, and backtracking could take for ever."""
    try:
        found: re.Pattern[str] = (re if _TEMPLATE.fullmatch(regex) else re2).compile(regex)
        return found
    except (re.error, re2.error):
        return None


def _path_params(regex: str, path: str) -> Mapping[str, str]:
    pattern = _pattern(regex) if regex else None
    match = pattern.fullmatch(path) if pattern is not None else None
    return {name: unquote(value or "") for name, value in match.groupdict().items()} if match else {}


def _mapping(struct: struct_pb2.Struct) -> dict[str, Any]:
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _mapping(value.struct_value)
    if kind == "list_value":
        return [_value(one) for one in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return getattr(value, kind) if kind in ("string_value", "bool_value") else None


def _headers(headers: Mapping[str, str]) -> list[base_pb2.HeaderValueOption]:
    return [header(name.lower(), value) for name, value in headers.items()]


def _allowed(decision: Decision) -> external_auth_pb2.CheckResponse:
    response = external_auth_pb2.CheckResponse()
    response.status.code = OK
    response.ok_response.headers.extend(_headers(decision.headers))
    response.ok_response.headers_to_remove.extend(decision.remove)
    response.ok_response.response_headers_to_add.extend(_headers(decision.response_headers))
    if decision.metadata:
        _tell(response, decision.metadata)
    return response


def _denied(decision: Decision) -> external_auth_pb2.CheckResponse:
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.denied_response.status.code = decision.status  # type: ignore[assignment] # checked by deny()
    response.denied_response.headers.extend(_headers(decision.headers))
    if decision.body is None:
        _tell(response, {PROBLEM: True})
    else:
        response.denied_response.body = decision.body.decode("utf-8", "replace")
    return response


def _failure(_outcome: str, message: str = "") -> external_auth_pb2.CheckResponse:
    """Never a status of gRPC: a policy that fails opens no route, also where an unreachable one would."""
    response = external_auth_pb2.CheckResponse()
    response.status.code = PERMISSION_DENIED
    response.status.message = message[:200]
    response.denied_response.status.code = 503  # type: ignore[assignment]
    _tell(response, {FAILED: True})
    return response


def _tell(response: external_auth_pb2.CheckResponse, metadata: Mapping[str, Any]) -> None:
    """Raises Failed for metadata that protobuf's Struct cannot hold."""
    try:
        response.dynamic_metadata.update(metadata)
    except (ValueError, TypeError, RecursionError) as error:
        raise Failed(f"its metadata: {error}") from None
