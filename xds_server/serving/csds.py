"""The Client Status Discovery Service: the state of every resource at every connected client, in Envoy's own API.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/status/v3/csds.proto
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.config.core.v3 import base_pb2
from envoy.service.status.v3 import csds_pb2
from envoy.type.matcher.v3 import node_pb2, string_pb2
from google.protobuf import json_format

from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import SECRET
from xds_server.discovery.watch import Watch
from xds_server.serving.services import Services
from xds_server.serving.session import Context, Session, local

NAME = csds_pb2.DESCRIPTOR.services_by_name["ClientStatusDiscoveryService"].full_name

_Client = config_dump_shared_pb2.ClientResourceStatus


class ClientStatus:
    """Answers from the open streams. Secrets are named, and their content is never shown.

    It shows the configuration of every group, so only clients on this machine may call it, unless `anywhere` is true.
    """

    def __init__(self, services: Services, *, anywhere: bool = False) -> None:
        self._services = services
        self._anywhere = anywhere

    def attach(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        decode, encode = (
            csds_pb2.ClientStatusRequest.FromString,
            csds_pb2.ClientStatusResponse.SerializeToString,
        )
        methods = {
            "FetchClientStatus": grpc.unary_unary_rpc_method_handler(self.fetch, decode, encode),
            "StreamClientStatus": grpc.stream_stream_rpc_method_handler(self.stream, decode, encode),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, methods),))

    async def fetch(
        self, request: csds_pb2.ClientStatusRequest, context: Context
    ) -> csds_pb2.ClientStatusResponse:
        """Return all clients that match, once.

        Aborts with PERMISSION_DENIED or INVALID_ARGUMENT.
        """
        if not (self._anywhere or local(context)):
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "client status is for clients of this machine only"
            )
        if any(matcher.node_metadatas for matcher in request.node_matchers):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "node_matchers: only node_id is supported")
        try:
            return self.answer(request)
        except re.error as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"safe_regex: {error}")

    async def stream(
        self, requests: AsyncIterator[csds_pb2.ClientStatusRequest], context: Context
    ) -> AsyncIterator[csds_pb2.ClientStatusResponse]:
        """Yield all clients that match, for every request."""
        async for request in requests:
            yield await self.fetch(request, context)

    def answer(self, request: csds_pb2.ClientStatusRequest) -> csds_pb2.ClientStatusResponse:
        """Return the response to a request."""
        matching = [
            session
            for session in self._services.sessions.values()
            if _matches(request.node_matchers, session)
        ]
        contents = not request.exclude_resource_contents
        return csds_pb2.ClientStatusResponse(config=[_client(session, contents) for session in matching])


def _matches(matchers: Any, session: Session) -> bool:
    return not matchers or any(_matches_id(matcher, session.node.id) for matcher in matchers)


def _matches_id(matcher: node_pb2.NodeMatcher, value: str) -> bool:
    if not matcher.HasField("node_id"):
        return True
    return _matches_string(matcher.node_id, value)


def _matches_string(matcher: string_pb2.StringMatcher, value: str) -> bool:
    kind = matcher.WhichOneof("match_pattern")
    wanted = matcher.safe_regex.regex if kind == "safe_regex" else getattr(matcher, kind or "exact")
    if matcher.ignore_case and kind != "safe_regex":
        wanted, value = wanted.lower(), value.lower()
    match kind:
        case "exact":
            return bool(value == wanted)
        case "prefix":
            return value.startswith(wanted)
        case "suffix":
            return value.endswith(wanted)
        case "contains":
            return wanted in value
        case "safe_regex":
            return re.fullmatch(wanted, value) is not None
    return False


def _client(session: Session, contents: bool) -> csds_pb2.ClientConfig:
    node = session.node
    message = base_pb2.Node(
        id=node.id, cluster=node.cluster, user_agent_name=node.agent, user_agent_version=node.version
    )
    message.locality.region, message.locality.zone = node.region, node.zone
    message.locality.sub_zone = node.sub_zone
    json_format.ParseDict(dict(node.metadata), message.metadata)
    config = csds_pb2.ClientConfig(node=message, client_scope=session.group)
    for watch in session.stream.watches.values():
        config.generic_xds_configs.extend(_configs(session, watch, contents))
    return config


def _configs(
    session: Session, watch: Watch, contents: bool
) -> Iterator[csds_pb2.ClientConfig.GenericXdsConfig]:
    view = session.view()
    items = view[watch.type] if view is not None else {}
    names = watch.sent.keys() | watch.subscription.names
    names |= {name for name in items if watch.subscription.wants(name)}
    for name in sorted(names):
        resource = items.get(name)
        config = csds_pb2.ClientConfig.GenericXdsConfig(type_url=watch.type.url, name=name)
        config.config_status, config.client_status = _status(watch, name, resource)
        if config.client_status == _Client.ACKED:
            config.version_info = watch.sent[name]
        if config.client_status == _Client.NACKED:
            config.error_state.details = watch.rejected[name]
            config.error_state.version_info = watch.sent.get(name, "")
        if resource is not None and contents and watch.type != SECRET:
            config.xds_config.type_url, config.xds_config.value = watch.type.url, resource.body
        yield config


def _status(watch: Watch, name: str, resource: Resource | None) -> tuple[Any, Any]:
    """Return the server's view (ConfigStatus) and the client's view (ClientResourceStatus)."""
    if name in watch.rejected:
        return csds_pb2.ERROR, _Client.NACKED
    if resource is None:
        return (
            (csds_pb2.STALE, _Client.ACKED)
            if name in watch.sent
            else (csds_pb2.NOT_SENT, _Client.DOES_NOT_EXIST)
        )
    if watch.pending is not None and name in watch.pending.versions:
        return csds_pb2.STALE, _Client.REQUESTED
    if name not in watch.sent:
        return csds_pb2.NOT_SENT, _Client.REQUESTED
    synced = watch.sent[name] == resource.version and name not in watch.resends and name not in watch.unjudged
    return (csds_pb2.SYNCED if synced else csds_pb2.STALE), _Client.ACKED
