"""Security of OpenAPI documents: schemes become providers and policies of authentication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from xds_server.imports.draft import CLOSED, Draft
from xds_server.imports.draft import url as split_url
from xds_server.imports.source import Field

_WELL_KNOWN = "/.well-known/openid-configuration"


class Security:
    """Imports the security of the operations of one document."""

    def __init__(self, root: Field, draft: Draft, name: str) -> None:
        self._root, self._draft, self._name = root, draft, name
        self._schemes = dict(_schemes(root))
        self._known: dict[str, dict[str, Any] | None] = {}

    def of(self, operation: Field) -> dict[str, Any]:
        """Return the policies of an operation: one of its alternatives suffices."""
        wanted = operation.get("security")
        if wanted is None:
            wanted = self._root.get("security")
        if wanted is None or not wanted.value:
            return {}
        policies: dict[str, Any] = {}
        optional = False
        scopes: list[set[str]] = []
        for alternative in wanted.elements():
            names = [name for name, _ in alternative.items()]
            optional |= not names
            found = [self._policies(name, wanted) for name in names]
            if None in found:
                return dict(CLOSED)
            if self._needs_two(alternative, found):
                return dict(CLOSED)
            for one in found:
                self._report_lost_place(alternative, policies, one or {})
                policies = _merged(policies, one or {})
            if names:
                scopes.append({scope for _, some in alternative.items() for scope in some.texts()})
            if len(names) > 1:
                policies["authentication"] = "all"
        if policies.get("authentication") == "all" and len(scopes) > 1:
            self._draft.insecure(
                wanted, "alternatives of which one needs several schemes are not imported, so the route is closed",
                "write authentication: all at two routes, and remove ip_access",
            )  # fmt: skip
            return dict(CLOSED)
        needed = set().union(*scopes)
        if needed and any(one != scopes[0] for one in scopes):
            self._draft.insecure(
                wanted, "alternatives with different scopes are not imported, so the route is closed",
                "write authorize with a rule for each, and remove ip_access",
            )  # fmt: skip
            return dict(CLOSED)
        if needed:
            policies["authorize"] = {"scopes": sorted(needed)}
        return {
            key: _optional(value) if optional and key in _OPTIONAL else value
            for key, value in policies.items()
        }

    def _needs_two(self, alternative: Field, found: Sequence[Mapping[str, Any] | None]) -> bool:
        """Whether an alternative needs two schemes of one kind, of which the language would accept any. Reports it."""
        keys = [key for one in found for key in one or {}]
        if len(set(keys)) == len(keys):
            return False
        names = ", ".join(name for name, _ in alternative.items())
        self._draft.insecure(
            alternative,
            f"two schemes of one kind ({names}) that are both needed have no equal, so the route is closed",
            "write a policy in Python, and remove ip_access",
        )
        return True

    def _report_lost_place(self, field: Field, known: dict[str, Any], other: dict[str, Any]) -> None:
        """Report a key that is no longer read, because another scheme has the same kind of place."""
        for place, name in other.get("api_key", {}).items():
            if (lost := known.get("api_key", {}).get(place, name)) != name:
                self._draft.warn(field, f"keys are read from the {place} {name} only, and no longer from {lost}",
                                 "let clients use one name")  # fmt: skip

    def _policies(self, name: str, wanted: Field) -> dict[str, Any] | None:
        """Return the policies of a scheme, None if it cannot be imported."""
        if name not in self._known:
            scheme = self._schemes.get(name)
            if scheme is None:
                self._draft.insecure(
                    wanted, f"there is no scheme '{name}', so its routes are closed", "declare it"
                )
            self._known[name] = None if scheme is None else self._scheme(name, scheme)
        return self._known[name]

    def _scheme(self, name: str, scheme: Field) -> dict[str, Any] | None:
        kind = scheme.text("type").lower()
        if kind == "apikey":
            place, key = scheme.text("in"), scheme.text("name")
            if scheme.get("x-amazon-apigateway-authorizer"):
                return self._provider(name, scheme)
            return {"api_key": {place: key}}
        if kind == "basic" or (kind == "http" and scheme.text("scheme").lower() == "basic"):
            return {"basic_auth": True}
        if kind == "mutualtls":
            return {"mtls": True}
        return self._provider(name, scheme)

    def _provider(self, name: str, scheme: Field) -> dict[str, Any] | None:
        """Return the policy for tokens of an issuer, if the document says where its keys are."""
        issuer, keys = scheme.text("x-google-issuer"), scheme.text("x-google-jwks_uri")
        audiences = [one.strip() for one in scheme.text("x-google-audiences").split(",") if one.strip()]
        jwt = scheme.get("x-amazon-apigateway-authorizer", "jwtConfiguration")
        if jwt is not None:
            issuer, audiences = jwt.text("issuer"), jwt.texts("audience")
        if discovery := scheme.text("openIdConnectUrl"):
            issuer = discovery.removesuffix(_WELL_KNOWN)
        if not issuer or not split_url(keys or issuer).hostname:
            self._draft.insecure(
                scheme, f"the scheme '{name}' does not say where its keys are, so its routes are closed",
                "write a provider under identity and policies: {jwt: PROVIDER}, and remove ip_access",
            )  # fmt: skip
            return None
        if not keys:
            keys = f"{issuer.rstrip('/')}/.well-known/jwks.json"
            self._draft.warn(
                scheme,
                f"the keys are expected at {keys}",
                "write what jwks_uri of the issuer's discovery document says",
            )
        provider: dict[str, Any] = {"issuer": issuer, "jwks": {"url": keys}}
        if audiences:
            provider["audiences"] = audiences
        locations = scheme.get("x-google-jwt-locations")
        if locations is not None:
            for ours, theirs in (("from_headers", "header"), ("from_query", "query")):
                if places := [text for one in locations.elements() if (text := one.text(theirs))]:
                    provider[ours] = places
            if any(one.text("value_prefix") not in ("", "Bearer ") for one in locations.elements()):
                self._draft.warn(
                    locations, "a prefix other than 'Bearer ' has no equal", "let clients leave it out"
                )
        return {"jwt": self._draft.add("identity", name, provider)}


_OPTIONAL = frozenset({"api_key", "basic_auth", "jwt", "mtls"})


def _optional(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {**value, "optional": True}
    return (
        {"optional": True}
        if value is True
        else {"any" if isinstance(value, list) else "provider": value, "optional": True}
    )


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the policies of both. Two places of a key, or two providers, are alternatives of one policy."""
    merged = {**one, **other}
    if "jwt" in one and "jwt" in other and one["jwt"] != other["jwt"]:
        known = one["jwt"] if isinstance(one["jwt"], list) else [one["jwt"]]
        merged["jwt"] = [*known, other["jwt"]]
    if "api_key" in one and "api_key" in other:
        merged["api_key"] = {**one["api_key"], **other["api_key"]}
    return merged


def _schemes(root: Field) -> Any:
    found = root.get("components", "securitySchemes") or root.get("securityDefinitions")
    for name, one in found.items() if found is not None else ():
        yield name, referred(root, one.text("$ref")) or one


def referred(root: Field, reference: str) -> Field | None:
    """Return the object that a reference within the document leads to, None if it leads to none, or in a circle."""
    seen: set[str] = set()
    while reference.startswith("#/") and reference not in seen:
        seen.add(reference)
        names = [unquote(one).replace("~1", "/").replace("~0", "~") for one in reference[2:].split("/")]
        found = root.get(*names)
        if found is None or not isinstance(found.value, dict):
            return None
        if "$ref" not in found.value:
            return found
        reference = found.text("$ref")
    return None
