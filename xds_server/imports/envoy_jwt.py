"""Envoy's filter for JSON Web Tokens (jwt_authn): its providers, and which of its rules a route has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from xds_server.imports.draft import Draft
from xds_server.imports.envoy_matches import Match, Unsupported
from xds_server.imports.envoy_values import milliseconds
from xds_server.imports.source import Field


class Tokens:
    """Providers as issuers under `identity`, each added when a route needs it."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._known: dict[str, str] = {}

    def policy(self, settings: Field, own: Field | None, match: Match, before: Sequence[Match]) -> Any:
        """Return `jwt` of a route, None if it needs no token. Raises Unsupported.

        `before` are the conditions of earlier routes, which have the requests that they cover.
        """
        settings.read("rules"), settings.read("requirement_map")
        if name := own.text("requirement_name") if own is not None else "":
            return self._required(settings, settings.get("requirement_map", name))
        for rule in settings.elements("rules"):
            theirs = Match.of(rule.get("match"), ())
            if any(one.covers(theirs) for one in before):
                continue
            covers = self._covers(rule, theirs, match)
            if covers is None:
                raise Unsupported("a rule for tokens has some of the requests of this route")
            if covers:
                required = rule.get("requires")
                if name := rule.text("requirement_name"):
                    required = settings.get("requirement_map", name)
                return self._required(settings, required) if required is not None else None
        return None

    @staticmethod
    def _covers(rule: Field, theirs: Match, ours: Match) -> bool | None:
        """Whether a rule has all requests of a route, or none; None if it may have some."""
        plain = not theirs.conditions.keys() & {"methods", "headers", "query"}
        prefix = rule.text("match", "prefix")
        if not theirs.is_regex and prefix and not ours.is_regex:
            if ours.path.startswith(prefix.rstrip("/") if ours.is_prefix else prefix):
                return True if plain else None
            may = ours.is_prefix and prefix.startswith(ours.path)
            return None if may else False
        if theirs.is_regex and not ours.is_regex and not ours.is_prefix:
            try:
                found = re.fullmatch(theirs.path, ours.path) is not None
            except re.error:
                return None
            return (True if plain else None) if found else False
        if theirs.path_covers(ours):
            return True if plain else None
        return None if theirs.overlaps(ours) else False

    def _required(self, settings: Field, field: Field | None) -> Any:
        """Return `jwt` for a requirement. Raises Unsupported."""
        if field is None:
            raise Unsupported("the requirement for tokens is not in these files")
        either = field.elements("requires_any", "requirements") or [field]
        optional = [one for one in either if one.get("allow_missing") is not None]
        names = [one.text("provider_name") for one in either if one not in optional]
        known = [found for one in names if (found := self._provider(settings, one)) is not None]
        if not names or len(known) < len(names):
            raise Unsupported("a requirement for tokens has no equal")
        if optional:
            return {"any": known, "optional": True}
        return known[0] if len(known) == 1 else known

    def _provider(self, settings: Field, name: str) -> str | None:
        provider = settings.get("providers", name)
        if provider is None:
            return None
        if name not in self._known:
            self._known[name] = self._draft.add("identity", name, self._issuer(provider))
        return self._known[name]

    def _issuer(self, field: Field) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if issuer := field.text("issuer"):
            value["issuer"] = issuer
        if audiences := field.texts("audiences"):
            value["audiences"] = audiences
        value["jwks"] = self._keys(field)
        headers = {
            one.text("claim_name"): one.text("header_name") for one in field.elements("claim_to_headers")
        }
        if headers:
            value["claim_headers"] = headers
        for theirs, ours in (("from_params", "from_query"), ("from_cookies", "from_cookies")):
            if places := field.texts(theirs):
                value[ours] = places
        if places := [one.text("name") for one in field.elements("from_headers")]:
            value["from_headers"] = places
            for one in field.elements("from_headers"):
                if one.text("value_prefix").strip() not in ("", "Bearer"):
                    self._draft.warn(
                        one, "the text before a token is 'Bearer ' or nothing", "see from_headers"
                    )
        if not field.true("forward"):
            value["forward"] = False
        if field.true("require_expiration"):
            value["require_expiration"] = True
        if seconds := field.number("clock_skew_seconds"):
            value["clock_skew"] = f"{int(seconds)}s"
        return value

    def _keys(self, field: Field) -> dict[str, Any]:
        if uri := field.text("remote_jwks", "http_uri", "uri"):
            field.read("remote_jwks", "http_uri", "cluster")
            timeout = milliseconds(field.get("remote_jwks", "http_uri", "timeout"))
            cached = milliseconds(field.get("remote_jwks", "cache_duration"))
            return {
                "url": uri,
                **({"timeout": timeout} if timeout else {}),
                **({"cache_for": cached} if cached else {}),
            }
        if file := field.text("local_jwks", "filename"):
            return {"file": file}
        name = f"jwks/{field.path[-1]}.json"
        self._draft.files[name] = field.text("local_jwks", "inline_string", default="{}").encode()
        return {"file": name}
