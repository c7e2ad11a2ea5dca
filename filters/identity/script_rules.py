"""The contract between Python and the identity script in Envoy: the rule of a route, and constants of both sides.

A rule is written as a Lua table into the filter context of a route. tests/filters/identity/test_script_rules.py
compares the keys that are declared here with those that identity.lua reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from filters.identity.htpasswd import SLOW
from filters.lua_literals import lua
from filters.model.identity import CONSUMER_HEADER, NAMESPACE, PLAN_HEADER

JWT_AUTHN_METADATA = "envoy.filters.http.jwt_authn"
"""The metadata namespace of verified tokens, which Envoy's jwt_authn filter writes."""
EXT_AUTHZ_METADATA = "envoy.filters.http.ext_authz"
"""The metadata namespace of the policy server's responses to lookups."""
LONGEST_CREDENTIAL = 1024
"""Bytes of a key, a cookie or a text in Base64. Longer ones match no credential."""


class TokenPlaces(TypedDict, total=False):
    """The places in which tokens of one issuer can be, by kind."""

    headers: Sequence[str]
    query: Sequence[str]
    cookies: Sequence[str]
    schemes: Sequence[str]


class IssuerPlaces(TypedDict):
    """The places of one issuer. `forward` is true if the upstream gets the token."""

    provider: str
    forward: bool
    names: TokenPlaces


class ApiKeyRule(TypedDict):
    """`api_key`: the places of the key. `elsewhere` is true if a policy server has the keys."""

    headers: Sequence[str]
    query: Sequence[str]
    cookies: Sequence[str]
    forward: bool
    elsewhere: NotRequired[bool]


class BasicAuthRule(TypedDict):
    """`basic_auth`: the lists of users. `elsewhere` is true if a policy server verifies slow hashes."""

    lists: Sequence[str]
    forward: bool
    elsewhere: NotRequired[bool]


class MtlsRule(TypedDict):
    """`mtls`: `consumers_only` rejects certificates without the name of a consumer."""

    consumers_only: bool


class JwtRule(TypedDict):
    """`jwt`: the providers.

    `every` is true if tokens of all are required. `skews` are seconds, as text, by provider.
    """

    providers: Sequence[str]
    every: bool
    places: NotRequired[Sequence[IssuerPlaces]]
    skews: NotRequired[Mapping[str, str]]
    query: NotRequired[Sequence[str]]
    cookies: NotRequired[Sequence[str]]
    keyless: NotRequired[Sequence[str]]


class OidcRule(TypedDict):
    """`oidc`: the session's cookies. `again` is the cookie that records the attempts to renew the session. `unless` are
    headers with other credentials."""

    provider: str
    key: str
    cookies: Sequence[str]
    refresh: str
    again: str
    unless: NotRequired[Sequence[str]]
    forward: NotRequired[bool]
    keyless: NotRequired[Sequence[str]]
    skews: NotRequired[Mapping[str, str]]
    domain: NotRequired[str]


class ScriptRule(TypedDict):
    """The rule of a route. `methods` are tried in their order. `every` is true if all of them are required.

    `limits` is true if the lookup of the API key decides limits too. `counted` are the claims that limits count by.
    """

    methods: Sequence[str]
    every: bool
    optional: bool
    challenges: Sequence[str]
    limits: NotRequired[bool]
    counted: NotRequired[Mapping[str, str]]
    oidc: NotRequired[OidcRule]
    mtls: NotRequired[MtlsRule]
    jwt: NotRequired[JwtRule]
    api_key: NotRequired[ApiKeyRule]
    basic_auth: NotRequired[BasicAuthRule]


CONSTANTS: Mapping[str, str | int] = {
    "NAMESPACE": NAMESPACE,
    "TOKENS": JWT_AUTHN_METADATA,
    "POLICY_SERVER": EXT_AUTHZ_METADATA,
    "LONGEST": LONGEST_CREDENTIAL,
    "SLOW": SLOW,
    "CONSUMER_HEADER": CONSUMER_HEADER,
    "PLAN_HEADER": PLAN_HEADER,
}
"""Constants of the script, by name."""


def preamble() -> str:
    """The constants as Lua."""
    return "".join(f"local {name} = {lua(value)}\n" for name, value in CONSTANTS.items())
