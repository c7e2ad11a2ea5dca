"""Questions about credentials to the policy server, asked before the identity script, which judges the answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from envoy.config.core.v3 import config_source_pb2, grpc_service_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2 as pb
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import duration_pb2
from google.protobuf.message import Message

from filters.policy import POLICY_SERVER, HttpFilter


def lookup_filter(
    name: str, extension: str, limit: timedelta, headers: Collection[str], *, dynamic: bool = False
) -> HttpFilter:
    """The filter that asks, and shows `headers` and no others; without any it is used by nobody.

    Without an answer the script refuses the credential; who has none may still pass.
    """
    envoy = grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=POLICY_SERVER)
    timeout = duration_pb2.Duration()
    timeout.FromTimedelta(limit)
    config = pb.ExtAuthz(
        grpc_service=grpc_service_pb2.GrpcService(envoy_grpc=envoy, timeout=timeout),
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
