"""Statuses as they stand in objects, without the times of conditions and without the entries of other controllers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xds_server.gateway_api.addresses import missing
from xds_server.gateway_api.conditions import (
    Condition,
    GatewayStatus,
    ListenerSetStatus,
    ListenerStatus,
    ObjectStatus,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    accepted,
)
from xds_server.gateway_api.specs import ParentReference

FEATURES = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
)
"""What this controller supports, for `status.supportedFeatures` of a GatewayClass (GEP-2162)."""
RETRY_FEATURES = (
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
)
"""What it supports too if the CRDs have retries: those of 1.7, and of the experimental channel before, with the names of both."""
MESH_FEATURES = (
    "GRPCRoute",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteResponseHeaderModification",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
)
"""What the mesh supports. A GatewayClass must not list the features of meshes."""


_CONFLICTS = ("HostnameConflict", "ProtocolConflict")


def class_status(
    generation: int, wrong: Condition | None = None, features: Iterable[str] = FEATURES
) -> Mapping[str, Any]:
    """Return the status of a GatewayClass of this controller. `wrong` says why its parameters cannot be used."""
    return {
        "conditions": [(wrong or accepted()).as_json(generation)],
        "supportedFeatures": [{"name": name} for name in sorted(features)],
    }


def gateway_status(
    status: GatewayStatus, addresses: Iterable[str], programmed: Condition
) -> Mapping[str, Any]:
    """Return the status of a Gateway. `programmed` says whether its Envoys have it, which each listener then is too."""
    found = [{"type": _address_type(one), "value": one} for one in addresses]
    given = [one["value"] for one in found]
    programmed = (missing(status.wanted_addresses, given) if programmed.status else None) or programmed
    if programmed.status and not found:
        programmed = Condition("Programmed", False, "AddressNotAssigned", "its Service has no address yet")
    conditions = [*status.conditions, programmed]
    return {
        "addresses": found,
        "conditions": [one.as_json(status.generation) for one in conditions],
        "listeners": _listeners(status.listeners, status.generation, programmed),
        "attachedListenerSets": status.attached_sets,
    }


def set_status(status: ListenerSetStatus, programmed: Condition) -> Mapping[str, Any]:
    """Return the status of a ListenerSet. `programmed` says whether the Envoys of its Gateway have it."""
    if not status.accepted.status:
        programmed = Condition("Programmed", False, status.accepted.reason, status.accepted.message)
    return {
        "conditions": [one.as_json(status.generation) for one in (status.accepted, programmed)],
        "listeners": _listeners(status.listeners, status.generation, programmed),
    }


def _listeners(
    listeners: Iterable[ListenerStatus], generation: int, programmed: Condition
) -> list[Mapping[str, Any]]:
    return [
        {
            "name": one.name,
            "supportedKinds": [{"group": kind.group, "kind": kind.kind} for kind in one.kinds],
            "attachedRoutes": one.attached,
            "conditions": [
                each.as_json(generation)
                for each in (*one.conditions, _programmed(one.conditions, programmed))
            ],
        }
        for one in listeners
    ]


def ingress_status(addresses: Iterable[str]) -> Mapping[str, Any]:
    """Return the status of an Ingress that is served at some addresses."""
    kinds = {"IPAddress": "ip", "Hostname": "hostname"}
    return {"loadBalancer": {"ingress": [{kinds[_address_type(one)]: one} for one in addresses]}}


def _address_type(address: str) -> str:
    return "IPAddress" if address.replace(".", "").isdigit() or ":" in address else "Hostname"


def _programmed(conditions: Iterable[Condition], gateway: Condition) -> Condition:
    """Return whether a listener is programmed."""
    faults = [one for one in conditions if one.type in ("Accepted", "ResolvedRefs") and not one.status]
    if any(one.reason != "InvalidRouteKinds" for one in faults):
        reason = faults[0].reason if faults[0].reason in _CONFLICTS else "Invalid"
        return Condition("Programmed", False, reason, faults[0].message)
    return gateway


def route_status(status: RouteStatus) -> Mapping[str, Any]:
    """Return the status of a route."""
    return {"parents": [_parent(one, status.generation) for one in status.parents]}


def _parent(parent: ParentStatus, generation: int) -> Mapping[str, Any]:
    return {
        "parentRef": _reference(parent.parent),
        "conditions": [one.as_json(generation) for one in parent.conditions],
    }


def _reference(parent: ParentReference) -> Mapping[str, Any]:
    values = {
        "group": parent.group,
        "kind": parent.kind,
        "namespace": parent.namespace,
        "name": parent.name,
        "sectionName": parent.section_name,
        "port": parent.port,
    }
    return {key: value for key, value in values.items() if value is not None}


def policy_status(status: PolicyStatus) -> Mapping[str, Any]:
    """Return the status of a BackendTLSPolicy."""
    conditions = [one.as_json(status.generation) for one in status.conditions]
    return {
        "ancestors": [
            {
                "ancestorRef": _reference(ParentReference(namespace=namespace, name=name)),
                "conditions": conditions,
            }
            for namespace, name in status.gateways
        ]
    }


def object_status(status: ObjectStatus) -> Mapping[str, Any]:
    """Return the status of an object of our own kinds."""
    return {
        "ancestors": [
            {
                "ancestorRef": _reference(one.ancestor),
                "conditions": [condition.as_json(status.generation) for condition in one.conditions],
            }
            for one in status.ancestors
        ]
    }
