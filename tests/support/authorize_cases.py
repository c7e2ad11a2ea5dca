"""Who may do what: one table of routes, callers and answers, for whatever enforces it."""

from __future__ import annotations

from tests.support import tokens
from tests.support.identity_cases import ACME, UNICODE, Case, Headers, bearer, key

AUTHORIZE_ROUTES = """
  read: {path: /read, upstream: echo, policies: {jwt: corp, authorize: {scopes: [users.read]}}}
  two: {path: /two, upstream: echo, policies: {jwt: corp, authorize: {scopes: [users.read, users.write]}}}
  staff: {path: /staff, upstream: echo, policies: {jwt: corp, authorize: {claims: {realm.roles: staff}}}}
  some:
    path: /some
    upstream: echo
    policies: {jwt: corp, authorize: {claims: {realm.roles: [staff, admin], level: 3, active: true}}}
  dotted:
    path: /dotted
    upstream: echo
    policies: {jwt: corp, authorize: {claims: {"https://claims.test/role": admin}}}
  pod:
    path: /pod
    upstream: echo
    policies: {jwt: corp, authorize: {claims: {kubernetes.io.namespace: shop, kubernetes\\.io.pod.name: cart}}}
  client:
    path: /client
    upstream: echo
    policies: {jwt: corp, authorize: {claims: {'resource_access.shop\\.web.roles': buyer}}}
  acme: {path: /acme, upstream: echo, policies: {api_key: true, jwt: corp, authorize: {consumers: [acme]}}}
  pro: {path: /pro, upstream: echo, policies: {api_key: true, authorize: {plans: [pro]}}}
  reading: {path: /reading, upstream: echo, policies: {authorize: {methods: [GET, HEAD]}}}
  paths:
    path: /paths/*
    upstream: echo
    policies:
      authorize: [{paths: [/paths/open/*, "/paths/it's"]}, {paths: [/paths/open/shut], methods: [DELETE], deny: true}]
  denied: {path: /denied/*, upstream: echo, policies: {authorize: {paths: [/denied/admin/*], deny: true}}}
  either:
    path: /either
    upstream: echo
    policies:
      jwt: {provider: corp, optional: true}
      authorize: [{methods: [GET]}, {scopes: [users.write]}]
  when:
    path: /when/*
    upstream: echo
    policies:
      jwt: corp
      authorize: {when: 'claims.department == "ops" || (request.method == "GET" && request.url_path.startsWith("/when/open"))'}
  own:
    path: /own/*
    upstream: echo
    policies:
      api_key: true
      authorize: {when: 'consumer == request.headers["x-tenant"] && authenticated_by == "api_key" && plan in ["pro"]'}
  level: {path: /level, upstream: echo, policies: {jwt: corp, authorize: {when: 'has(claims.level) && claims.level >= 2.5'}}}
  functions:
    path: /functions
    upstream: echo
    policies:
      jwt: corp
      authorize: {when: 'size(claims.groups) > 1 && int(claims.rank) >= 2 && claims.email.matches("^[a-z]+@shop[.]test$")'}
  time: {path: /time, upstream: echo, policies: {authorize: {when: 'request.time < timestamp("2200-01-01T00:00:00Z")'}}}
  nested: {path: /nested, upstream: echo, policies: {jwt: corp, authorize: {when: 'NESTED'}}}
  deep: {path: /deep, upstream: echo, policies: {jwt: corp, authorize: {when: 'DEEP'}}}
  shadow: {path: /shadow, upstream: echo, policies: {jwt: corp, authorize: {scopes: [users.read], shadow: true}}}
""".replace("NESTED", "!" * 18 + "(claims.n == 1)").replace(
    "DEEP", " || ".join(f"claims.n == {number}" for number in range(80))
)


def _may(name: str, path: str, headers: object = tuple, method: str = "GET") -> Case:
    return Case(name=name, path=path, status=200, headers=headers, method=method)  # type: ignore[arg-type]


def _may_not(name: str, path: str, headers: object = tuple, method: str = "GET") -> Case:
    return Case(name=name, path=path, status=403, reason="not_authorized", headers=headers, method=method)  # type: ignore[arg-type]


def _token(**claims: object) -> object:
    return bearer(lambda: tokens.token(**claims))


def _pod(namespace: str, name: str) -> dict[str, object]:
    """A Kubernetes service account, as its token tells."""
    return {"kubernetes.io": {"namespace": namespace, "pod": {"name": name}}}


def _split_pod(namespace: str) -> dict[str, object]:
    return {"kubernetes": {"io": {"namespace": namespace}}}


def _tenant(name: str, secret: str) -> object:
    headers: Headers = (("x-tenant", name), ("x-api-key", secret))
    return lambda: headers


AUTHORIZE_CASES = (
    _may("the only scope", "/read", _token(scope="users.read")),
    _may("the first scope of several", "/read", _token(scope="users.read openid")),
    _may("the last scope of several", "/read", _token(scope="openid users.read")),
    _may("a scope in the middle", "/read", _token(scope="a users.read b")),
    _may("a scope in a list", "/read", _token(scp=["openid", "users.read"])),
    _may("a list of scopes under scope", "/read", _token(scope=["users.read"])),
    _may("a string of scopes under scp", "/read", _token(scp="users.read x")),
    _may_not("no scope", "/read", _token()),
    _may_not("a scope that begins like it", "/read", _token(scope="users.reader")),
    _may_not("a scope that ends like it", "/read", _token(scope="other-users.read")),
    _may_not("a scope in which a dot was any letter", "/read", _token(scope="usersXread")),
    _may_not("another case", "/read", _token(scope="Users.Read")),
    _may_not("an element that begins like it", "/read", _token(scp=["users.reader"])),
    _may_not("words inside of an element", "/read", _token(scp=["a users.read"])),
    Case(name="a forged token with the scope", path="/read", status=401, reason="jwt_invalid_signature",
         headers=bearer(lambda: tokens.token(key=tokens.STRANGER, scope="users.read")), challenge="Bearer"),
    Case(name="no token", path="/read", status=401, reason="jwt_missing", challenge="Bearer"),
    _may("both scopes", "/two", _token(scope="users.write users.read")),
    _may_not("one scope of two", "/two", _token(scope="users.read")),
    _may("a nested claim that equals", "/staff", _token(realm={"roles": "staff"})),
    _may("a nested list with it", "/staff", _token(realm={"roles": ["a", "staff"]})),
    _may("a claim whose own name has the dot", "/staff", _token(**{"realm.roles": "staff"})),
    _may_not("a nested list without it", "/staff", _token(realm={"roles": ["a", "staffs"]})),
    _may_not("an empty list", "/staff", _token(realm={"roles": []})),
    _may_not("a mapping where a list should be", "/staff", _token(realm={"roles": {"staff": True}})),
    _may_not("no such claim", "/staff", _token(roles=["staff"])),
    _may("all claims, one of the values", "/some", _token(realm={"roles": ["admin"]}, level=3, active=True)),
    _may_not("all claims but one", "/some", _token(realm={"roles": ["admin"]}, level=3)),
    _may_not("a number as text", "/some", _token(realm={"roles": ["admin"]}, level="3", active=True)),
    _may_not("another number", "/some", _token(realm={"roles": ["admin"]}, level=3.5, active=True)),
    _may_not("a flag as text", "/some", _token(realm={"roles": ["admin"]}, level=3, active="true")),
    _may("a claim named by a URL", "/dotted", _token(**{"https://claims.test/role": "admin"})),
    _may_not("a claim named by a URL, another value", "/dotted", _token(**{"https://claims.test/role": "x"})),
    _may("a nested claim under a name with a dot", "/pod", _token(**_pod("shop", "cart"))),
    _may_not("a nested claim under a name with a dot, another value", "/pod", _token(**_pod("shop", "x"))),
    _may_not("a nested claim under a name that is split", "/pod", _token(**_split_pod("shop"), **_pod("x", "cart"))),
    _may("a nested claim under a nested name with a dot", "/client",
         _token(resource_access={"shop.web": {"roles": ["buyer"]}})),
    _may_not("a nested name with a dot that is split", "/client",
         _token(resource_access={"shop": {"web": {"roles": ["buyer"]}}})),
    _may_not("the longest name counts, here with another value", "/staff",
         _token(**{"realm.roles": "x"}, realm={"roles": "staff"})),
    _may("the longest name counts, here with this value", "/staff",
         _token(**{"realm.roles": "staff"}, realm={"roles": "x"})),
    _may("a claim that is nothing is not there", "/staff",
         _token(**{"realm.roles": None}, realm={"roles": "staff"})),
    _may("a path itself", "/paths/open"),
    _may("a path below, with a query", "/paths/open/a?b=/x"),
    _may("a path in another spelling", "/paths/it%27s"),
    _may_not("a path that begins like it", "/paths/opened"),
    _may_not("another path", "/paths/other?/paths/open"),
    _may("a denied path with another method", "/paths/open/shut"),
    _may_not("a denied path with its method", "/paths/open/shut", method="DELETE"),
    _may("what no rule denies, if every rule denies", "/denied/x"),
    _may_not("a denied path below", "/denied/admin/x"),
    _may_not("a denied path with escaped letters", "/denied/%61dmin"),
    _may_not("a denied path with dots and slashes", "/denied/x/..//admin"),
    _may("the consumer by a key", "/acme", key(ACME)),
    _may("the consumer by a token", "/acme", _token(azp="acme-app")),
    _may_not("another consumer", "/acme", key(UNICODE)),
    _may_not("no consumer", "/acme", _token()),
    _may_not("a header that says the consumer", "/acme", lambda: (("x-consumer", "acme"), ("x-api-key", "initech-key"))),
    _may("the plan", "/pro", key(ACME)),
    _may_not("another plan", "/pro", key(UNICODE)),
    _may_not("no plan", "/pro", key("initech-key")),
    _may("a method that is named", "/reading", method="HEAD"),
    _may_not("a method that is not named", "/reading", method="POST"),
    _may("one rule of two, without a token", "/either"),
    _may("the other rule of two", "/either", _token(scope="users.write"), "POST"),
    _may_not("no rule of two, without a token", "/either", method="POST"),
    _may_not("no rule of two, with a token", "/either", _token(scope="users.read"), "POST"),
    _may("a condition on a claim", "/when/x", _token(department="ops"), "POST"),
    _may("a condition on the path and method, where the claim is missing", "/when/open", _token()),
    _may_not("a condition whose claim is missing", "/when/x", _token()),
    _may_not("a condition whose claim is of another type", "/when/x", _token(department=["ops"])),
    _may("a condition that joins the consumer and a header", "/own/x", _tenant("acme", ACME)),
    _may_not("a condition of another consumer", "/own/x", _tenant("acme", UNICODE)),
    _may_not("a condition whose header is missing", "/own/x", key(ACME)),
    _may("a condition on a number", "/level", _token(level=3)),
    _may_not("a condition on a smaller number", "/level", _token(level=2)),
    _may_not("a condition on no number", "/level", _token()),
    _may("functions of CEL", "/functions", _token(groups=["a", "b"], rank="3", email="ann@shop.test")),
    _may_not("functions of CEL, a short list", "/functions", _token(groups=["a"], rank="3", email="ann@shop.test")),
    _may_not("functions of CEL, a small number", "/functions", _token(groups=["a", "b"], rank="1", email="ann@shop.test")),
    _may_not("functions of CEL, no number", "/functions", _token(groups=["a", "b"], rank="x", email="ann@shop.test")),
    _may_not("functions of CEL, another domain", "/functions", _token(groups=["a", "b"], rank="3", email="ann@evil.test")),
    _may("a condition on the time", "/time"),
    _may("a condition as deep as it may be", "/nested", _token(n=1)),
    _may("a condition of 80 parts", "/deep", _token(n=79)),
    _may_not("a condition of 80 parts that does not hold", "/deep", _token(n=80)),
    _may("in shadow, what would be refused", "/shadow", _token()),
    Case(name="in shadow, still authenticated", path="/shadow", status=401, reason="jwt_missing", challenge="Bearer"),
    _may_not("out of an open path by dots", "/when/open/../x", _token()),
    _may_not("with a query that looks like the open path", "/when/x?/when/open", _token()),
)  # fmt: skip
"""For a gateway of PROVIDERS, CONSUMERS and AUTHORIZE_ROUTES."""
