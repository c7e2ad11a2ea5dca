"""The admin API: what each operation does, and what it rejects, with SQLite and with PostgreSQL."""

from __future__ import annotations

import json
import re
from itertools import product as pairs
from typing import Any

import jsonschema_rs
import pytest

from tests.support.market import COMMERCE, Market
from tests.support.portal import ApiOf, api_of
from xds_server.marketplace import logins, notices, people, statements
from xds_server.portal.api.operations import OPERATIONS
from xds_server.portal.application import API
from xds_server.portal.attempts import Attempts


def test_from_an_organisation_to_a_key(api: ApiOf) -> None:
    publisher, developer = api.as_("pub"), api.as_("ada")
    made = publisher.post("/products", COMMERCE)
    assert (made.status_code, made.json()["state"], made.headers["etag"]) == (201, "draft", '"1"')
    published = publisher.patch("/products/commerce", {"state": "published"}, **{"if-match": '"1"'})
    assert published.json()["state"] == "published"
    application = developer.post("/applications", {"organisation": "acme", "name": "Mobile"}).json()
    wanted = {"application": application["id"], "product": "commerce", "plan": "gold"}
    subscription = developer.post("/subscriptions", wanted).json()
    assert (subscription["state"], subscription["consumer"]) == ("submitted", "acme.mobile.commerce")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", subscription["requested"])
    approved = publisher.post(f"/subscriptions/{subscription['id']}/approve", {"note": "welcome"})
    assert (approved.json()["state"], approved.json()["note"]) == ("active", "welcome")
    key = developer.post(f"/subscriptions/{subscription['id']}/keys/primary")
    assert key.status_code == 201
    assert key.json()["secret"].endswith(key.json()["hint"])
    assert key.headers["cache-control"] == "no-store"
    listed = developer.get(f"/subscriptions/{subscription['id']}/keys").json()
    assert [one["slot"] for one in listed] == ["primary"]
    assert "secret" not in listed[0]
    log = publisher.get(f"/audit?object={subscription['id']}").json()["items"]
    assert [one["action"] for one in log] == ["make", "approve", "create"]


def test_every_response_has_the_form_that_the_document_says(api: ApiOf) -> None:
    document = api.client.get(f"{API}/openapi.json").json()
    admin = api.as_("adm")
    api.market.key(api.market.subscribe(api.market.application(), api.market.product()))
    seen = 0
    for one in OPERATIONS:
        if one.method == "GET" and "{" not in one.path and one.name != "read_usage":
            found = admin.get(one.path)
            assert found.status_code == 200, found.text
            name = f"{one.returns}Page" if one.lists else one.returns
            schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
            jsonschema_rs.validator_for(schema, validate_formats=True).validate(found.json())
            seen += 1
    assert seen == 12


def test_two_people_cannot_overwrite_each_other(api: ApiOf) -> None:
    ada, other = api.as_("ada"), api.as_("ada")
    first, second = ada.get("/organisations/acme"), other.get("/organisations/acme")
    assert (
        ada.patch("/organisations/acme", {"name": "A"}, **{"if-match": first.headers["etag"]}).status_code
        == 200
    )
    stale = other.patch("/organisations/acme", {"name": "B"}, **{"if-match": second.headers["etag"]})
    assert (stale.status_code, stale.json()["title"]) == (412, "Changed by somebody else")
    assert other.patch("/organisations/acme", {"name": "B"}, **{"if-match": "text"}).status_code == 422
    assert ada.get("/organisations/acme").json()["name"] == "A"


@pytest.mark.parametrize(
    ("header", "status"),
    [('"0"', 412), ('W/"1"', 412), ('"x y"', 422), ("", 422), ('"2", "1"', 200), ('"2","3"', 412), ("*", 200), ('"text"', 412)],
)  # fmt: skip
def test_if_match_is_a_list_of_strong_etags(api: ApiOf, header: str, status: int) -> None:
    found = api.as_("ada").patch("/organisations/acme", {"name": "A"}, **{"if-match": header})
    assert found.status_code == status, found.text


def test_no_change_ignores_if_match(api: ApiOf) -> None:
    market, publisher, ada = api.market, api.as_("pub"), api.as_("ada")
    product = market.product()
    subscription = market.subscribe(market.application(), product)
    stale = {"if-match": '"99"'}
    assert publisher.patch(f"/products/{product.id}", {}, **stale).status_code == 412
    assert ada.patch(f"/subscriptions/{subscription.id}", {}, **stale).status_code == 412
    for method, path, body in (
        ("POST", f"/subscriptions/{subscription.id}/keys/primary", {}),
        ("PUT", f"/organisations/acme/members/{market.users['bob'].id}", {"role": "owner"}),
        ("POST", "/organisations", {"name": "New"}),
    ):
        found = ada.call(method, path, body, **stale)
        assert (found.status_code, "no ETag" in found.json()["detail"]) == (412, True), path
    assert ada.get(f"/subscriptions/{subscription.id}/keys").json() == []


def test_a_token_does_what_its_scopes_say(api: ApiOf) -> None:
    reader = api.as_("ada", "read")
    assert reader.get("/me").json()["email"] == "ada@example.com"
    refused = reader.post("/organisations", {"name": "X"})
    assert refused.status_code == 403
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="write"'
    anonymous = api.client.get(f"{API}/me")
    assert (anonymous.status_code, anonymous.headers["content-type"]) == (401, "application/problem+json")
    assert anonymous.headers["www-authenticate"] == 'Bearer realm="portal"'
    wrong = api.client.get(f"{API}/me", headers={"authorization": "Bearer xgt_wrong"})
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    (token,) = reader.get("/tokens").json()["items"]
    assert api.as_("ada", "write").call("DELETE", f"/tokens/{token['id']}").status_code == 204
    assert reader.get("/me").status_code == 401


def test_a_token_decides_nothing_without_the_scope(api: ApiOf) -> None:
    """The user is a publisher, and the token can only write: what a member may, and nothing in other organisations."""
    market, writer = api.market, api.as_("pub", "read", "write")
    product = market.product()
    subscription = market.subscribe(market.application(), product)
    market.key(subscription)
    path = f"/subscriptions/{subscription.id}"
    for method, at in (("DELETE", f"{path}/keys/primary"), ("POST", f"{path}/cancel"), ("POST", f"{path}/keys/primary")):  # fmt: skip
        assert writer.call(method, at).status_code == 403, at
    assert writer.patch(path, {"plan": "free"}).status_code == 403
    assert api.as_("pub").call("DELETE", f"{path}/keys/primary").status_code == 204
    with market.store.begin(market.actor("adm")) as now:
        people.set_member(now, "acme", market.users["pub"].id, "member")
    assert writer.patch(path, {"plan": "gold"}).status_code == 403  # it needs approval
    assert api.as_("pub").patch(path, {"plan": "gold"}).status_code == 200
    api.as_("pub").post(f"{path}/suspend")
    assert writer.post(f"{path}/cancel").status_code == 409
    api.as_("pub").post(f"{path}/resume")
    assert writer.post(f"{path}/cancel").json()["state"] == "cancelled"


def test_a_token_makes_no_token_that_may_do_more(api: ApiOf) -> None:
    writer, market = api.as_("adm", "write"), api.market
    assert writer.post("/tokens", {"name": "x", "scopes": ["write", "admin"]}).status_code == 403
    assert writer.post("/tokens", {"name": "x", "scopes": ["write"]}).status_code == 201
    other = {"name": "x", "scopes": ["write"], "user": market.users["pub"].id}
    assert writer.post("/tokens", other).status_code == 403
    token = api.as_("ada").get("/tokens").json()["items"][0]["id"]
    assert writer.call("DELETE", f"/tokens/{token}").status_code == 404
    subscription = market.subscribe(market.application(), market.product())
    end = {"expires": "2030-01-01T00:00:00Z"}
    assert writer.patch(f"/subscriptions/{subscription.id}", end).status_code == 403
    assert api.as_("adm", "read").get("/audit").status_code == 200


def test_who_tries_many_tokens_waits(market: Market) -> None:
    with api_of(market, Attempts(most=3, per_minute=6, clock=lambda: 0.0)) as api:
        statuses = [
            api.client.get(f"{API}/me", headers={"authorization": f"Bearer {number}"}).status_code
            for number in range(5)
        ]
        assert statuses == [401, 401, 401, 429, 429]
        assert api.as_("ada").get("/me").status_code == 200  # somebody else behind the same address
        waiting = api.client.get(f"{API}/me", headers={"authorization": "Bearer 6"})
        assert int(waiting.headers["retry-after"]) in range(1, 11)


@pytest.mark.parametrize(
    ("method", "path", "content", "type_", "status", "field"),
    [
        ("POST", "/organisations", b"{", "application/json", 400, None),
        ("POST", "/organisations", b'{"name": NaN}', "application/json", 400, None),
        ("POST", "/organisations", b"[" * 100_000, "application/json", 400, None),
        ("POST", "/organisations", b'{"name": ' + b"[" * 300 + b"]" * 300 + b"}", "application/json", 400, None),
        ("POST", "/organisations", b'{"a":' * 400 + b"1" + b"}" * 400, "application/json", 400, None),
        ("POST", "/organisations", b"[]", "application/json", 422, None),
        ("POST", "/organisations", b"name=x", "application/x-www-form-urlencoded", 415, None),
        ("POST", "/organisations", b"{}", "application/json", 422, ""),
        ("POST", "/organisations", b'{"name": 5}', "application/json", 422, "name"),
        ("POST", "/organisations", b'{"name": "x", "other": 1}', "application/json", 422, ""),
        ("POST", "/organisations", b'{"name": "\\ud800"}', "application/json", 422, None),
        ("POST", "/organisations", b'{"name": "a\\u0000b"}', "application/json", 422, None),
        ("POST", "/organisations", b'{"name": "a\\\\\\u0000b"}', "application/json", 422, None),
        ("POST", "/organisations", b'{"name": "' + b"x" * (1 << 20) + b'"}', "application/json", 413, None),
        ("POST", "/tokens", b'{"name": "x", "scopes": ["read"], "user": "\\ud800"}', "application/json", 422, None),
        ("POST", "/tokens", b'{"name": "x", "scopes": ["read"], "expires": "9999-12-31T23:59:59-23:59"}', "application/json", 422, "expires"),
        ("GET", "/audit?after=123456789012345678901234567890", b"", "", 422, "after"),
        ("GET", "/organisations?limit=0", b"", "", 422, "limit"),
        ("GET", "/organisations?limit=x", b"", "", 422, "limit"),
        ("GET", "/organisations?limit=1&limit=2", b"", "", 422, "limit"),
        ("GET", "/organisations?page=2", b"", "", 422, "page"),
        ("GET", "/audit?after=x", b"", "", 422, "after"),
        ("GET", "/nothing", b"", "", 404, None),
        ("PUT", "/organisations", b"", "", 405, None),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_used_is_rejected_with_its_field(
    api: ApiOf, method: str, path: str, content: bytes, type_: str, status: int, field: str | None
) -> None:
    headers = {
        "authorization": f"Bearer {api.as_('adm').token}",
        **({"content-type": type_} if type_ else {}),
    }
    found = api.client.request(method, API + path, content=content, headers=headers)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/problem+json"), (
        found.text
    )
    if field is not None:
        assert found.json().get("field", "") == field
    assert found.json()["detail"]


def test_texts_may_have_backslashes(api: ApiOf) -> None:
    name = "docs \\u0000 and \\\\u0000"
    assert api.as_("ada").post("/organisations", {"name": name}).json()["name"] == name


def test_applications_with_the_same_name_get_slugs_of_their_own(api: ApiOf) -> None:
    ada = api.as_("ada")
    made = [ada.post("/applications", {"organisation": "acme", "name": "Twice"}).json() for _ in range(2)]
    assert [one["slug"] for one in made] == ["twice", "twice-2"]
    assert ada.call("DELETE", f"/applications/{made[0]['id']}").status_code == 204
    assert ada.post("/applications", {"organisation": "acme", "name": "Twice"}).json()["slug"] == "twice-3"
    long = ada.post("/applications", {"organisation": "acme", "name": "x" * 70}).json()["slug"]
    again = ada.post("/applications", {"organisation": "acme", "name": "x" * 70}).json()["slug"]
    assert (len(long), again) == (63, "x" * 61 + "-2")
    taken = ada.post("/applications", {"organisation": "acme", "name": "New", "slug": "twice"})
    assert (taken.status_code, taken.json()["field"]) == (409, "slug")


def test_who_makes_keys_without_end_waits(api: ApiOf) -> None:
    ada, market = api.as_("ada"), api.market
    subscription = market.subscribe(market.application(), market.product())
    path = f"/subscriptions/{subscription.id}/keys/primary"
    made = 0
    while (answer := ada.post(path)).status_code == 201 and made < 1000:  # some come back meanwhile
        made += 1
    assert answer.status_code == 429
    assert made >= 60
    assert int(answer.headers["retry-after"]) >= 1
    assert api.as_("bob").post(path).status_code == 201


def test_another_host_is_refused(api: ApiOf) -> None:
    for host in ("evil.example", "portal.example.evil", "portal.example@evil", ""):
        assert api.client.get("/healthz", headers={"host": host}).status_code == 421
    assert api.client.get("/healthz", headers={"host": "127.0.0.1:80"}).status_code == 200


_FORBIDDEN, _MISSING = 403, 404


def _prepared(api: ApiOf) -> dict[str, str]:
    """Return one object of acme of each kind, by the name of its parameter."""
    market = api.market
    product, application = market.product(slug="hidden", visible_to=["acme"]), market.application()
    subscription = market.subscribe(application, product)
    market.key(subscription)
    token = api.as_("ada").get("/tokens").json()["items"][0]
    with market.store.begin(market.actor("adm")) as now:
        notice = notices.add_notice(now, "Maintenance", "Tonight.")
        closed = statements.add(now, subscription, "2026-11", "EUR", [], {}, {})
        invitation, _ = logins.invite(now, "x@example.com", organisation="acme", role="member")
    return {
        "statement": closed.id,
        "notice": notice.id,
        "organisation": market.acme.id,
        "user": market.users["ada"].id,
        "product": product.id,
        "application": application.id,
        "subscription": subscription.id,
        "slot": "primary",
        "token": token["id"],
        "invitation": invitation.id,
    }


_BODIES: dict[str, Any] = {
    "change_user": {"name": "Mine"},
    "rename_organisation": {"name": "Mine"},
    "set_member": {"role": "owner"},
    "invite_member": {"email": "x@example.com", "role": "owner"},
    "change_product": {"title": "Mine"},
    "change_application": {"name": "Mine"},
    "change_subscription": {"plan": "free"},
}


def test_nobody_reaches_an_object_of_a_foreign_organisation(api: ApiOf) -> None:
    """Every operation on an object, by a developer of another organisation: as if there were no such object."""
    objects, eve = _prepared(api), api.as_("eve")
    tried = 0
    for one in OPERATIONS:
        if "{" not in one.path:
            continue
        path = re.sub(r"\{(\w+)\}", lambda match: objects[match[1]], one.path)
        found = eve.call(one.method, path, _BODIES.get(one.name, {} if one.body is not None else None))
        allowed = {_FORBIDDEN, _MISSING} if one.scope in ("publish", "admin") else {_MISSING}
        assert found.status_code in allowed, (one.name, found.status_code, found.text)
        tried += 1
    assert tried == 28
    for path in ("/applications", "/subscriptions", "/products", "/statements", "/tokens"):
        assert all(one["name"] == "test" for one in eve.get(path).json()["items"]), path
    for path in (f"/applications?organisation={objects['organisation']}", f"/subscriptions?application={objects['application']}", f"/audit?organisation={objects['organisation']}"):  # fmt: skip
        assert eve.get(path).status_code == 404, path
    unchanged = api.as_("adm")
    assert unchanged.get(f"/subscriptions/{objects['subscription']}").json()["state"] == "active"
    assert unchanged.get(f"/organisations/{objects['organisation']}").json()["name"] == "Acme"


def test_who_does_not_publish_decides_nothing(api: ApiOf) -> None:
    objects = _prepared(api)
    for name, one in pairs(("ada", "bob"), OPERATIONS):
        if one.scope not in ("publish", "admin") or one.name in ("read_user", "change_user"):
            continue
        path = re.sub(r"\{(\w+)\}", lambda match: objects[match[1]], one.path)
        body = {
            "add_user": {"email": "a@b.c", "name": "x"},
            "invite_user": {"email": "a@b.c"},
            "add_product": COMMERCE,
            "add_notice": {"title": "x", "text": "y"},
        }
        found = api.as_(name).call(one.method, path, body.get(one.name, _BODIES.get(one.name, {} if one.body is not None else None)))  # fmt: skip
        assert found.status_code == _FORBIDDEN, (one.name, found.text)


def test_a_store_that_fails_is_reported(api: ApiOf, request: pytest.FixtureRequest) -> None:
    developer = api.as_("ada")
    with api.market.store.begin(api.market.actor("adm")) as now:
        now.connection.exec_driver_sql("ALTER TABLE market_users RENAME TO gone")
    found = developer.get("/me")
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert "gone" not in found.text


def test_the_document_is_complete(api: ApiOf) -> None:
    document = api.client.get(f"{API}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert listed == {(one.method, one.path) for one in OPERATIONS}
    text = json.dumps(document)
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in document["components"]["schemas"], name
