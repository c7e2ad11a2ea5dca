"""Client certificates that a listener does not verify: a script notes them, so that no policy takes one for verified."""

from __future__ import annotations

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import wrappers_pb2

from filters.policy import HttpFilter

FILTER = "xds.client_certificate"
"""The filter, and the namespace of its dynamic metadata."""
UNVERIFIED = "unverified"
"""The key that is true for a request over a connection with a certificate that Envoy could not verify."""
_SCRIPT = f"""function envoy_on_request(handle)
  local connection = handle:streamInfo():downstreamSslConnection()
  if connection ~= nil and connection:peerCertificatePresented() and not connection:peerCertificateValidated() then
    handle:streamInfo():dynamicMetadata():set("{FILTER}", "{UNVERIFIED}", true)
  end
end
"""


def filter_of_listener() -> HttpFilter:
    """The filter of a listener that does not verify client certificates."""
    config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
    config.default_source_code.inline_string = _SCRIPT
    return HttpFilter(name=FILTER, config=config, always=True)
