"""oidc in the real Envoy: a browser logs in at a real OpenID provider, and attackers do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.certificates import authority
from tests.support.folder import filled, write
from tests.support.gateway import Gateway, Gateways
from tests.support.identity_cases import ACME, sha256
from tests.support.openid import CLIENT, SECRET, OpenIdProvider
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.tls import client_context
from tests.support.wait import wait_for


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as running:
        yield running


YAML = """
listeners: {https: {port: $port, tls: {certificates: [server]}, access_log: true}}
secrets: {server: {certificate: {file: server.crt}, private_key: {file: server.key}}}
upstreams: {echo: {endpoints: [$echo]}}
identity:
  corp:
    issuer: $issuer
    jwks: {url: "$provider/jwks"}
    claim_headers: {sub: x-user-id}
    oidc:
      client_id: $client
      client_secret: {file: client}
      session_secret: {file: session}
      authorization_endpoint: $provider/authorize
      token_endpoint: $provider/token
      end_session_endpoint: $provider/end
consumers:
  acme: {api_keys: [{sha256: $digest}], jwt: {provider: corp, claim: tenant, value: acme}}
routes:
  app: {path: /app/*, upstream: echo, policies: {oidc: corp}}
  either: {path: /either, upstream: echo, policies: {oidc: corp, jwt: corp, api_key: true}}
  staff: {path: /staff, upstream: echo, policies: {oidc: corp, authorize: {claims: {group: staff}}}}
"""


def _given(backend: Backend, provider: OpenIdProvider) -> dict[str, str]:
    """The values for the names in the YAML, less the port."""
    return {
        "echo": backend.address,
        "provider": provider.url,
        "issuer": tokens.ISSUER,
        "client": CLIENT,
        "digest": sha256(ACME),
    }


def _files() -> dict[str, str | bytes]:
    certificate, key = authority().issue("127.0.0.1")
    return {
        "server.crt": certificate,
        "server.key": key,
        "client": SECRET + "\n",
        "session": "s" * 64,
    }


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, backend: Backend, provider: OpenIdProvider) -> Gateway:
    return gateways.start(YAML, files=_files(), scheme="https", **_given(backend, provider))


@pytest.fixture
def browser(gateway: Gateway, provider: OpenIdProvider) -> Iterator[httpx.Client]:
    """A browser without a session. It keeps cookies as browsers do and follows no redirect by itself."""
    provider.claims, provider.lifetime, provider.refuse, provider.refreshes = {}, 600, False, True
    with gateway.client(verify=client_context(authority())) as client:
        yield client


def _way_back(browser: httpx.Client, path: str) -> str:
    """Ask for a page, log in at the provider, and return the URL to which it sends the browser."""
    sent = browser.get(path)
    assert sent.status_code == 302
    return httpx.get(sent.headers["location"]).headers["location"]


def _log_in(browser: httpx.Client, path: str) -> httpx.Response:
    """The page, after the login."""
    back = browser.get(_way_back(browser, path))
    assert back.status_code == 302, back.text
    return browser.get(back.headers["location"])


def _outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.headers.get("x-gateway-reason")


def test_a_browser_logs_in_and_comes_to_the_page_that_it_wanted(
    browser: httpx.Client, provider: OpenIdProvider
) -> None:
    provider.claims = {"tenant": "acme"}
    page = _log_in(browser, "/app/page?x=1")
    assert page.status_code == 200
    seen = page.json()
    assert seen["path"] == "/app/page?x=1"
    assert (seen["headers"]["x-user-id"], seen["headers"]["x-consumer"]) == ("ann", "acme")
    assert "cookie" not in seen["headers"]
    assert "authorization" not in seen["headers"]
    asked = len(provider.grants)
    assert browser.get("/app/other").status_code == 200
    assert len(provider.grants) == asked


def test_an_application_keeps_its_own_cookies(browser: httpx.Client) -> None:
    _log_in(browser, "/app/page")
    browser.cookies.set("own", "1", domain="127.0.0.1")
    assert browser.get("/app/page").json()["headers"]["cookie"] == "own=1"


def test_the_session_is_out_of_reach_of_scripts_and_other_sites(browser: httpx.Client) -> None:
    back = browser.get(_way_back(browser, "/app/page"))
    fresh = [one for one in back.headers.get_list("set-cookie") if "=deleted" not in one]
    assert len(fresh) == 5
    for one in fresh:
        assert {"secure", "HttpOnly", "SameSite=Lax"} <= {part.strip() for part in one.split(";")}
        assert tokens.ISSUER not in one
    assert "eyJ" not in "".join(fresh), "tokens are encrypted"


def test_an_expired_session_is_refreshed_without_a_login(
    browser: httpx.Client, provider: OpenIdProvider
) -> None:
    provider.lifetime = 1
    _log_in(browser, "/app/page")
    provider.grants.clear()

    def refreshed() -> bool:
        browser.get("/app/page")
        return provider.grants == ["refresh_token"]

    wait_for(refreshed, "the session to be refreshed")
    assert browser.get("/app/page").status_code == 200


def _follow(browser: httpx.Client, answer: httpx.Response, most: int = 12) -> httpx.Response:
    """Where a browser ends, which follows redirects, the provider's too."""
    for _ in range(most):
        if answer.status_code != 302:
            return answer
        answer = browser.get(answer.headers["location"])
    raise AssertionError("a loop of redirects")


def test_an_identity_token_that_expires_before_its_session_is_refreshed(
    browser: httpx.Client, provider: OpenIdProvider
) -> None:
    provider.claims = {"exp": tokens.now() - 90}
    back = browser.get(_way_back(browser, "/app/page?x=1"))
    provider.claims, provider.grants[:] = {}, []
    page = _follow(browser, browser.get(back.headers["location"]))
    assert (page.status_code, page.json()["path"]) == (200, "/app/page?x=1")
    assert provider.grants == ["refresh_token"]
    assert "cookie" not in page.json()["headers"]


def test_one_that_cannot_be_refreshed_is_a_new_login(browser: httpx.Client, provider: OpenIdProvider) -> None:
    provider.claims = {"exp": tokens.now() - 90}
    back = browser.get(_way_back(browser, "/app/page"))
    provider.grants[:], provider.refreshes = [], False
    page = browser.get(back.headers["location"])
    provider.claims = {}
    assert _follow(browser, page).status_code == 200
    assert provider.grants == ["refresh_token", "authorization_code"]


def test_one_that_is_never_good_ends_in_a_refusal_and_not_in_a_loop(
    browser: httpx.Client, provider: OpenIdProvider
) -> None:
    provider.claims = {"exp": tokens.now() - 90}
    assert _outcome(_follow(browser, browser.get("/app/page"))) == (401, "oidc_expired")


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", {"sec-fetch-mode": "cors"}), ("GET", {"x-requested-with": "XMLHttpRequest"}), ("POST", {})],
)
def test_what_cannot_be_sent_anywhere_is_told_that_the_login_has_expired(
    browser: httpx.Client, provider: OpenIdProvider, method: str, headers: dict[str, str]
) -> None:
    provider.claims = {"exp": tokens.now() - 90}
    browser.get(_way_back(browser, "/app/page"))
    assert _outcome(browser.request(method, "/app/page", headers=headers)) == (401, "oidc_expired")


def test_a_logout_ends_the_session_here_and_at_the_provider(
    browser: httpx.Client, provider: OpenIdProvider
) -> None:
    _log_in(browser, "/app/page")
    left = browser.get("/_oidc/corp/logout")
    assert left.status_code == 302
    assert left.headers["location"].startswith(f"{provider.url}/end?")
    assert not list(browser.cookies)
    assert browser.get("/app/page").status_code == 302


def test_a_program_is_told_instead_of_sent_to_log_in(browser: httpx.Client) -> None:
    for name, value in (("x-requested-with", "XMLHttpRequest"), ("sec-fetch-mode", "cors")):
        answer = browser.get("/app/page", headers={name: value})
        assert _outcome(answer) == (401, "oidc_failed")
        assert answer.headers["www-authenticate"] == 'Bearer realm="gateway"'
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_way_back_of_another_browser_is_refused(gateway: Gateway, browser: httpx.Client) -> None:
    back = _way_back(browser, "/app/page")
    with gateway.client(verify=client_context(authority())) as victim:
        assert _outcome(victim.get(back)) == (401, "oidc_failed")
        victim.get("/app/page")
        assert _outcome(victim.get(back)) == (401, "oidc_failed")


@pytest.mark.parametrize("query", ["", "code=x", "state=x", "code=x&state=x", "error=access_denied"])
def test_a_way_back_that_nobody_asked_for_is_refused(browser: httpx.Client, query: str) -> None:
    assert _outcome(browser.get(f"/_oidc/corp/callback?{query}")) == (401, "oidc_failed")


def test_a_code_serves_once(browser: httpx.Client) -> None:
    back = _way_back(browser, "/app/page")
    kept = dict(browser.cookies)
    assert browser.get(back).status_code == 302
    browser.cookies.clear()
    browser.cookies.update(kept)
    assert _outcome(browser.get(back)) == (401, "oidc_failed")


def test_a_provider_that_gives_no_token_lets_nobody_in(
    browser: httpx.Client, provider: OpenIdProvider
) -> None:
    back = _way_back(browser, "/app/page")
    provider.refuse = True
    assert _outcome(browser.get(back)) == (401, "oidc_failed")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another-client"}, "jwt_wrong_audience"),
        ({"iss": "https://evil.test"}, "jwt_wrong_issuer"),
    ],
)
def test_an_identity_token_for_somebody_else_lets_nobody_in(
    browser: httpx.Client, provider: OpenIdProvider, claims: dict[str, object], reason: str
) -> None:
    provider.claims = claims
    assert _outcome(_log_in(browser, "/app/page")) == (401, reason)


@pytest.mark.parametrize("kind", ["oauth_hmac", "oauth_expires", "bearer_token", "id_token"])
def test_a_cookie_that_was_changed_is_no_session(browser: httpx.Client, kind: str) -> None:
    _log_in(browser, "/app/page")
    name = f"_oidc_{kind}_corp"
    value = browser.cookies[name]
    kept = {**browser.cookies, name: value[:-2] + ("11" if value[-2:] != "11" else "22")}
    browser.cookies.clear()
    browser.cookies.update({one: text for one, text in kept.items() if "refresh" not in one})
    assert browser.get("/app/page").status_code == 302


def test_a_token_in_a_cookie_of_the_client_s_own_making_is_no_session(browser: httpx.Client) -> None:
    browser.cookies.set("_oidc_id_token_corp", tokens.token(aud=CLIENT))
    assert browser.get("/app/page").status_code == 302


def test_a_token_in_such_a_cookie_is_no_session_beside_another_credential_either(
    browser: httpx.Client,
) -> None:
    browser.cookies.set("_oidc_id_token_corp", tokens.token(aud=CLIENT))
    assert _outcome(browser.get("/either", headers={"x-api-key": "x"})) == (401, "api_key_unknown")
    answer = browser.get("/either", headers={"authorization": "Basic x"})
    assert _outcome(answer) == (401, "credentials_missing")


def test_beside_other_ways_a_credential_is_taken_and_who_has_none_logs_in(browser: httpx.Client) -> None:
    assert browser.get("/either", headers={"x-api-key": ACME}).json()["headers"]["x-consumer"] == "acme"
    token = {"authorization": f"Bearer {tokens.token()}"}
    assert browser.get("/either", headers=token).json()["headers"]["x-user-id"] == "ann"
    assert _outcome(browser.get("/either", headers={"x-api-key": "x"})) == (401, "api_key_unknown")
    assert _outcome(browser.get("/either", headers={"authorization": "Bearer x"})) == (401, "jwt_malformed")
    assert _log_in(browser, "/either").json()["headers"]["x-user-id"] == "ann"


def test_who_logged_in_is_still_to_be_authorized(browser: httpx.Client, provider: OpenIdProvider) -> None:
    assert _outcome(_log_in(browser, "/staff")) == (403, "not_authorized")
    browser.cookies.clear()
    provider.claims = {"group": ["staff"]}
    assert _log_in(browser, "/staff").status_code == 200


def test_the_secrets_of_a_login_come_over_xds(
    provider: OpenIdProvider, backend: Backend, tmp_path: Path
) -> None:
    provider.claims, provider.lifetime, provider.refuse = {}, 600, False
    folder, port = tmp_path / "gateway", free_port()
    write(folder, _files(), gateway=filled(YAML, port=port, **_given(backend, provider)))
    with (
        Running(folder, tmp_path),
        httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=client_context(authority())) as client,
    ):
        wait_for(lambda: client.get("/app/page").status_code == 302, "the gateway to serve")
        assert _log_in(client, "/app/page").status_code == 200
        (folder / "session").write_text("t" * 64)
        wait_for(lambda: client.get("/app/page").status_code == 302, "another secret to end the session")
