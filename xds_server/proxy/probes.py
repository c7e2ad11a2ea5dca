"""The listener of an Envoy in a pod for its kubelet: probes, and the hook that drains before the end.

Envoy ends at once when it is told to end. So the kubelet asks it to drain first: the probe fails, every response closes its
connection, and the request returns when the others had time to notice. Envoy's admin interface can do this, and much else, so
nothing but these two paths reaches it, and whoever drains must know a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from xds_server.gateway.model.upstreams import parse_address
from xds_server.translate import endpoints
from xds_server.translate.protobuf import duration, packed

READY, DRAIN = "/ready", "/drain"
TOKEN_HEADER = "x-drain-token"  # noqa: S105 - a name of a header
_ADMIN = "xds/admin"
_LUA, _FAULT = "envoy.filters.http.lua", "envoy.filters.http.fault"
_FAIL = f"""
function envoy_on_request(handle)
  local headers = {{[":method"] = "POST", [":path"] = "/healthcheck/fail", [":authority"] = "admin"}}
  handle:httpCall("{_ADMIN}", headers, "", 5000)
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The hook that drains. Who asks for it must send the `token`, and gets the response after `time`."""

    token: str
    time: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe of an application beside this Envoy: a port on loopback, and a path."""

    port: int
    path: str


NONE: Mapping[str, Probe] = MappingProxyType({})


def clusters(admin_port: int, forwarded: Mapping[str, Probe]) -> Iterator[cluster_pb2.Cluster]:
    """Yield the clusters that the listener needs: Envoy's own admin interface, and the ports of `forwarded` probes."""
    yield _local(_ADMIN, admin_port)
    for port in sorted({one.port for one in forwarded.values()}):
        yield _local(_probed(port), port)


def _local(name: str, port: int) -> cluster_pb2.Cluster:
    result = cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.STATIC)
    result.load_assignment.cluster_name = name
    endpoint = result.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.CopyFrom(endpoints.address(parse_address(f"127.0.0.1:{port}")))
    return result


def _probed(port: int) -> str:
    return f"xds/probe/{port}"


def listener(port: int, drain: Drain | None, forwarded: Mapping[str, Probe]) -> listener_pb2.Listener:
    """Return the listener, which accepts on all addresses. `forwarded` are probes by the path at which they are asked."""
    manager = hcm_pb2.HttpConnectionManager(stat_prefix="ready")
    host = manager.route_config.virtual_hosts.add(name="ready", domains=["*"])
    ready = host.routes.add(match=route_components_pb2.RouteMatch(path=READY))
    ready.route.cluster = _ADMIN
    for path, probe in sorted(forwarded.items()):
        route = host.routes.add(match=route_components_pb2.RouteMatch(path=path))
        route.route.cluster, route.route.prefix_rewrite = _probed(probe.port), probe.path
    if drain is not None:
        host.routes.append(_drain(drain))
        for name, message in ((_LUA, lua_pb2.Lua()), (_FAULT, fault_pb2.HTTPFault())):
            manager.http_filters.add(name=name, typed_config=packed(message))
    manager.http_filters.add(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router()))
    result = listener_pb2.Listener(name="xds/ready")
    result.address.socket_address.address = "::"
    result.address.socket_address.ipv4_compat = True
    result.address.socket_address.port_value = port
    result.filter_chains.add().filters.add(
        name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)
    )
    return result


def _drain(drain: Drain) -> route_components_pb2.Route:
    result = route_components_pb2.Route(match=route_components_pb2.RouteMatch(path=DRAIN))
    token = result.match.headers.add(name=TOKEN_HEADER)
    token.string_match.exact = drain.token
    result.direct_response.status = 200
    script = lua_pb2.LuaPerRoute()
    script.source_code.inline_string = _FAIL
    fault = fault_pb2.HTTPFault()
    fault.delay.fixed_delay.CopyFrom(duration(drain.time))
    fault.delay.percentage.numerator = 100
    result.typed_per_filter_config[_LUA].CopyFrom(packed(script))
    result.typed_per_filter_config[_FAULT].CopyFrom(packed(fault))
    return result
