"""The whole gateway: the sections that a user writes, and the result of reading them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from filters.error_overrides import ErrorOverride
from filters.language import DataSource, Place, option
from filters.model.geoip import NO_GEOIP, Geoip
from filters.model.identity import Consumer, Plan, Provider
from filters.policy import Context
from xds_server.gateway.model.catalog import Api
from xds_server.gateway.model.groups import Group
from xds_server.gateway.model.listeners import Listener, Secret
from xds_server.gateway.model.policies import NONE, Policies
from xds_server.gateway.model.portal import NO_PORTAL, Portal
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.gateway.model.products import Product
from xds_server.gateway.model.rollout import NO_ROLLOUT, Rollout
from xds_server.gateway.model.routes import Route
from xds_server.gateway.model.stream_routes import StreamRoute
from xds_server.gateway.model.telemetry import NO_TELEMETRY, Telemetry
from xds_server.gateway.model.upstreams import Upstream

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """The top-level keys. Each is a mapping from names to objects, or from fixed keys to settings."""

    listeners: Mapping[str, Listener] = option("Ports that the gateway opens.", default=_EMPTY)
    secrets: Mapping[str, Secret] = option("Certificates with their keys.", default=_EMPTY)
    upstreams: Mapping[str, Upstream] = option("Services behind the gateway.", default=_EMPTY)
    identity: Mapping[str, Provider] = option("Issuers of tokens.", default=_EMPTY)
    plans: Mapping[str, Plan] = option("Limits for each consumer.", default=_EMPTY)
    consumers: Mapping[str, Consumer] = option("Callers of the gateway.", default=_EMPTY)
    policies: Policies = option("Policies of every route that does not override them.", default=NONE)
    policy_sets: Mapping[str, Policies] = option("Policies by name, for `use`.", default=_EMPTY)
    routes: Mapping[str, Route] = option("Which requests match, and how they are handled.", default=_EMPTY)
    stream_routes: Mapping[str, StreamRoute] = option(
        "Which connections of listeners for TCP and UDP go to which upstream.", default=_EMPTY
    )
    errors: Mapping[str, ErrorOverride] = option(
        "Other status, headers or body for a named reason.", default=_EMPTY
    )
    geoip: Geoip = option("Databases of countries and autonomous systems.", default=NO_GEOIP)
    telemetry: Telemetry = option("Access logs, traces and metrics.", default=NO_TELEMETRY)
    rollout: Rollout = option(
        "How a new version reaches the Envoys step by step, and when it is withdrawn.", default=NO_ROLLOUT
    )
    groups: Mapping[str, Group] = option(
        "Envoys that are served another branch of the gateway's repository.", default=_EMPTY
    )
    catalog: Mapping[str, Api] = option("APIs that developers find in the portal.", default=_EMPTY)
    products: Mapping[str, Product] = option(
        "What developers subscribe to: APIs with plans and prices.", default=_EMPTY
    )
    portal: Portal = option("The developer portal: its address, its look and its login.", default=NO_PORTAL)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileRoutes:
    """The routes of one file. It is the same object as before if nothing in it changed.

    `ranked` and `policies` are those of the gateway, for these routes. `used` are all settings that one of the routes
    has, by policy key and identity.
    """

    ranked: Mapping[str, Ranked]
    policies: Mapping[str, Mapping[str, Any]]
    used: Mapping[str, Mapping[int, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway without errors: its sections, the effective policies, and the position of every value.

    `policies` are the merged settings of each route by policy key. `ranked` decides which route wins. `files` has both
    by file. `contents` has the content of each DataSource, also of those of the catalogue, which no policy needs. `variables` are texts with the value of an environment variable, which may be secret,
    and how they are written. `place` returns the position of a path in the YAML, to attribute errors; it reads no file.
    """

    sections: Sections
    policies: Mapping[str, Mapping[str, Any]]
    ranked: Mapping[str, Ranked] = field(repr=False)
    files: tuple[FileRoutes, ...] = field(repr=False)
    contents: Mapping[DataSource, bytes] = field(repr=False)
    context: Context = field(repr=False)
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)
    place: Callable[[tuple[str | int, ...]], Place | None] = field(repr=False, compare=False)
