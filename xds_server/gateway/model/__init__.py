"""The language as frozen values: everything that a user may write, key by key."""

from xds_server.gateway.model.actions import Redirect, Respond
from xds_server.gateway.model.gateway import Gateway, Sections
from xds_server.gateway.model.listeners import DownstreamTls, Listener, Secret
from xds_server.gateway.model.routes import Route
from xds_server.gateway.model.upstreams import Endpoint, Upstream, UpstreamTls

__all__ = [
    "DownstreamTls",
    "Endpoint",
    "Gateway",
    "Listener",
    "Redirect",
    "Respond",
    "Route",
    "Secret",
    "Sections",
    "Upstream",
    "UpstreamTls",
]
