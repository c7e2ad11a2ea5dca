"""Login at an OpenID provider: who comes in, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey

from tests.support import tokens
from tests.support.market import Market
from tests.support.openid import CLIENT, SECRET, OpenIdProvider
from tests.support.shop_portal import YAML, ShopPortal, Visitor, csrf_of, shop_portal


@pytest.fixture
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as running:
        running.claims = {
            "iss": running.url,
            "sub": "1",
            "email": "new@example.com",
            "email_verified": True,
            "name": "New",
        }
        yield running


@pytest.fixture
def portal(market: Market, tmp_path: Path, provider: OpenIdProvider) -> Iterator[ShopPortal]:
    login = f'login: {{issuer: "{provider.url}", client_id: {CLIENT}, client_secret: {{file: secret}}}}, name: Shop'
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    with shop_portal(market, folder, YAML.replace("name: Shop", login, 1)) as served:
        yield served


def logged_in(visitor: Visitor, to: str = "/account", **changed: Any) -> httpx.Response:
    """Go the way of a browser. `changed` are parameters of the callback that are other than the provider's."""
    begun = visitor.get("/login", params={"to": to})
    assert begun.status_code == 303, begun.text
    asked = httpx.get(begun.headers["location"])
    answer = httpx.URL(asked.headers["location"]).copy_merge_params(changed)
    return visitor.get(str(answer))


def test_a_person_comes_in_and_out_and_in_again(portal: ShopPortal) -> None:
    visitor = portal.as_(None)
    done = logged_in(visitor)
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    assert "new@example.com" in visitor.get("/account").text
    assert "xds_portal_login" not in visitor.client.cookies
    other = portal.as_(None)
    assert logged_in(other, "//evil.example").headers["location"] == "/"
    assert portal.market.actor("adm").role == "admin"
    assert "new@example.com" in portal.as_("pub").get("/manage/users").text


def test_a_user_who_was_there_is_taken_over_by_a_verified_address_only(
    portal: ShopPortal, provider: OpenIdProvider
) -> None:
    provider.claims |= {"email": "ada@example.com", "email_verified": False}
    assert "verif" in logged_in(portal.as_(None)).text
    provider.claims["email_verified"] = True
    visitor = portal.as_(None)
    logged_in(visitor)
    assert "ada@example.com" in visitor.get("/account").text
    provider.claims["sub"] = "2"
    assert logged_in(portal.as_(None)).status_code == 409


def test_a_link_of_an_organisation_leads_to_the_login_first(portal: ShopPortal) -> None:
    page = portal.as_("ada").post(
        "/organisations/acme", action="invite", email="new@example.com", role="owner"
    )
    link = re.search(r"/invitations/[\w-]{43}", page.text)
    assert link is not None
    visitor = portal.as_(None)
    assert f'href="/login?to={link[0]}"' in visitor.get(link[0]).text
    assert visitor.client.post(link[0], data={"name": "Ada"}).status_code == 403
    assert logged_in(visitor, link[0]).headers["location"] == link[0]
    csrf = csrf_of(visitor.get(link[0]))
    assert visitor.client.post(link[0], data={"name": "New", "csrf": csrf}).status_code == 303
    assert visitor.get("/organisations/acme").status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"]},
        {"exp": 1_000_000_000},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
    ],
)  # fmt: skip
def test_an_identity_that_is_for_something_else_is_refused(
    portal: ShopPortal, provider: OpenIdProvider, claims: dict[str, Any]
) -> None:
    provider.claims |= claims
    visitor = portal.as_(None)
    assert logged_in(visitor).status_code == 403
    assert visitor.get("/account").status_code == 303


def test_a_token_of_another_key_is_refused(portal: ShopPortal, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tokens.jwks(tokens.EC)
    monkeypatch.setattr(tokens, "jwks", lambda: other)
    assert logged_in(portal.as_(None)).status_code == 403


def test_keys_that_the_provider_has_replaced_are_read_again(
    portal: ShopPortal, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert logged_in(portal.as_(None)).status_code == 303
    new = RSAKey.generate_key(2048, {"kid": "new", "use": "sig"}, private=True)
    monkeypatch.setattr(tokens, "RSA", new)
    monkeypatch.setitem(tokens.KEYS, "RS256", new)
    assert logged_in(portal.as_(None)).status_code == 303


@pytest.mark.parametrize(
    ("name", "shown"), [("  ", "new@example.com"), ("x" * 300, "x" * 255), ("A\x00\x07 B", "A B")]
)
def test_a_name_that_cannot_be_used_lets_the_person_in(
    portal: ShopPortal, provider: OpenIdProvider, name: str, shown: str
) -> None:
    provider.claims |= {"name": name, "email_verified": "true"}
    visitor = portal.as_(None)
    assert logged_in(visitor).status_code == 303
    assert f'value="{shown}"' in visitor.get("/account").text


def test_a_login_of_another_browser_is_refused(portal: ShopPortal, provider: OpenIdProvider) -> None:
    assert logged_in(portal.as_(None), state="another").status_code == 403
    assert logged_in(portal.as_(None), code="another").status_code == 403
    begun = portal.as_(None).get("/login")
    answer = httpx.get(begun.headers["location"]).headers["location"]
    assert portal.as_(None).get(answer).status_code == 403
    provider.refuse = True
    refused = logged_in(portal.as_(None))
    assert (refused.status_code, SECRET in refused.text) == (403, False)
