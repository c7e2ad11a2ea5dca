"""Entry points, certificates and TLS options of Traefik as listeners, and what of them a router needs.

Source: Traefik 3, "TLS" and "Routers" of the dynamic configuration. Entry points themselves are in the static configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xds_server.imports.draft import Draft, usable
from xds_server.imports.source import Field

PLAIN, TLS = "web", "websecure"
"""Traefik's usual entry points, which are the listeners of the new gateway."""
_DEFAULT = "default"
_VERSIONS = {"VersionTLS10": "1.0", "VersionTLS11": "1.1", "VersionTLS12": "1.2", "VersionTLS13": "1.3"}
_REQUIRED = {"RequireAndVerifyClientCert": True, "VerifyClientCertIfGiven": False}
_NO_CLIENTS = ("", "NoClientCert", "RequestClientCert")
_REMEDY = "write tls.client_certificate at a listener with the hosts of the router, and remove ip_access"


class EntryPoints:
    """The listeners of the draft."""

    def __init__(self, draft: Draft, roots: Sequence[Field], routers: Iterable[Field]) -> None:
        self._draft = draft
        self._listeners: dict[str, dict[str, Any]] = draft.sections.setdefault("listeners", {})
        self._listeners[PLAIN] = {"port": 80}
        self._options = {
            name: one
            for root in roots
            if (found := root.get("tls", "options")) is not None
            for name, one in found.items()
        }
        certificates = [one for root in roots for one in self._certificates(root)]
        self._used = {_option(one.get("tls")) for one in routers if one.get("tls") is not None}
        if certificates:
            tls: dict[str, Any] = {"certificates": certificates}
            self._listeners[TLS] = {"port": 443, "tls": tls}
            self._settings(tls)

    def of(self, router: Field, value: dict[str, Any]) -> bool:
        """Add the listeners of a router. Returns False if it must be closed, because other clients would reach it."""
        tls, points = router.get("tls"), router.elements("entryPoints")
        names = [one.text() for one in points]
        known = [one for one in names if one in self._listeners]
        sure = True
        for one in points:
            if one.text() not in (PLAIN, TLS):
                self._unknown(one, closed=not known)
                sure &= bool(known)
        if tls is not None:
            listeners = [TLS]
            sure &= self._secured(tls)
        elif names == [TLS] and TLS not in self._listeners:
            self._without_certificates(points[0])
            return False
        else:
            listeners = known or [PLAIN]  # without tls, a router has requests without TLS only
        if TLS in self._listeners:
            value["listeners"] = listeners
        return sure

    def _unknown(self, point: Field, *, closed: bool) -> None:
        name = point.text()
        if closed:
            self._draft.insecure(
                point,
                f"the entry point '{name}' is in the static configuration, so the route, which no other has, is closed",
                f"write a listener for {name}, name it under 'listeners' of the route, and remove ip_access",
            )
        else:
            self._draft.warn(
                point,
                f"the entry point '{name}' is in the static configuration, and the route is on the others only",
                f"write a listener for {name}",
            )

    def _secured(self, tls: Field) -> bool:
        """Whether a router with TLS is as safe as before."""
        tls.true(), tls.read("certResolver"), tls.read("domains")
        if TLS not in self._listeners:
            tls.read()
            self._without_certificates(tls)
            return False
        name = _option(tls)
        options = self._options.get(name)
        if options is None:
            if name == _DEFAULT:
                return True
            self._draft.insecure(
                tls, f"the TLS options '{name}' are not in these files, so the route is closed", _REMEDY
            )
            return False
        kind = _clients(options)
        if kind in _NO_CLIENTS or "client_certificate" in self._listeners[TLS]["tls"]:
            return True
        self._draft.insecure(
            options, f"the listener cannot demand certificates of clients ({kind}) for some routers only, or in this way, so "
            "the routes with these options are closed", _REMEDY,
        )  # fmt: skip
        return False

    def _without_certificates(self, field: Field) -> None:
        self._draft.insecure(
            field, "the certificates are in the static configuration or come by ACME, so the route, which would be "
            "without TLS, is closed", "write secrets and a listener with tls, name it at the route, and remove ip_access",
        )  # fmt: skip

    def _settings(self, tls: dict[str, Any]) -> None:
        """Add what the used options say to the listener: the strictest versions, and certificates of clients if all agree."""
        used = {name: self._options[name] for name in sorted(self._used) if name in self._options}
        versions = []
        for one in used.values():
            if version := _VERSIONS.get(one.text("minVersion")):
                versions.append(version)
            if one.true("sniStrict"):
                self._draft.warn(
                    one,
                    "clients that name no host are not rejected (sniStrict)",
                    "write hosts at the listener",
                )
        if versions:
            tls["minimum_version"] = max(versions)
            if len(self._used) > 1:
                self._draft.warn(
                    next(iter(used.values())),
                    f"all routers share the listener, so all demand TLS {max(versions)}",
                    "write a listener with hosts for the others",
                )
        if len(self._used) == 1 and used:
            (options,) = used.values()
            files = options.texts("clientAuth", "caFiles")
            required = _REQUIRED.get(_clients(options))
            if required is not None and files:
                authorities = [{"file": one} for one in files]
                tls["client_certificate"] = {
                    "ca": authorities if len(files) > 1 else authorities[0],
                    "required": required,
                }

    def _certificates(self, root: Field) -> Iterable[str]:
        stores = root.get("tls", "stores")
        if stores is not None:
            self._draft.warn(
                stores, "stores of certificates have no equal", "name the certificates at the listener"
            )
            stores.read()
        for one in root.elements("tls", "certificates") if root.get("tls") else []:
            files: Mapping[str, Any] = {
                "certificate": {"file": one.text("certFile")},
                "private_key": {"file": one.text("keyFile")},
            }
            one.read("stores")
            wanted = usable(one.text("certFile").rpartition("/")[2].rpartition(".")[0])
            yield self._draft.add("secrets", wanted, files)


def _option(tls: Field | None) -> str:
    """Return the name of the TLS options of a router, without its provider."""
    text = tls.text("options") if tls is not None else ""
    name, _, provider = text.partition("@")
    return name or _DEFAULT if provider in ("", "file") else text


def _clients(options: Field) -> str:
    """Return what options demand of certificates of clients."""
    return options.text("clientAuth", "clientAuthType")
