"""How Envoy calls the policy server: its cluster, the names of its filters, and lookups of credentials.

Lookups are made before the identity script, which judges the answers.
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
"""The cluster that policy servers name in their xDS node."""


FILTER = "xds.ext_authz"
LENIENT_FILTER = "xds.ext_authz.on_error_allow"
"""Envoy decides for a whole filter, not for a route, what an unreachable service means."""
NARROW_FILTER = "xds.ext_authz.headers"
"""Which headers are shown is decided for a whole filter too: this one shows what policies say that they see."""
USAGE = "usage"
"""What a route tells that answers consumers with their limits."""


def grpc_service(
    timeout: timedelta | None = None, cluster: str = POLICY_SERVER
) -> grpc_service_pb2.GrpcService:
    """A gRPC service that Envoy calls, by default the policy server, without a `timeout` as its filter says."""
    service = grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=cluster)
    )
    if timeout is not None:
        service.timeout.FromTimedelta(timeout)
    return service


def lookup_filter(
    name: str, extension: str, limit: timedelta, headers: Collection[str], *, dynamic: bool = False
) -> HttpFilter:
    """The filter that asks, and shows `headers` and no others; without any it is used by nobody.

    Without an answer the script refuses the credential; who has none may still pass.
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
    """What a route carries for the filter `name`, so that it asks this. `more` are further context extensions."""
    checks = pb.CheckSettings(context_extensions={extension: question, **more})
    return {name: pb.ExtAuthzPerRoute(check_settings=checks)}
