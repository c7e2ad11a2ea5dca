"""cache in front of GraphQL and aggregates: nobody gets a response that was made for another caller or another schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import tokens
from tests.support.folder import write
from tests.support.running import Served
from tests.support.scripted_backend import ScriptedBackend
from tests.support.wait import wait_for

GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1, trusted_proxies: 1}}
identity: {corp: {issuer: "https://idp.test", audiences: [shop], jwks: {file: keys.json}}}
upstreams: {users: {endpoints: [$users]}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  graphql:
    path: /graphql
    graphql: {schema: schema.graphql}
    policies: {jwt: {provider: corp, optional: true}, cache: 60s}
  public:
    path: /public
    graphql: {schema: public.graphql}
    policies: {cache: 60s}
  role:
    path: /role
    aggregate: {calls: {user: {upstream: users, path: /user}}, response: {role: {from: "claim:role"}, user: {from: "call:user"}}}
    policies: {jwt: corp, cache: 60s}
  tenant:
    path: /tenant
    aggregate: {calls: {user: {upstream: users, path: "/user?t={header:x-tenant}"}}}
    policies: {cache: 60s}
  address:
    path: /address
    aggregate: {calls: {user: {upstream: users, path: /user}}, response: {ip: {from: ip}, user: {from: "call:user"}}}
    policies: {cache: 60s}
"""
SCHEMA = """
type Query { user: User @rest(upstream: "users", path: "/user") }
type User { name: String secret: String %s }
"""
GUARDED = '@auth(scopes: ["admin"])'
PUBLIC = """
type Query { user: User @rest(upstream: "users", path: "/user", headers: [{name: "x-for", value: "{header:x-tenant}"}]) }
type User { name: String }
"""
SECRET = {"query": "{ user { name secret } }"}


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as running:
        running.answer("/user", {"name": "Ada", "secret": "s"})
        yield running


@pytest.fixture
def served(tmp_path: Path, backend: ScriptedBackend) -> Iterator[Served]:
    running = Served(tmp_path, GATEWAY, users=backend.address)
    write(
        running.folder,
        {
            "keys.json": tokens.jwks(),
            "schema.graphql": SCHEMA % GUARDED,
            "public.graphql": PUBLIC,
        },
    )
    running.write("1")
    with running:
        running.until("1")
        yield running


def get(served: Served, path: str, claims: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
    headers = {"accept": "application/json", **more.pop("headers", {})}
    if claims is not None:
        headers["authorization"] = f"Bearer {tokens.token(**claims)}"
    return served.get(path, headers=headers, **more)


def is_hit(response: httpx.Response) -> bool:
    return "hit" in response.headers["cache-status"]


def test_one_subject_with_another_token_does_not_get_what_a_scope_protects(served: Served) -> None:
    admin, reader = {"scope": "admin"}, {"scope": "read"}
    first = get(served, "/graphql", admin, params=SECRET)
    assert first.json()["data"]["user"]["secret"] == "s"
    assert is_hit(get(served, "/graphql", {**admin, "jti": "2", "exp": tokens.now() + 999}, params=SECRET))
    other = get(served, "/graphql", reader, params=SECRET)
    assert other.json()["data"]["user"] == {"name": "Ada", "secret": None}
    assert other.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    for level in ("1", "2"):
        assert not is_hit(get(served, "/graphql", {**reader, "acr": level}, params=SECRET)), (
            "how it logged in"
        )
    listed = get(served, "/graphql", {"scope": None, "scp": ["admin", "read"]}, params=SECRET)
    assert (listed.json()["data"]["user"]["secret"], is_hit(listed)) == ("s", False)


def test_a_schema_that_changes_makes_stored_responses_old(served: Served) -> None:
    (served.folder / "schema.graphql").write_text(SCHEMA % "")
    reader = {"scope": "read"}

    def seen() -> Any:
        return get(served, "/graphql", reader, params=SECRET).json()["data"]["user"]["secret"]

    wait_for(lambda: seen() == "s", "the open schema")
    wait_for(lambda: is_hit(get(served, "/graphql", reader, params=SECRET)), "a hit")
    (served.folder / "schema.graphql").write_text(SCHEMA % GUARDED)
    wait_for(lambda: seen() is None, "the guarded schema")
    assert seen() is None


def test_an_aggregate_belongs_to_the_claims_that_it_shows(served: Served) -> None:
    for role in ("boss", "clerk"):
        for hit in (False, True):
            response = get(served, "/role", {"role": role})
            assert (response.json()["role"], is_hit(response)) == (role, hit)


@pytest.mark.parametrize(("path", "query"), [("/tenant", {}), ("/public", {"query": "{ user { name } }"})])
def test_a_response_varies_by_the_headers_that_it_is_made_of(
    served: Served, backend: ScriptedBackend, path: str, query: dict[str, str]
) -> None:
    def name(tenant: str) -> str:
        response = get(served, path, params=query, headers={"x-tenant": tenant})
        assert "x-tenant" in response.headers["vary"]
        body = response.json()
        return str(body["name"] if path == "/tenant" else body["data"]["user"]["name"])

    for tenant in ("a", "b"):
        backend.answer("/user", {"name": tenant})
        assert [name(tenant) for _ in range(3)] == [tenant] * 3
    backend.answer("/user", {"name": "new"})
    wait_for(lambda: name("a") == "a", "both are stored")
    assert name("b") == "b"


def test_a_response_with_the_address_of_a_client_is_not_stored(served: Served) -> None:
    for address in ("192.0.2.1", "192.0.2.2"):
        response = get(served, "/address", headers={"x-forwarded-for": address})
        assert response.json()["ip"] == address
        assert response.headers["cache-control"] == "private, no-store"
