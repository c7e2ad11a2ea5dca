"""The identity script: generated Lua in Envoy that maps credentials to one consumer and plan.

It is delivered by ECDS, so a new key does not change the listener. The tables of the script are texts that it parses
when it is loaded. Each is one constant for any number of consumers, because LuaJIT limits the constants of a function
to 65,536. The rule of a route is part of the route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from envoy.extensions.filters.http.lua.v3 import lua_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from filters import lua_literals
from filters.identity import script_rules
from filters.identity.htpasswd import has_slow
from filters.identity.script_rules import JwtRule, OidcRule, ScriptRule, TokenPlaces
from filters.lua_literals import lua
from filters.model import claims
from filters.model.identity import Consumer, Provider, key_set_of, last_second
from filters.model.methods import keys_in_policy_server, methods
from filters.policy import Context, HttpFilter, RoutePart
from filters.rate_limit.effective import effective_limits

FILTER = "xds.identity"
OWN_LIST = "consumers"
"""The list of names and passwords of the gateway's consumers."""
_CODE = "\n".join(
    [
        script_rules.preamble(),
        lua_literals.script({}, "sha.lua", "identity/identity.lua"),
    ]
)
_UNSAFE = re.compile(rb"[^A-Za-z0-9 ._:/@=+,$-]")


Lists = Mapping[str, Iterable[tuple[str, str]]]
"""Names and hashes (``sha1:…``, ``sha256:…``, or ``bcrypt:`` for hashes of the policy server), by list."""


def identity_part(context: Context, *, limits: bool = False) -> RoutePart:
    """The configuration of a route with any way to authenticate.

    `limits` is true if the policy server decides limits when it looks up a key.
    """
    # One text and not a struct of many fields, because Envoy copies it for every request. The script caches the result.
    filter_context = struct_pb2.Struct()
    filter_context.update({"rule": lua(script_rule(context, limits=limits))})
    return RoutePart(filter_configs={FILTER: lua_pb2.LuaPerRoute(filter_context=filter_context)})


def script_rule(context: Context, *, limits: bool) -> ScriptRule:
    """The rule of a route for the script."""
    found = methods(context.effective)
    rule = ScriptRule(
        methods=list(found),
        every=context.effective.get("authentication") == "all",
        optional=any(one.optional for one in found.values()),
        challenges=list(dict.fromkeys(one.challenge() for one in found.values())),
    )
    if limits:
        rule["limits"] = True
    counted = [name for name in effective_limits(context).inputs if name.startswith("claim:")]
    if counted:
        rule["counted"] = {name: _cell(claims.paths(name.removeprefix("claim:"))) for name in counted}
    if "oidc" in found:
        rule["oidc"] = _oidc_rule(context)
    if "mtls" in found:
        rule["mtls"] = context.effective["mtls"].rule()
    if "jwt" in found:
        rule["jwt"] = _jwt_rule(context)
    if "api_key" in found:
        rule["api_key"] = context.effective["api_key"].rule()
        if keys_in_policy_server(context.consumers, context.subscribers):
            rule["api_key"]["elsewhere"] = True
    if "basic_auth" in found:
        rule["basic_auth"] = context.effective["basic_auth"].rule()
        if has_slow(context.effective["basic_auth"].htpasswd, context.contents):
            rule["basic_auth"]["elsewhere"] = True
    return rule


def _jwt_rule(context: Context) -> JwtRule:
    """The rule of `jwt`, with all places of each issuer's tokens."""
    rule: JwtRule = context.effective["jwt"].rule()
    names = sorted(rule["providers"])
    providers = [context.providers[name] for name in names]
    rule["places"] = [
        {"provider": name, "forward": one.forward, "names": _places(one)}
        for name, one in zip(names, providers, strict=True)
    ]
    rule["skews"] = _skews(names, context)
    # A request could contain a token twice in these places.
    if query := sorted({name for one in providers for name in one.from_query}):
        rule["query"] = query
    if cookies := sorted({name for one in providers for name in one.from_cookies}):
        rule["cookies"] = cookies
    if without_keys := keyless(names, context):
        rule["keyless"] = without_keys
    return rule


def _skews(names: Iterable[str], context: Context) -> Mapping[str, str]:
    """Seconds of tolerance by issuer, if Envoy cannot apply it: Envoy has only whole seconds, and takes 0 for 60."""
    found = {name: context.providers[name].clock_skew.total_seconds() for name in names}
    return {name: repr(skew) for name, skew in found.items() if skew < 1 or skew != int(skew)}


def _places(provider: Provider) -> TokenPlaces:
    """The places of an issuer's tokens by their kind."""
    headers = [name.lower() for name in provider.token_headers]
    places = TokenPlaces()
    if others := [name for name in headers if name != "authorization"]:
        places["headers"] = others
    if provider.from_query:
        places["query"] = provider.from_query
    if provider.from_cookies:
        places["cookies"] = provider.from_cookies
    if "authorization" in headers:
        places["schemes"] = ["bearer"]
    return places


def keyless(names: Iterable[str], context: Context) -> list[str]:
    """The providers whose key sets have no usable key."""
    found = {name: key_set_of(context.providers[name], context.contents) for name in names}
    return sorted(name for name, keys in found.items() if keys is not None and not keys.keys)


def _oidc_rule(context: Context) -> OidcRule:
    rule: OidcRule = context.effective["oidc"].rule()
    name = rule["provider"]
    client = context.providers[name].oidc
    rule["unless"] = sorted(set(other_headers(context)))
    rule["forward"] = client is not None and client.forward_access_token
    rule["keyless"] = keyless([name], context)
    rule["skews"] = _skews([name], context)
    if client is not None and client.cookie_domain:
        rule["domain"] = client.cookie_domain
    return rule


def other_headers(context: Context) -> Iterator[str]:
    """Headers with a credential of another way than `oidc`. A request with such a header is not sent to the login."""
    if context.effective.get("authentication") == "all":
        return
    if "basic_auth" in context.effective:
        yield "authorization"
    if "api_key" in context.effective:
        yield from context.effective["api_key"].rule()["headers"]
    if "jwt" in context.effective:
        for name in context.effective["jwt"].providers:
            yield from (one.lower() for one in context.providers[name].token_headers)


def identity_filter(context: Context, lists: Lists) -> HttpFilter:
    """The filter of the script. `lists` are users in addition to those of the consumers."""
    config = lua_pb2.Lua(clear_route_cache=wrappers_pb2.BoolValue(value=False))
    series = "" if context.series_until is None else f"local SERIES_UNTIL = {lua(context.series_until)}\n"
    text = series + script(context.consumers, lists, context.providers, subscribers=context.subscribers)
    config.default_source_code.inline_string = text
    return HttpFilter(name=FILTER, config=config, dynamic=True)


def script(
    consumers: Mapping[str, Consumer],
    lists: Lists,
    providers: Mapping[str, Provider],
    *,
    subscribers: bool = False,
) -> str:
    """The whole script: tables, hashes, code. With `subscribers`, a policy server has all keys."""
    consumers = _here(consumers, lists, subscribers)
    tables = dict(_consumer_tables(consumers))
    numbers = _numbers(consumers) if lists else {}
    tables["USERS"] += _rows(_listed(lists, numbers))
    tables["HEADERS"] = _rows(
        (name, claims.paths(claim), header.lower())
        for name, provider in sorted(providers.items())
        for claim, header in sorted(provider.claim_headers.items())
    )
    return "".join(f"{name} = [==[\n{rows}]==]\n" for name, rows in tables.items()) + _CODE


def _here(consumers: Mapping[str, Consumer], lists: Lists, subscribers: bool) -> Mapping[str, Consumer]:
    """The consumers that the script needs. If a policy server has the keys, consumers with only keys are left out."""
    if not keys_in_policy_server(consumers, subscribers):
        return consumers
    listed = {name for users in lists.values() for name, _ in users}
    return {
        name: replace(one, api_keys=())
        for name, one in consumers.items()
        if one.jwt or one.basic_auth or one.certificates or name in listed
    }


def _consumer_tables(consumers: Mapping[str, Consumer]) -> Mapping[str, str]:
    """The tables that grow with the consumers.

    The last ones are cached, because building them takes most of a reload.
    """
    if _kept and _kept[0][0] is consumers:
        return _kept[0][1]
    numbers = _numbers(consumers)
    rows: dict[str, Iterable[Row]] = {
        "CONSUMERS": ((name, consumers[name].plan or "") for name in numbers),
        "KEYS": _keys(consumers, numbers),
        "USERS": _users(consumers, numbers),
        "CERTIFICATES": (
            (san, number) for name, number in numbers.items() for san in consumers[name].certificates
        ),
        "CLAIMS": (
            (one.provider, claims.paths(one.claim), one.value, number)
            for name, number in numbers.items()
            for one in consumers[name].tokens
        ),
    }
    tables = {name: _rows(one) for name, one in rows.items()}
    _kept[:] = [(consumers, tables)]
    return tables


_kept: list[tuple[Mapping[str, Consumer], Mapping[str, str]]] = []
"""At most one entry, compared by identity: the sections of a gateway are the same objects until they change."""


def _numbers(consumers: Mapping[str, Consumer]) -> dict[str, int]:
    return {name: number for number, name in enumerate(sorted(consumers), 1)}


Cell = str | int | tuple[claims.ClaimPath, ...]
Row = tuple[Cell, ...]


def _keys(consumers: Mapping[str, Consumer], numbers: Mapping[str, int]) -> Iterator[Row]:
    for name, number in numbers.items():
        for key in consumers[name].api_keys:
            yield (key.sha256, number, "" if key.not_after is None else last_second(key.not_after))


def _users(consumers: Mapping[str, Consumer], numbers: Mapping[str, int]) -> Iterator[Row]:
    for name, number in numbers.items():
        for one in consumers[name].passwords:
            yield (OWN_LIST, one.username, f"sha256:{one.sha256}", number)


def _listed(lists: Lists, numbers: Mapping[str, int]) -> Iterator[Row]:
    for list_name, users in sorted(lists.items()):
        for name, digest in users:
            yield (list_name, name, digest, numbers.get(name, ""))


def _rows(rows: Iterable[Row]) -> str:
    return "".join(
        "\t".join(_cell(row[at]) if at < len(row) else "" for at in range(4)) + "\n" for row in rows
    )


def _cell(value: Cell) -> str:
    """A text, a number, or paths of claims. Semicolons separate the paths, bars the names of a path."""
    if isinstance(value, tuple):
        return ";".join("|".join(map(_escaped, path)) for path in value)
    return _escaped(value)


def _escaped(value: str | int) -> str:
    """The text without separators, and without characters that would end the table's constant."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], str(value).encode()).decode()
