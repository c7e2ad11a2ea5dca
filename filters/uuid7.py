"""Request ids that begin with the time (UUIDv7, RFC 9562): a script on listeners that ask for them."""

from __future__ import annotations

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import wrappers_pb2

from filters.policy import HttpFilter

FILTER = "xds.uuid7"
GIVEN = "x-gateway-request-id"
"""Carries the id that a trusted client sent from the first step of a request to the script."""
_SCRIPT = """-- Gives the request id that Envoy made the time of the request (RFC 9562, section 5.7).
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("{given}") ~= nil then
    headers:remove("{given}")
    return
  end
  local id, time = headers:get("x-request-id"), handle:timestamp()
  if id ~= nil and #id == 36 then
    local early = string.format("%08x-%04x-7", math.floor(time / 65536), time % 65536)
    headers:replace("x-request-id", early .. id:sub(16))
  end
end
"""


def uuid7_filter() -> HttpFilter:
    """The filter that makes the ids of a listener UUIDs of version 7."""
    config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
    config.default_source_code.inline_string = _SCRIPT.format(given=GIVEN)
    return HttpFilter(name=FILTER, config=config, always=True)
