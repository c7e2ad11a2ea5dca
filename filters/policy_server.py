"""Envoy's calls to the policy server: its cluster, the names of the filters, and lookups of credentials.

Envoy looks up credentials before it runs the identity script, which uses the responses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from envoy.config.core.v3 import config_source_pb2, grpc_service_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2 as pb
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message

from filters.policy import HttpFilter


def internal_cluster(service: str) -> str:
    """The cluster of an internal service, by the name of the service. The slash keeps it apart from upstreams."""
    return f"xds/{service}"


SERVICE = "policy-server"
"""The name of the internal service that decides what Envoy cannot."""
POLICY_SERVER = internal_cluster(SERVICE)
"""The cluster of the policy server."""
NODE_CLUSTER = "policy-servers"
"""The `cluster` in the xDS node of policy servers."""
SUBSCRIBERS_CLUSTER = "policy-servers-subscribers"
"""The same for their streams of subscriptions, which do not wait for the gateway, nor the gateway for them."""


FILTER = "xds.ext_authz"
LENIENT_FILTER = "xds.ext_authz.on_error_allow"
"""A second filter, because Envoy's `failure_mode_allow` applies to a whole filter and not to a route."""
NARROW_FILTER = "xds.ext_authz.headers"
"""A third filter, because `allowed_headers` applies to a whole filter too.

It sends the headers that policies declare.
"""
BODY_FILTER, LENIENT_BODY_FILTER = "xds.ext_authz.body", "xds.ext_authz.body.on_error_allow"
"""Filters that send bodies as bytes. Envoy reads `pack_as_bytes` of a whole filter only, and without it each byte that is no
UTF-8 becomes an exclamation mark. Services over HTTP get their bytes only without it."""
USAGE = "usage"
"""The context extension of a route that answers consumers with their limits."""


def grpc_service(
    timeout: timedelta | None = None, cluster: str = POLICY_SERVER
) -> grpc_service_pb2.GrpcService:
    """A gRPC service that Envoy calls, by default the policy server. Without `timeout`, that of the filter holds."""
    service = grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=cluster)
    )
    if timeout is not None:
        service.timeout.FromTimedelta(timeout)
    return service


def lookup_filter(
    name: str, extension: str, limit: timedelta, headers: Collection[str], *, dynamic: bool = False
) -> HttpFilter:
    """The filter that looks up credentials. It sends only `headers`; if there are none, no route uses the filter.

    If the policy server does not answer, the script rejects the credential. A request without credentials may pass.
    """
    config = pb.ExtAuthz(
        grpc_service=grpc_service(limit),
        transport_api_version=config_source_pb2.V3,
        failure_mode_allow=True,
        encode_raw_headers=True,
        stat_prefix=extension,
    )
    if headers:
        config.allowed_headers.CopyFrom(_named(headers))
    return HttpFilter(name=name, config=config, dynamic=dynamic)


def _named(headers: Collection[str]) -> string_pb2.ListStringMatcher:
    patterns = [string_pb2.StringMatcher(exact=name) for name in sorted(headers)]
    return string_pb2.ListStringMatcher(patterns=patterns)


def lookup(name: str, extension: str, question: str, **more: str) -> Mapping[str, Message]:
    """The route's configuration of the filter `name`: the context extension `extension` with the value `question`.

    `more` are further context extensions.
    """
    checks = pb.CheckSettings(context_extensions={extension: question, **more})
    return {name: pb.ExtAuthzPerRoute(check_settings=checks)}
