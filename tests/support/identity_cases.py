"""Who may call: one table of requests and answers, for whatever enforces it."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.support import tokens

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and what must come of it.

    `headers` makes the request's headers when the case runs, as tokens age. `reason` is the problem's, None
    where the upstream answers. `upstream` are headers that the upstream must see, None for one that it must not.
    """

    name: str
    path: str
    status: int
    method: str = "GET"
    headers: Callable[[], Headers] = tuple
    reason: str | None = None
    challenge: str | None = None
    upstream: Mapping[str, str | None] = field(default_factory=dict)


def bearer(make: Callable[[], str]) -> Callable[[], Headers]:
    """A token as a client sends it (RFC 6750 section 2.1)."""
    return lambda: (("authorization", f"Bearer {make()}"),)


def _good(name: str, make: Callable[[], str], path: str = "/corp", **upstream: str | None) -> Case:
    seen = {key.replace("_", "-"): value for key, value in upstream.items()}
    return Case(name=name, path=path, status=200, headers=bearer(make), upstream=seen)


def _bad(name: str, reason: str, make: Callable[[], str], path: str = "/corp", status: int = 401) -> Case:
    challenge = 'error="invalid_token"'
    return Case(name=name, path=path, status=status, headers=bearer(make), reason=reason, challenge=challenge)


def _missing(name: str, path: str = "/corp", headers: Callable[[], Headers] = tuple) -> Case:
    return Case(
        name=name, path=path, status=401, headers=headers, reason="jwt_missing", challenge="Bearer realm="
    )


PROVIDERS = f"""
identity:
  corp:
    issuer: {tokens.ISSUER}
    audiences: [shop]
    jwks: {{file: jwks.json}}
    claim_headers:
      sub: x-user-id
      realm.level: x-level
      realm.roles: x-roles
      kubernetes.io.namespace: x-namespace
      access.shop\\.web.tier: x-tier
  partner:
    issuer: https://partner.test
    jwks: {{file: jwks.json}}
    from_headers: [x-token]
    from_query: [token]
    from_cookies: [session]
    forward: false
    clock_skew: 0s
    require_expiration: true
  fraction:
    issuer: https://fraction.test
    jwks: {{file: jwks.json}}
    clock_skew: 90500ms
"""

JWT_ROUTES = """
  open: {path: /open, upstream: echo}
  corp: {path: /corp, upstream: echo, policies: {jwt: corp}}
  optional: {path: /optional, upstream: echo, policies: {jwt: {provider: corp, optional: true}}}
  partner: {path: /partner, upstream: echo, policies: {jwt: partner}}
  any: {path: /any, upstream: echo, policies: {jwt: [corp, partner]}}
  all: {path: /all, upstream: echo, policies: {jwt: {all: [corp, partner]}}}
  admin: {path: /admin/*, upstream: echo, policies: {jwt: corp}}
  public: {path: /public/*, upstream: echo}
  fraction: {path: /fraction, upstream: echo, policies: {jwt: fraction}}
"""


def partner(**more: object) -> str:
    """A token of the second provider."""
    return tokens.token(iss="https://partner.test", **more)


def _fraction(**more: object) -> str:
    return tokens.token(iss="https://fraction.test", **more)


JWT_CASES = (
    Case(name="an open route needs nothing", path="/open", status=200),
    _missing("no token"),
    _missing("another scheme", headers=lambda: (("authorization", "Basic YTpi"),)),
    _missing("a token without its scheme", headers=lambda: (("authorization", tokens.token()),)),
    _missing("a token in the query where only the header counts", path="/corp?access_token=x"),
    *(_good(alg, lambda alg=alg: tokens.token(alg), x_user_id="ann") for alg in tokens.KEYS),
    *(
        Case(
            name=f"the scheme as {scheme!r}",
            path="/corp",
            status=200,
            headers=lambda scheme=scheme: (("authorization", f"{scheme} {tokens.token()}"),),
        )
        for scheme in ("bearer", "BEARER", "bEARER", "BearER", "Bearer ")
    ),
    _missing(
        "a scheme that begins like it", headers=lambda: (("authorization", f"Bearers {tokens.token()}"),)
    ),
    _good("a header with more members", lambda: tokens.with_header(typ="at+jwt", x="y")),
    *(
        _bad(
            f"a critical extension: {crit}",
            "jwt_unsupported_extension",
            lambda crit=crit: tokens.with_header(crit=crit),
        )
        for crit in (["b64"], ["exp"], [], "x", None, {}, 0)
    ),
    *(
        _bad(
            f"a critical extension that is null, behind {len(pad)} characters",
            "jwt_unsupported_extension",
            lambda pad=pad: tokens.with_header(x=pad, crit=None),
        )
        for pad in ("", "y", "yy")
    ),
    _good(
        "a header that only speaks of crit",
        lambda: tokens.with_header(x="crit", y='"crit": null', critical=None),
    ),
    _good("a nested claim as a header", lambda: tokens.token(realm={"level": 3}), x_level="3"),
    _good(
        "a list as a header",
        lambda: tokens.token(realm={"roles": ["a", "b"]}),
        x_roles="a,b",
    ),
    _good(
        "a nested number as a header",
        lambda: tokens.token(realm={"level": 2**53 - 1}),
        x_level=str(2**53 - 1),
    ),
    _good(
        "a number that Envoy rounds, so that two callers would be the same",
        lambda: tokens.token(realm={"level": 2**53 + 1}),
        x_level=None,
    ),
    _good(
        "an element of a list that would be two",
        lambda: tokens.token(realm={"roles": ["reader,admin"]}),
        x_roles=None,
    ),
    _good(
        "a claim under a name with a dot as a header",
        lambda: tokens.token(**{"kubernetes.io": {"namespace": "shop"}}),
        x_namespace="shop",
    ),
    _good(
        "a claim under a nested name with a dot as a header",
        lambda: tokens.token(access={"shop.web": {"tier": "gold"}, "shop": {"web": {"tier": "x"}}}),
        x_tier="gold",
    ),
    _good(
        "a name with a dot before nested names",
        lambda: tokens.token(**{"realm.level": "a", "realm": {"level": "b"}}),
        x_level="a",
    ),
    _good("a text with a comma", lambda: tokens.token(sub="Doe, John"), x_user_id="Doe, John"),
    _good(
        "a claim that would break the line of its header",
        lambda: tokens.token(sub="a\r\nx-consumer: root"),
        x_user_id=None,
        x_consumer=None,
    ),
    _good(
        "a claim that is a mapping is no header",
        lambda: tokens.token(realm={"level": {"a": 1}}),
        x_level=None,
    ),
    _good("several audiences", lambda: tokens.token(aud=["x", "shop"])),
    _good("expired within the clock skew", lambda: tokens.token(exp=tokens.now() - 30)),
    _good("not yet valid within the clock skew", lambda: tokens.token(nbf=tokens.now() + 30)),
    _good("a large token", lambda: tokens.token(pad="x" * 20_000)),
    _bad("expired", "jwt_expired", lambda: tokens.token(exp=tokens.now() - 90)),
    _bad("not yet valid", "jwt_not_yet_valid", lambda: tokens.token(nbf=tokens.now() + 90)),
    _bad("another audience", "jwt_wrong_audience", lambda: tokens.token(aud="other")),
    _bad("no audience", "jwt_wrong_audience", lambda: tokens.token(aud=None)),
    _bad("another issuer", "jwt_wrong_issuer", lambda: tokens.token(iss="https://evil.test")),
    _bad("no issuer", "jwt_wrong_issuer", lambda: tokens.token(iss=None)),
    _bad("algorithm none", "jwt_malformed", tokens.unsigned),
    _bad("algorithm none with a signature", "jwt_unsupported_algorithm", lambda: tokens.unsigned() + "AAAA"),
    _bad("HS256 with the public key", "jwt_invalid_signature", tokens.forged_with_public_key),
    _bad(
        "a stranger's key under a known kid",
        "jwt_invalid_signature",
        lambda: tokens.token(key=tokens.STRANGER),
    ),
    _bad("an unknown kid", "jwt_unknown_key", lambda: tokens.token(kid="other")),
    _bad("a changed payload", "jwt_invalid_signature", lambda: tokens.tampered(sub="root")),
    _bad("garbage", "jwt_malformed", lambda: "x"),
    _bad("three parts of garbage", "jwt_malformed", lambda: "a.b.c"),
    _bad("two tokens in one header", "jwt_malformed", lambda: f"{tokens.token()}, Bearer {tokens.token()}"),
    Case(
        name="two authorization headers",
        path="/corp",
        status=401,
        headers=lambda: (("authorization", f"Bearer {tokens.token()}"),) * 2,
        reason="jwt_malformed",
        challenge="Bearer realm=",
    ),
    _bad("an oversized token", "headers_too_large", lambda: "x" * 70_000, status=431),
    Case(name="optional, none", path="/optional", status=200),
    _good("optional, good", tokens.token, path="/optional", x_user_id="ann"),
    _bad("optional, bad", "jwt_expired", lambda: tokens.token(exp=1), path="/optional"),
    _missing("the header is not where this provider looks", "/partner", bearer(partner)),
    Case(
        name="in a header of its own, and removed from it",
        path="/partner",
        status=200,
        headers=lambda: (("x-token", partner()),),
        upstream={"x-token": None},
    ),
    Case(
        name="in a cookie, and removed from it",
        path="/partner",
        status=200,
        headers=lambda: (("cookie", f"a=b; session={partner()}; c=d"),),
        upstream={"cookie": "a=b; c=d"},
    ),
    *(
        Case(
            name=f"beside another one in {place}, of which the upstream might read the other",
            path=f"/partner{query}",
            status=401,
            headers=lambda cookies=cookies: tuple(("cookie", one.format(partner())) for one in cookies),
            reason="jwt_malformed",
            challenge="Bearer realm=",
        )
        for place, query, cookies in (
            ("cookies", "", ("session={0}; session=x.y.z",)),
            ("cookies, after it", "", ("session={0}; a=b; session={0}",)),
            ("two headers of cookies", "", ("session={0}", "session=x.y.z")),
        )
    ),
    Case(
        name="an expiry that this provider requires",
        path="/partner",
        status=401,
        headers=lambda: (("x-token", partner(exp=None)),),
        reason="jwt_invalid_signature",
        challenge="Bearer realm=",
    ),
    Case(
        name="a good one beside a bad one elsewhere",
        path="/partner?token=x.y.z",
        status=401,
        headers=lambda: (("x-token", partner()),),
        reason="jwt_malformed",
        challenge="Bearer realm=",
    ),
    _missing("any of two, none", "/any"),
    _good("any of two, the first", tokens.token, path="/any"),
    Case(
        name="an instant after the end, without tolerance",
        path="/partner",
        status=401,
        headers=lambda: (("x-token", partner(exp=time.time() - 0.01)),),
        reason="jwt_expired",
        challenge='error="invalid_token"',
    ),
    _good("within a tolerance of a fraction", lambda: _fraction(exp=time.time() - 45), path="/fraction"),
    _good(
        "before, within a tolerance of a fraction",
        lambda: _fraction(nbf=time.time() + 90.4),
        path="/fraction",
    ),
    _bad(
        "beyond a tolerance of a fraction",
        "jwt_expired",
        lambda: _fraction(exp=time.time() - 90.6),
        path="/fraction",
    ),
    _bad(
        "before a tolerance", "jwt_not_yet_valid", lambda: _fraction(nbf=time.time() + 300), path="/fraction"
    ),
    Case(name="any of two, the second", path="/any", status=200, headers=lambda: (("x-token", partner()),)),
    _bad("any of two, a bad one", "jwt_expired", lambda: tokens.token(exp=1), path="/any"),
    _missing("all of two, one is missing", "/all", bearer(tokens.token)),
    Case(
        name="all of two",
        path="/all",
        status=200,
        headers=lambda: (*bearer(tokens.token)(), ("x-token", partner())),
    ),
    _missing("below the prefix", "/admin/users"),
    _missing("out of a public prefix by dots", "/public/../admin/users"),
    _missing("out of a public prefix by escaped dots", "/public/%2e%2e/admin/users"),
    _missing("with a doubled slash", "//admin/users"),
    _missing("with a doubled slash inside", "/admin//users"),
    _missing("with a path parameter below the prefix", "/admin/;x/users"),
    Case(
        name="with a path parameter beside the prefix", path="/admin;x/users", status=404, reason="not_found"
    ),
    Case(name="in another case", path="/ADMIN/users", status=404, reason="not_found"),
    Case(name="with an escaped slash", path="/public/..%2fadmin", status=307),
)
"""For a gateway of PROVIDERS and JWT_ROUTES."""


def sha256(secret: str) -> str:
    """A secret as it stands in the YAML."""
    return hashlib.sha256(secret.encode()).hexdigest()


ACME, ACME_NEXT, ACME_OLD = "acme-key-1", "acme-key-2", "acme-key-0"
UNICODE = "schlüssel-☃"
CONSUMERS = f"""
plans: {{pro: {{}}, free: {{}}}}
consumers:
  acme:
    plan: pro
    api_keys:
      - {{sha256: {sha256(ACME)}}}
      - {{sha256: {sha256(ACME_NEXT)}, not_after: 2999-12-31}}
      - {{sha256: {sha256(ACME_OLD)}, not_after: 2020-01-31}}
    jwt: {{provider: corp, claim: azp, value: acme-app}}
    basic_auth: {{username: acme, sha256: {sha256("acme:password")}}}
    certificates: ["spiffe://test/acme"]
  globex:
    plan: free
    api_keys: [{{sha256: {sha256(UNICODE)}}}]
    jwt:
      - {{provider: corp, claim: realm.tenants, value: globex}}
      - {{provider: corp, claim: realm.tenants, value: "9007199254740992"}}
      - {{provider: partner, claim: "https://claims.test/tenant", value: "7"}}
      - {{provider: corp, claim: kubernetes.io.namespace, value: globex}}
    certificates: [globex.test]
  initech: {{api_keys: [{{sha256: {sha256("initech-key")}}}]}}
  webmaster: {{plan: free}}
"""
HTPASSWD = """# two users, one of whom is a consumer
webmaster:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=
guest:{SHA}XEzeK5NRKkyTE3BUtNU0fHSrxkY=
"""
"""Passwords admin and guest-password."""
HTPASSWD_SLOW = """# the same users, their passwords hashed slowly, in each form that bcrypt has had
webmaster:$2y$05$cU9sthheTzDKIaFTQgTXMOtowIy9m714uufRsK86nH4VkFTJBYAhe
guest:$2b$04$dSWXrEdqrN3dl1MrEyZpBuAjL7wa4wHs14O3g5ZXjWsOSCSSlU8k2
long:$2a$04$kIWHFCDiA/cXEYkLgVHdcuus44n/errDof2GZUdDTc1w4/BTpsy6m
schlüssel:$2y$04$clEYspGrKtXSo5FHveonB.J7oN1mtjOn.x9.iCTU7tDM86qv09qvq
quick:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=
"""
"""The same and of: 72 times x, ☃:☃, and admin, the only one for which Envoy needs nobody."""

CREDENTIAL_ROUTES = """
  open: {path: /open, upstream: echo}
  corp: {path: /corp, upstream: echo, policies: {jwt: corp}}
  partner: {path: /partner, upstream: echo, policies: {jwt: partner}}
  key: {path: /key, upstream: echo, policies: {api_key: true}}
  key-places:
    path: /key-places
    upstream: echo
    policies: {api_key: {header: x-key, query: api_key, cookie: key}}
  key-forward: {path: /key-forward, upstream: echo, policies: {api_key: {forward: true}}}
  key-optional: {path: /key-optional, upstream: echo, policies: {api_key: {optional: true}}}
  basic: {path: /basic, upstream: echo, policies: {basic_auth: {realm: Shop}}}
  file: {path: /file, upstream: echo, policies: {basic_auth: {htpasswd: {file: htpasswd}, forward: true}}}
  any: {path: /any, upstream: echo, policies: {jwt: [corp, partner], api_key: true, basic_auth: true}}
  both: {path: /both, upstream: echo, policies: {jwt: corp, api_key: true, authentication: all}}
"""


def key(value: str, header: str = "x-api-key") -> Callable[[], Headers]:
    """An API key as a client sends it."""
    return lambda: ((header, value),)


def basic(name: str, password: str) -> Callable[[], Headers]:
    """A name and a password as a client sends them (RFC 7617)."""
    encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
    return lambda: (("authorization", f"Basic {encoded}"),)


NOBODY: Mapping[str, str | None] = {"x-consumer": None, "x-consumer-plan": None}
IS_ACME = {"x-consumer": "acme", "x-consumer-plan": "pro"}
IS_GLOBEX = {"x-consumer": "globex", "x-consumer-plan": "free"}


def _pass(
    name: str, path: str, headers: Callable[[], Headers] = tuple, upstream: Mapping[str, str | None] = NOBODY
) -> Case:
    return Case(name=name, path=path, status=200, headers=headers, upstream=upstream)


def _refuse(
    name: str, path: str, reason: str, headers: Callable[[], Headers] = tuple, challenge: str = "ApiKey"
) -> Case:
    return Case(name=name, path=path, status=401, reason=reason, headers=headers, challenge=challenge)


def _spoofed(*names: str) -> Callable[[], Headers]:
    return lambda: tuple((name, "root") for name in names)


SPOOFED = (
    "X-Consumer",
    "x-CONSUMER-plan",
    "x_consumer",
    "X_Consumer-Plan",
    "x-consumer_plan",
    "x-user-id",
    "X_USER_ID",
)
GONE: Mapping[str, str | None] = {**{name.lower(): None for name in SPOOFED}}

CREDENTIAL_CASES = (
    _pass("an open route removes what says who calls", "/open", _spoofed(*SPOOFED), GONE),
    _pass("a token without a consumer", "/corp", bearer(tokens.token), {**NOBODY, "x-user-id": "ann"}),
    _pass(
        "a token beside headers that say somebody else",
        "/corp",
        lambda: (*_spoofed(*SPOOFED)(), *bearer(lambda: tokens.token(azp="acme-app"))()),
        {**GONE, **IS_ACME, "x-user-id": "ann"},
    ),
    _pass("a claim names the consumer", "/corp", bearer(lambda: tokens.token(azp="acme-app")), IS_ACME),
    _pass("a claim of another value", "/corp", bearer(lambda: tokens.token(azp="acme-app2"))),
    _pass(
        "an element of a nested list names the consumer",
        "/corp",
        bearer(lambda: tokens.token(realm={"tenants": ["x", "globex"]})),
        IS_GLOBEX,
    ),
    _pass(
        "a claim whose name has dots, and whose value is a number",
        "/partner",
        lambda: (("x-token", partner(**{"https://claims.test/tenant": 7})),),
        IS_GLOBEX,
    ),
    _pass(
        "a claim under a name with a dot names the consumer",
        "/corp",
        bearer(lambda: tokens.token(**{"kubernetes.io": {"namespace": "globex"}})),
        IS_GLOBEX,
    ),
    _pass(
        "a number that Envoy rounds is nobody's",
        "/corp",
        bearer(lambda: tokens.token(realm={"tenants": [2**53 + 1]})),
    ),
    _pass("a key", "/key", key(ACME), {**IS_ACME, "x-api-key": None}),
    _pass("the next key of a rotation", "/key", key(ACME_NEXT), IS_ACME),
    _pass("a consumer without a plan", "/key", key("initech-key"), {"x-consumer": "initech", "x-consumer-plan": None}),
    _pass("a key beside headers that say somebody else", "/key", lambda: (*_spoofed(*SPOOFED)(), ("x-api-key", ACME)), {**GONE, **IS_ACME}),
    _pass("a key in letters beyond ASCII", "/key", key(UNICODE), IS_GLOBEX),
    _pass("a key that is forwarded", "/key-forward", key(ACME), {**IS_ACME, "x-api-key": ACME}),
    _pass("a key in a header of its own", "/key-places", key(ACME, "x-key"), {**IS_ACME, "x-key": None}),
    _pass("a key in the query", f"/key-places?api_key={ACME}", upstream=IS_ACME),
    _pass("an escaped key in the query", "/key-places?a=1&api_key=acme%2Dkey%2d1", upstream=IS_ACME),
    _pass("a key in a cookie", "/key-places", key(f"a=b; key={ACME}; c=d", "cookie"), {**IS_ACME, "cookie": "a=b; c=d"}),
    _pass("a key in the only cookie", "/key-places", key(f"key={ACME}", "cookie"), {**IS_ACME, "cookie": None}),
    _pass("an optional key, none", "/key-optional"),
    _pass("an optional key, good", "/key-optional", key(ACME), IS_ACME),
    _refuse("an optional key, wrong", "/key-optional", "api_key_unknown", key("x")),
    _refuse("no key", "/key", "api_key_missing"),
    _refuse("an empty key", "/key", "api_key_missing", key("")),
    _refuse("a wrong key", "/key", "api_key_unknown", key("acme-key-3")),
    _refuse("the hash instead of the key", "/key", "api_key_unknown", key(sha256(ACME))),
    _refuse("a key with a space behind a letter", "/key", "api_key_unknown", key(f"{ACME} x")),
    _refuse("an expired key", "/key", "api_key_expired", key(ACME_OLD)),
    _refuse("a key of 20,000 letters", "/key", "api_key_unknown", key("x" * 20_000)),
    _refuse("two keys", "/key", "api_key_malformed", lambda: (("x-api-key", ACME), ("x-api-key", ACME))),
    _refuse("a key where it is not looked for", f"/key?x-api-key={ACME}", "api_key_missing"),
    _refuse("two keys in the query", f"/key-places?api_key={ACME}&api_key=x", "api_key_malformed"),
    _refuse("a control character in the query", "/key-places?api_key=%00%0a", "api_key_unknown"),
    _refuse("two keys in cookies", "/key-places", "api_key_malformed", key(f"key=x; key={ACME}", "cookie")),
    _refuse("a token where a key is needed", "/key", "api_key_missing", bearer(tokens.token)),
    _pass("a name and a password", "/basic", basic("acme", "acme:password"), {**IS_ACME, "authorization": None}),
    _refuse("no password", "/basic", "basic_auth_missing", challenge='Basic realm="Shop"'),
    _refuse("a wrong password", "/basic", "basic_auth_wrong", basic("acme", "x"), "Basic"),
    _refuse("an empty password", "/basic", "basic_auth_wrong", basic("acme", ""), "Basic"),
    _refuse("an unknown name", "/basic", "basic_auth_wrong", basic("root", "acme:password"), "Basic"),
    _refuse("a name in another case", "/basic", "basic_auth_wrong", basic("ACME", "acme:password"), "Basic"),
    _refuse("a name of the file where it does not count", "/basic", "basic_auth_wrong", basic("guest", "guest-password"), "Basic"),
    _refuse("no base64", "/basic", "basic_auth_malformed", key("Basic !!", "authorization"), "Basic"),
    _refuse("no colon", "/basic", "basic_auth_malformed", key("Basic YWNtZQ==", "authorization"), "Basic"),
    _pass("a user of the file who is a consumer", "/file", basic("webmaster", "admin"), {"x-consumer": "webmaster", "x-consumer-plan": "free"}),
    _pass("a user of the file who is none", "/file", basic("guest", "guest-password"), {**NOBODY, "authorization": "Basic Z3Vlc3Q6Z3Vlc3QtcGFzc3dvcmQ="}),
    _pass("a consumer beside the file", "/file", basic("acme", "acme:password"), IS_ACME),
    _refuse("a wrong password of the file", "/file", "basic_auth_wrong", basic("guest", "admin"), "Basic"),
    _refuse("any of four, none", "/any", "credentials_missing", challenge="Basic"),
    _pass("any of four, a token", "/any", bearer(lambda: tokens.token(azp="acme-app")), IS_ACME),
    _pass("any of four, the other token", "/any", lambda: (("x-token", partner()),)),
    _pass("any of four, a key", "/any", key(ACME), IS_ACME),
    _pass("any of four, a password", "/any", basic("acme", "acme:password"), IS_ACME),
    _pass("any of four, a good key beside a bad token", "/any", lambda: (*bearer(lambda: tokens.token(exp=1))(), ("x-api-key", ACME)), {**IS_ACME, "x-user-id": None}),
    _refuse("any of four, an expired token", "/any", "jwt_expired", bearer(lambda: tokens.token(exp=1)), "Bearer"),
    _refuse("any of four, a forged token", "/any", "jwt_invalid_signature", bearer(tokens.forged_with_public_key), "Bearer"),
    _refuse("any of four, a token without signature", "/any", "jwt_malformed", bearer(tokens.unsigned), "Bearer"),
    _refuse("any of four, another issuer", "/any", "jwt_wrong_issuer", bearer(lambda: tokens.token(iss="x")), "Bearer"),
    _refuse("any of four, another audience", "/any", "jwt_wrong_audience", bearer(lambda: tokens.token(aud="x")), "Bearer"),
    _refuse("any of four, an unknown kid", "/any", "jwt_unknown_key", bearer(lambda: tokens.token(kid="x")), "Bearer"),
    _refuse("any of four, not yet valid", "/any", "jwt_not_yet_valid", bearer(lambda: tokens.token(nbf=tokens.now() + 90)), "Bearer"),
    _refuse("any of four, a critical extension", "/any", "jwt_unsupported_extension", bearer(lambda: tokens.with_header(crit=["x"])), "Bearer"),
    _pass("any of four, a good key beside a critical extension", "/any", lambda: (*bearer(lambda: tokens.with_header(crit=["x"]))(), ("x-api-key", ACME)), {**IS_ACME, "authorization": None}),
    _refuse("any of four, a wrong key", "/any", "api_key_unknown", key("x")),
    _pass("both, of one consumer", "/both", lambda: (*bearer(lambda: tokens.token(azp="acme-app"))(), ("x-api-key", ACME)), IS_ACME),
    _pass("both, where the token names no consumer", "/both", lambda: (*bearer(tokens.token)(), ("x-api-key", ACME)), IS_ACME),
    _refuse("both, one is missing", "/both", "api_key_missing", bearer(tokens.token)),
    _refuse("both, the other is missing", "/both", "jwt_missing", key(ACME), "Bearer"),
    _refuse("both, of two consumers", "/both", "consumers_differ", lambda: (*bearer(lambda: tokens.token(azp="acme-app"))(), ("x-api-key", "initech-key"))),
)  # fmt: skip
"""For a gateway of PROVIDERS, CONSUMERS and CREDENTIAL_ROUTES whose listener lets underscores pass in headers."""

SLOW_ROUTES = """
  file-any: {path: /file-any, upstream: echo, policies: {api_key: true, basic_auth: {htpasswd: {file: htpasswd}}}}
  file-optional: {path: /file-optional, upstream: echo, policies: {basic_auth: {htpasswd: {file: htpasswd}, optional: true}}}
  file-both: {path: /file-both, upstream: echo, policies: {api_key: true, basic_auth: {htpasswd: {file: htpasswd}}, authentication: all}}
"""
IS_WEBMASTER = {"x-consumer": "webmaster", "x-consumer-plan": "free"}
SLOW_CASES = (
    _pass("a password of 72 bytes", "/file", basic("long", "x" * 72)),
    _refuse("a byte more", "/file", "basic_auth_wrong", basic("long", "x" * 73), "Basic"),
    _refuse("a byte less", "/file", "basic_auth_wrong", basic("long", "x" * 71), "Basic"),
    _refuse("what bcrypt takes for the same", "/file", "basic_auth_wrong", basic("webmaster", "admin\0admin"), "Basic"),
    _refuse("a NUL behind it", "/file", "basic_auth_wrong", basic("webmaster", "admin\0"), "Basic"),
    _pass("letters beyond ASCII, and a colon", "/file", basic("schlüssel", "☃:☃")),
    _pass("a quick user of the file", "/file", basic("quick", "admin")),
    _refuse("a quick user of the file, wrong", "/file", "basic_auth_wrong", basic("quick", "x"), "Basic"),
    _refuse("an unknown name of the file", "/file", "basic_auth_wrong", basic("root", "admin"), "Basic"),
    _refuse("a name of the file that is a prefix", "/file", "basic_auth_wrong", basic("webmaste", "admin"), "Basic"),
    _refuse("the password of another", "/file", "basic_auth_wrong", basic("webmaster", "guest-password"), "Basic"),
    _refuse("the hash as a password", "/file", "basic_auth_wrong", basic("guest", HTPASSWD_SLOW.split("guest:")[1].split("\n")[0]), "Basic"),
    _refuse("an empty name and password", "/file", "basic_auth_wrong", basic("", ""), "Basic"),
    _refuse("a name that is not UTF-8", "/file", "basic_auth_wrong", key("Basic /3g6eA==", "authorization"), "Basic"),
    _refuse("no base64 for the file", "/file", "basic_auth_malformed", key("Basic !!", "authorization"), "Basic"),
    _refuse("nothing for the file", "/file", "basic_auth_missing", challenge="Basic"),
    _refuse("twice", "/file", "basic_auth_malformed", lambda: basic("guest", "guest-password")() * 2, "Basic"),
    _pass("without padding", "/file", key("basic  Z3Vlc3Q6Z3Vlc3QtcGFzc3dvcmQ", "authorization")),
    _pass("a key or a user, a user", "/file-any", basic("webmaster", "admin"), {**IS_WEBMASTER, "authorization": None}),
    _pass("a key or a user, a key", "/file-any", key(ACME), IS_ACME),
    _pass("a key or a user, a key beside a wrong user", "/file-any", lambda: (*basic("webmaster", "x")(), ("x-api-key", ACME)), IS_ACME),
    _refuse("a key or a user, a wrong user", "/file-any", "basic_auth_wrong", basic("webmaster", "x"), "Basic"),
    _refuse("a key or a user, none", "/file-any", "credentials_missing", challenge="Basic"),
    _pass("optional, none", "/file-optional"),
    _pass("optional, a user", "/file-optional", basic("webmaster", "admin"), IS_WEBMASTER),
    _refuse("optional, a wrong one", "/file-optional", "basic_auth_wrong", basic("webmaster", "x"), "Basic"),
    _pass("a key and a user who is no consumer", "/file-both", lambda: (*basic("guest", "guest-password")(), ("x-api-key", ACME)), IS_ACME),
    _refuse("a key and a user of another consumer", "/file-both", "consumers_differ", lambda: (*basic("webmaster", "admin")(), ("x-api-key", ACME)), "Basic"),
)  # fmt: skip
"""For the same with SLOW_ROUTES, where HTPASSWD_SLOW is the file."""
