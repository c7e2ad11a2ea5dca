"""A gateway as objects of the Gateway API: a Gateway, HTTPRoutes, and Services with all that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from filters.language import Problem
from xds_server.exports.objects import GATEWAY_API, Manifest, Names, as_yaml, manifest
from xds_server.exports.report import Report, left_out
from xds_server.exports.routes import CLOSED, Routes
from xds_server.exports.services import Services
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.listeners import Listener
from xds_server.gateway.model.routes import Route

_SECTIONS = ("listeners", "secrets", "upstreams", "routes", "policies", "policy_sets")
"""Sections that are exported, or whose effects on routes are reported there."""
_EXPORTED = ("port", "address", "hosts", "tls", "protocol", "redirect_to_https")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Files of manifests by name, and what they cannot say."""

    files: Mapping[str, bytes]
    problems: tuple[Problem, ...]


def export(gateway: Gateway, *, name: str, namespace: str, gateway_class: str) -> Exported:
    """Return the manifests of a gateway. Errors among the problems are rules of security that have no equal."""
    report = Report(gateway.place)
    sections = gateway.sections
    for one in fields(sections):
        if one.name not in _SECTIONS and getattr(sections, one.name) != _default(one):
            report.warn((one.name,), f"the section '{one.name}' has no equal in the Gateway API")
    listeners = _Listeners(name, namespace, report)
    for key, listener in sections.listeners.items():
        listeners.add(key, listener)
    services = Services(namespace, report, Names(CLOSED), gateway.contents)
    for key, upstream in sections.upstreams.items():
        services.add(key, upstream)
    routes = Routes(
        gateway=gateway,
        namespace=namespace,
        report=report,
        names=Names(),
        targets=services.targets,
        parents=listeners.parents,
    )
    spec = {"gatewayClassName": gateway_class, "listeners": listeners.written}
    objects = {
        "gateway.yaml": [manifest(GATEWAY_API, "Gateway", name, namespace, spec=spec), *listeners.redirects],
        "routes.yaml": list(routes.objects()),
        "services.yaml": services.objects,
    }
    files = {file: as_yaml(found) for file, found in objects.items() if found}
    return Exported(files=files, problems=tuple(report.problems))


def _default(field: Any) -> Any:
    return field.default if not callable(field.default_factory) else field.default_factory()


class _Listeners:
    """The listeners of the Gateway. One for several hosts becomes several."""

    def __init__(self, gateway: str, namespace: str, report: Report) -> None:
        self.written: list[dict[str, Any]] = []
        self.redirects: list[Manifest] = []
        self._gateway, self._namespace, self._report, self._names = gateway, namespace, report, Names()
        self._of: dict[str, list[str]] = {}

    def add(self, key: str, listener: Listener) -> None:
        """Add a listener."""
        path = ("listeners", key)
        self._of[key] = []
        left_out(self._report, listener, path, _EXPORTED, f"the listener '{key}'")
        if listener.protocol != "http" or not listener.bind:
            self._report.warn(path, "a listener for TCP, UDP or redirected connections is left out")
            return
        tls = listener.tls
        if tls is not None and tls.client_certificate is not None:
            message = "'client_certificate' is not exported, so nothing of this listener is"
            remedy = (
                "add the listener with the client certificates to the Gateway, as the controller wants them"
            )
            self._report.error((*path, "tls", "client_certificate"), message, remedy)
            return
        if listener.address != "0.0.0.0":
            self._report.warn((*path, "address"), "the addresses of a Gateway belong to its controller")
        if tls is not None:
            left_out(self._report, tls, (*path, "tls"), ("certificates",), "TLS of a listener")
            names = ", ".join(tls.certificates)
            self._report.warn(
                (*path, "tls", "certificates"),
                "private keys are not exported",
                f"make a Secret of the type kubernetes.io/tls for each of: {names}",
            )
        for number, host in enumerate(listener.hosts or ("",)):
            self._add_one(key, listener, host, "" if len(listener.hosts) < 2 else f"-{number}")

    def _add_one(self, key: str, listener: Listener, host: str, suffix: str) -> None:
        name = self._names.of(f"{key}{suffix}")
        made: dict[str, Any] = {"name": name, "port": listener.port, "protocol": "HTTP"}
        if host:
            made["hostname"] = host
        if listener.tls is not None:
            certificates = Names()
            made["protocol"] = "HTTPS"
            made["tls"] = {
                "mode": "Terminate",
                "certificateRefs": [{"name": certificates.of(one)} for one in listener.tls.certificates],
            }
        made["allowedRoutes"] = {"namespaces": {"from": "Same"}}
        self.written.append(made)
        if listener.redirect_to_https:
            self._redirect(name, listener)
        else:
            self._of[key].append(name)

    def _redirect(self, name: str, listener: Listener) -> None:
        """Add the route that redirects all requests of a listener to https."""
        to = {"scheme": "https", "statusCode": 301}
        if not isinstance(listener.redirect_to_https, bool):
            to["port"] = listener.redirect_to_https
        spec = {
            "parentRefs": [{"name": self._gateway, "sectionName": name}],
            "rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": to}]}],
        }
        self.redirects.append(
            manifest(GATEWAY_API, "HTTPRoute", f"{name}-to-https", self._namespace, spec=spec)
        )
        self._report.warn(
            ("listeners", name, "redirect_to_https"), "the redirect has the status 301 instead of 308"
        )

    def parents(self, route: Route) -> list[dict[str, str]]:
        """Return the references of a route to its listeners."""
        wanted = route.listeners or tuple(self._of)
        names = [name for one in wanted for name in self._of.get(one, ())]
        return [{"name": self._gateway, "sectionName": name} for name in names]
