"""Stand-ins for rejected resources without an earlier accepted form: they answer 503."""

from __future__ import annotations

from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2

from filters.model.identity import NAMESPACE
from filters.reasons import POLICY_REJECTED
from xds_server.discovery.snapshot import Resource
from xds_server.discovery.types import EXTENSION_CONFIG, ROUTE, ResourceType
from xds_server.translate import names
from xds_server.translate.protobuf import packed

_SCRIPT = f"""
function envoy_on_request(handle)
  handle:streamInfo():dynamicMetadata():set("{NAMESPACE}", "failure", "{POLICY_REJECTED}")
  handle:respond({{[":status"] = "503"}}, "")
end
"""
CLOSED_FILTER = lua_pb2.Lua()
"""A filter that responds to every request with 503. Listeners accept it instead of any dynamic filter."""
CLOSED_FILTER.default_source_code.inline_string = _SCRIPT


def stand_in(type_: ResourceType, rejected: Resource) -> Resource | None:
    """Return a resource of the same name if a listener would not start without it, or None."""
    if type_ == EXTENSION_CONFIG:
        return Resource.of(
            extension_pb2.TypedExtensionConfig(name=rejected.name, typed_config=packed(CLOSED_FILTER))
        )
    if type_ == ROUTE:
        host = route_components_pb2.VirtualHost(name="*", domains=["*"])
        match = route_components_pb2.RouteMatch(prefix="/")
        host.routes.add(name=names.rejected("*"), match=match).direct_response.status = 503
        return Resource.of(route_pb2.RouteConfiguration(name=rejected.name, virtual_hosts=[host]))
    return None
