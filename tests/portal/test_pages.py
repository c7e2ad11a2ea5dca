"""The pages without scripts: what each person sees, what forms do, and what no form of another site can do."""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.market import Market
from tests.support.shop_portal import ShopPortal, csrf_of, shop_portal
from xds_server import portal as portal_package
from xds_server.marketplace import logins, notices, people, products, subscriptions
from xds_server.marketplace.actor import COMMAND
from xds_server.portal.pages.error_texts import error
from xds_server.portal.pages.texts import KOREAN, chosen
from xds_server.portal.pages.visits import local_path

PACKAGE = Path(portal_package.__file__).parent
PAGES = (
    "/",
    "/apis/orders",
    "/apis/orders/docs/guide",
    "/docs",
    "/docs/start",
    "/products",
    "/products/shop",
    "/login",
)
USERS_PAGES = ("/applications", "/organisations", "/organisations/acme", "/account")
PUBLISHERS_PAGES = (
    "/manage",
    "/manage/products",
    "/manage/products/new",
    "/manage/users",
    "/manage/revenue",
    "/manage/notices",
    "/manage/audit",
)


def test_visitors_see_what_is_public(portal: ShopPortal) -> None:
    visitor = portal.as_(None)
    for path in PAGES:
        assert visitor.get(path).status_code == 200, path
    first = visitor.get("/").text
    assert "Buy things" in first
    assert "Secret" not in first
    assert visitor.get("/apis/secret").status_code == 404
    for path in (*USERS_PAGES, *PUBLISHERS_PAGES):
        answer = visitor.get(path)
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            f"/login?to={quote(path, safe='')}",
        ), path
    assert portal.as_("eve").get("/apis/secret").status_code == 200


def test_an_api_has_its_reference_and_samples(portal: ShopPortal) -> None:
    page = portal.as_(None).get("/apis/orders").text
    for text in ("Read an order", "/orders/{id}", "Its number", "curl", "import httpx", "fetch(", "YOUR_API_KEY", "2027-05-01", "<strong>shop</strong>"):  # fmt: skip
        assert text in page, text
    document = portal.as_(None).get("/apis/orders/document")
    assert document.headers["content-disposition"] == 'attachment; filename="orders.yaml"'
    guide = portal.as_(None).get("/apis/orders/docs/guide").text
    assert "<script>" not in guide
    assert "javascript:" not in guide.split("<main")[1].replace("[bad](javascript:alert(1))", "")


def test_a_search_finds_and_says_if_nothing_is_found(portal: ShopPortal) -> None:
    visitor = portal.as_(None)
    assert "/apis/orders" in visitor.get("/?q=order").text
    assert "/apis/orders" in visitor.get("/?tag=commerce").text
    assert "No API matches" in visitor.get("/?q=zebra").text
    assert "&lt;img" in visitor.get("/", params={"q": "<img src=x>"}).text


def test_from_an_application_to_a_key_and_its_end(portal: ShopPortal) -> None:
    ada, publisher = portal.as_("ada"), portal.as_("pub")
    made = ada.post("/applications", organisation=portal.market.acme.id, name="Mobile", description="App")
    application = made.headers["location"]
    product = ada.get("/products/shop").text
    assert "EUR 29.00" in product
    refused = ada.post("/products/shop/subscribe", application=application.rpartition("/")[2], plan="gold")
    assert (refused.status_code, "accept the terms" in refused.text) == (422, True)
    done = ada.post(
        "/products/shop/subscribe",
        application=application.rpartition("/")[2],
        plan="gold",
        accepts_terms="yes",
    )
    subscription = done.headers["location"].partition("#")[2]
    assert "submitted" in ada.get(application).text
    assert "acme.mobile.shop" in publisher.get("/manage").text
    publisher.post(f"/manage/subscriptions/{subscription}", action="approve", note="welcome")
    page = ada.get(application).text
    assert "active" in page
    assert "welcome" in page
    key = ada.post(f"/subscriptions/{subscription}/keys", slot="primary")
    secret = re.search(r"xgk_[\w-]{43}", key.text)
    assert secret is not None
    assert key.headers["cache-control"] == "no-store"
    assert secret[0] not in ada.get(application).text
    assert f"<code>{secret[0][-4:]}</code>" in ada.get(application).text
    assert ada.post(f"/subscriptions/{subscription}", action="revoke", slot="primary").status_code == 303
    assert ada.post(f"/subscriptions/{subscription}", action="plan", plan="free").status_code == 303
    assert ada.post(f"/subscriptions/{subscription}", action="cancel").status_code == 303
    assert "cancelled" in ada.get(application).text
    assert ada.post(application, action="delete").headers["location"] == "/applications"
    assert ada.get(application).status_code == 404
    log = publisher.get("/manage/audit").text
    assert "ada@example.com" in log
    assert secret[0] not in log


def test_people_are_invited_and_let_in_by_their_link(portal: ShopPortal) -> None:
    ada = portal.as_("ada")
    page = ada.post("/organisations/acme", action="invite", email="new@example.com", role="member").text
    link = re.search(r"/invitations/[\w-]{43}", page)
    assert link is not None
    visitor = portal.as_(None)
    assert "new@example.com" in visitor.get(link[0]).text
    accepted = visitor.client.post(link[0], data={"name": "Newton"})
    assert accepted.status_code == 303
    cookie = accepted.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "Newton" in visitor.get("/account").text
    assert visitor.client.post(link[0], data={"name": "Again", "csrf": csrf_of(visitor.get("/account"))}).status_code == 404  # fmt: skip
    assert visitor.get("/organisations/acme").status_code == 200
    assert visitor.get("/organisations/other").status_code == 404


def test_an_invitation_is_revoked_on_the_page(portal: ShopPortal) -> None:
    for who, page, more in (("ada", "/organisations/acme", {"role": "member"}), ("adm", "/manage/users", {})):
        person = portal.as_(who)
        shown = person.post(page, action="invite", email=f"new-{who}@example.com", **more).text
        link = re.search(r"/invitations/[\w-]{43}", shown)
        invitation = re.search(r'name="invitation" value="([^"]+)"', shown)
        assert link is not None
        assert invitation is not None
        assert f"new-{who}@example.com" in person.get(page).text
        assert person.post(page, action="revoke", invitation=invitation[1]).status_code == 303
        assert f"new-{who}@example.com" not in person.get(page).text
        assert portal.as_(None).get(link[0]).status_code == 404


def test_long_lists_have_pages(portal: ShopPortal) -> None:
    """The oldest of 60 is on the second page, and where there are no pages it is on the first."""
    market, ada, publisher = portal.market, portal.as_("ada"), portal.as_("pub")
    application = market.application("Oldest")
    others = [market.product(slug=f"p{number}", title=f"Product {number}") for number in range(60)]
    for one in others:
        market.subscribe(application, one)
    for number in range(60):
        market.application(f"App {number}")
    with market.store.begin(market.actor("ada")) as now:
        for number in range(60):
            people.add_organisation(now, f"Org {number}")
    with market.store.begin(market.actor("pub")) as now:
        for number in range(60):
            notices.add_notice(now, f"Notice {number}", "Text")
    for visitor, path, oldest in (
        (portal.as_(None), "/products", "/products/shop"),
        (publisher, "/manage/products", "Shop"),
        (publisher, "/manage/notices", "Notice 0<"),
        (publisher, "/manage?state=active", "acme.oldest.p0<"),
        (ada, "/applications", f"/applications/{application.id}"),
        (ada, f"/applications/{application.id}", "acme.oldest.p0<"),
        (ada, "/organisations", "/organisations/acme"),
    ):
        first = visitor.get(path).text
        older = re.search(r'href="([^"]+after=[^"]+)"', first)
        assert oldest not in first.split("<main")[1], path
        assert older is not None, path
        assert oldest in visitor.get(older[1].replace("&amp;", "&")).text, path
    assert "/products/shop" in portal.as_(None).get("/apis/orders").text
    assert f'value="{application.id}"' in ada.get("/products/shop").text
    assert f'value="{market.acme.id}"' in ada.get("/applications").text


def test_an_end_that_the_api_cannot_say_is_refused(portal: ShopPortal) -> None:
    market = portal.market
    application = market.application()
    with market.store.begin(market.actor("ada")) as now:
        subscription = subscriptions.subscribe(now, application.id, "shop", "free", accepts_terms=True)
    for who, path, form in (
        ("ada", f"/subscriptions/{subscription.id}/keys", {"slot": "primary"}),
        ("pub", f"/manage/subscriptions/{subscription.id}", {"action": "expire"}),
    ):
        refused = portal.as_(who).post(path, until="9999-12-31", **form)
        assert (refused.status_code, "year 9999" in refused.text) == (422, True), path
        assert portal.as_(who).post(path, until="9999-12-30", **form).status_code in (200, 303)


def test_a_form_of_another_site_does_nothing(portal: ShopPortal) -> None:
    ada = portal.as_("ada")
    forms = {"organisation": portal.market.acme.id, "name": "Evil", "csrf": csrf_of(ada.get("/applications"))}
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}):
        assert ada.client.post("/applications", data=forms, headers=headers).status_code == 403
    for token in ("", "wrong", csrf_of(portal.as_("bob").get("/applications"))):
        assert ada.client.post("/applications", data={**forms, "csrf": token}).status_code == 403
    plain = ada.client.post("/applications", json=forms)
    assert plain.status_code == 413
    assert "Evil" not in ada.get("/applications").text


def test_headers_keep_pages_from_doing_more_than_they_should(portal: ShopPortal) -> None:
    for path in ("/", "/apis/orders", "/nothing"):
        headers = portal.as_(None).get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
    policy = portal.as_(None).get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self' http://api.example;" in policy
    assert "unsafe" not in policy
    for file in (PACKAGE / "templates").iterdir():
        text = file.read_text()
        assert not re.search(r"\son\w+=|<style|style=|<script(?! src)", text), file


def test_a_login_ends_with_logout_and_gets_a_new_token_each_time(portal: ShopPortal) -> None:
    ada = portal.as_("ada")
    assert ada.post("/logout").status_code == 303
    assert ada.get("/account").status_code == 303
    old = portal.as_("ada")
    with portal.market.store.begin(COMMAND) as now:
        _, token = logins.invite(now, "ada@example.com", role="developer")
    accepted = old.client.post(
        f"/invitations/{token}", data={"name": "Ada", "csrf": csrf_of(old.get("/account"))}
    )
    assert accepted.cookies["xds_portal"] != old.token
    fresh = portal.as_(None)
    fresh.client.cookies.set("xds_portal", old.token)
    assert fresh.get("/account").status_code == 303


def test_an_address_with_nul_is_refused_and_a_form_with_nul_is_none(portal: ShopPortal) -> None:
    ada = portal.as_("ada")
    for path in ("/apis/a%00b", "/?q=a%00b", "/applications/%00"):
        assert ada.get(path).status_code == 400, path
    assert ada.post("/applications", organisation="a\0b", name="x").status_code == 404


def test_a_login_cookie_of_somebody_else_is_refused(portal: ShopPortal) -> None:
    visitor = portal.as_(None)
    for content in (
        "x",
        base64.b64encode(b"[" * 3000).decode(),
        base64.b64encode(b'{"state": "\\ud800"}').decode(),
    ):
        visitor.client.cookies.set("xds_portal_login", content)
        assert visitor.get("/login/callback?state=x&code=y").status_code == 403


def test_who_guesses_invitations_waits(market: Market, tmp_path: Path) -> None:
    with shop_portal(market, tmp_path / "gateway", most=3) as portal:
        visitor = portal.as_(None)
        statuses = [visitor.get(f"/invitations/{number}").status_code for number in range(5)]
        assert statuses == [404, 404, 404, 429, 429]
        assert int(visitor.get("/invitations/x").headers["retry-after"]) >= 1


def test_each_role_reaches_its_pages_and_no_other(portal: ShopPortal) -> None:
    for name, users, publishers in (("ada", 200, 403), ("pub", 200, 200), ("adm", 200, 200)):
        person = portal.as_(name)
        for path in USERS_PAGES:
            expected = 200 if path != "/organisations/acme" or name != "eve" else 404
            assert person.get(path).status_code == expected == users, (name, path)
        for path in PUBLISHERS_PAGES:
            assert person.get(path).status_code == publishers, (name, path)
    eve, market = portal.as_("eve"), portal.market
    application = market.application()
    subscription = market.subscribe(application, market.product(slug="other", terms=""))
    assert eve.get(f"/applications/{application.id}").status_code == 404
    for path, form in (
        (f"/applications/{application.id}", {"action": "delete"}),
        (f"/subscriptions/{subscription.id}", {"action": "cancel"}),
        (f"/subscriptions/{subscription.id}/keys", {"slot": "primary"}),
        ("/organisations/acme", {"action": "rename", "name": "Mine"}),
        ("/applications", {"organisation": market.acme.id, "name": "Mine"}),
        ("/products/other/subscribe", {"application": application.id, "plan": "free"}),
    ):
        assert eve.post(path, **form).status_code == 404, path
    for path, form in (
        (f"/manage/subscriptions/{subscription.id}", {"action": "suspend"}),
        ("/manage/products", {"action": "add"}),
        ("/manage/users", {"action": "invite", "email": "a@b.c"}),
    ):
        assert eve.post(path, **form).status_code == 403, path


def test_publishers_make_and_change_products(portal: ShopPortal) -> None:
    publisher = portal.as_("pub")
    form = {"slug": "more", "title": "More", "summary": "", "description": "", "terms": "", "apis": "orders"}
    gold = {
        "plan-0": "gold",
        "currency-0": "eur",
        "monthly-0": "29.5",
        "charge-0": "graduated",
        "included-0": "100",
    }
    steps = {
        "up_to-0-0": "1000",
        "amount-0-0": "0.02",
        "amount-0-1": "1",
        "per-0-1": "100",
        "approval-0": "manual",
    }
    wrong = publisher.post(
        "/manage/products", action="add", **form, **gold, **steps | {"amount-0-1": "1.234"}
    )
    assert (wrong.status_code, "Amount: write an amount such as 29.00" in wrong.text) == (422, True)
    made = publisher.post("/manage/products", action="add", **form, **gold, **steps, **{"plan-1": "free"})
    assert made.status_code == 303
    with portal.market.store.read(portal.market.actor("pub")) as now:
        plans = products.product(now, "more").plans
    assert [(one.plan, one.approval) for one in plans] == [("gold", "manual"), ("free", "automatic")]
    assert plans[0].price == {
        "currency": "EUR",
        "monthly": 2950,
        "included": 100,
        "per_call": None,
        "tiers": {
            "mode": "graduated",
            "steps": [{"amount": 2, "per": 1, "up_to": 1000}, {"amount": 100, "per": 100, "up_to": None}],
        },
        "statuses": [],
    }
    page = publisher.get("/manage/products").text
    product = re.search(r'href="/manage/products/([^"]+)" aria-label="Change: More"', page)
    assert product is not None
    assert portal.as_(None).get("/products/more").status_code == 404
    assert publisher.post("/manage/products", action="publish", product=product[1]).status_code == 303
    assert portal.as_(None).get("/products/more").status_code == 200
    stale = publisher.post(
        "/manage/products",
        action="change",
        product=product[1],
        version="1",
        **form,
        **{"plan-0": "gold"},
    )
    assert stale.status_code == 412


def test_a_notice_is_on_the_first_page_until_it_ends(portal: ShopPortal) -> None:
    publisher, clock = portal.as_("pub"), portal.market.clock
    publisher.post("/manage/notices", title="Maintenance", text="On **Sunday**. <script>", days="2")
    first = portal.as_(None).get("/").text
    assert "Maintenance" in first
    assert "<strong>Sunday</strong>" in first
    assert "<script>" not in first
    clock.now += 2 * 86_400
    assert "Maintenance" not in portal.as_(None).get("/").text
    publisher = portal.as_("pub")
    publisher.post("/manage/notices", title="Again", text="x")
    notice = re.search(r'name="notice" value="([^"]+)"', publisher.get("/manage/notices").text)
    assert notice is not None
    publisher.post("/manage/notices", action="remove", notice=notice[1])
    assert "Again" not in portal.as_(None).get("/").text
    assert portal.as_("ada").post("/manage/notices", title="Mine", text="x").status_code == 403


@pytest.mark.parametrize(
    ("text", "path"),
    [("/apis/x?y=1", "/apis/x?y=1"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil.example", "/"), ("/\nx", "/"), ("evil", "/"), ("", "/")],
)  # fmt: skip
def test_redirects_stay_here(text: str, path: str) -> None:
    assert local_path(text) == path


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [("", "ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("", "en;q=0.5, ko;q=0.7", "ko"), ("en", "ko", "en"), ("", "fr", "en"), ("x", "ko;q=0", "en"), ("", "ko;q=x,en", "en")],
)  # fmt: skip
def test_the_language_is_that_of_the_cookie_or_the_browser(cookie: str, accepted: str, language: str) -> None:
    assert chosen(cookie, accepted) == language


def test_every_text_is_there_in_korean(portal: ShopPortal) -> None:
    used: set[str] = set()
    for file in (PACKAGE / "templates").iterdir():
        used |= set(re.findall(r"""_\("([^"]+)"\)""", file.read_text()))
        used |= set(re.findall(r"""_\('([^']+)'\)""", file.read_text()))
    for file in (PACKAGE / "pages").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "text"
            ):
                used |= {one.value for one in node.args if isinstance(one, ast.Constant)}
    assert used - KOREAN.keys() == set()
    ada = portal.as_("ada")
    ada.post("/account", action="save", name="Ada", language="ko")
    page = ada.get("/applications")
    assert '<html lang="ko">' in page.text
    assert "내 애플리케이션" in page.text
    assert "해당 항목이 없습니다" in portal.as_(None, "ko").get("/nothing/here").text
    switched = portal.as_(None, "ko")
    switched.get("/language", params={"language": "en", "to": "/docs"})
    assert '<html lang="en">' in switched.get("/docs").text


_ERRORS = ("Invalid", "Conflict", "Forbidden", "NotFound", "Stale")
_OF_THE_API = {"portal/api/application.py", "portal/api/schemas.py"}


def _messages() -> Iterator[str]:
    """Yield the messages of all errors that pages can show, with X for each value."""
    for folder in ("marketplace", "billing", "portal"):
        for file in sorted((PACKAGE.parent / folder).rglob("*.py")):
            if file.relative_to(PACKAGE.parent).as_posix() in _OF_THE_API:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _ERRORS and node.args:
                    yield from _texts(node.args[0])
                for one in getattr(node, "keywords", ()):
                    if one.arg == "message":
                        yield from _texts(one.value)


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [one.value if isinstance(one, ast.Constant) else "X" for one in node.values]
        yield "".join(map(str, parts))


def test_every_error_is_there_in_korean(portal: ShopPortal) -> None:
    found = {*_messages(), "write a moment in the future", "write an amount such as 29.00"} - {"X; X"}
    assert len(found) > 70
    assert [one for one in sorted(found) if error("ko", one) == one] == []
    assert error("en", "write one of a, b") == "write one of a, b"
    assert (
        error("ko", "write at most 255 characters; these are 300")
        == "최대 255자까지 입력하세요. 지금은 300자입니다."
    )
    assert (
        error("ko", "the subscription is cancelled; make a new one")
        == "구독 상태가 '해지'입니다. 새로 구독하세요."
    )
    assert error("ko", "another message") == "another message"


def test_the_audit_log_and_the_reference_are_in_korean(portal: ShopPortal) -> None:
    portal.as_("ada").post("/applications", organisation=portal.market.acme.id, name="Mobile")
    publisher = portal.as_("pub")
    publisher.client.cookies.set("language", "ko")
    log = publisher.get("/manage/audit").text
    assert "생성: 애플리케이션" in log
    assert "로그인: 사용자" in log
    for code in ("create", "application", "login"):
        assert f">{code} " not in log
    page = portal.as_(None, "ko").get("/apis/orders").text
    assert "<small>경로</small>" in page


def test_keys_and_subscriptions_end_on_a_day(portal: ShopPortal) -> None:
    market = portal.market
    market.clock.now = 1_800_000_000  # 2027-01-15
    application = market.application()
    subscription = market.subscribe(application, market.product(terms=""))
    ada, publisher = portal.as_("ada"), portal.as_("pub")
    keys = f"/subscriptions/{subscription.id}/keys"
    for until, text in (
        ("tomorrow", "2027-01-31"),
        ("2027-01-14", "in the future"),
        ("2027-13-01", "write a day"),
    ):
        assert text in ada.post(keys, slot="primary", until=until).text
    made = ada.post(keys, slot="primary", until="2027-01-15")
    assert "valid until 2027-01-15" in made.text
    assert "valid until 2027" not in ada.post(keys, slot="secondary", until="").text.replace(
        "valid until 2027-01-15", ""
    )
    manage = f"/manage/subscriptions/{subscription.id}"
    assert publisher.post(manage, action="expire", until="2027-02-28").status_code == 303
    assert 'value="2027-02-28"' in publisher.get("/manage?state=active").text
    assert "2027-02-28" in ada.get(f"/applications/{application.id}").text
    publisher.post(manage, action="expire", until="")
    assert "2027-02-28" not in ada.get(f"/applications/{application.id}").text
    assert ada.post(manage, action="expire", until="2027-02-28").status_code == 403


def test_a_product_of_the_yaml_is_changed_there(portal: ShopPortal) -> None:
    publisher = portal.as_("pub")
    with portal.market.store.read(portal.market.actor("pub")) as now:
        shop = products.product(now, "shop")
    assert shop.source == "gateway"
    for form in ({"action": "retire"}, {"action": "change", "title": "Mine", "slug": "shop"}):
        assert publisher.post("/manage/products", product=shop.id, **form).status_code == 409
    assert publisher.get(f"/manage/products/{shop.id}").status_code == 409
    assert f'value="{shop.id}"' not in publisher.get("/manage/products").text


def _field(page: str, name: str) -> str:
    """Return the HTML of a field."""
    found = re.search(rf'<(input|textarea|select)\b[^>]*\bname="{name}"[^>]*>', page)
    assert found is not None, name
    return found[0]


def test_a_form_that_is_rejected_keeps_what_was_typed(portal: ShopPortal) -> None:
    ada = portal.as_("ada")
    name, slug = 'A "quoted" <name>', "not a slug"
    page = ada.post("/organisations", name=name, slug=slug)
    assert (page.status_code, "Slug: write 1 to 63" in page.text) == (422, True)
    assert 'value="A &quot;quoted&quot; &lt;name&gt;"' in _field(page.text, "name")
    assert 'aria-invalid="true" aria-describedby="rejected"' in _field(page.text, "slug")
    assert 'id="rejected"' in page.text
    assert "aria-invalid" not in _field(page.text, "name")
    assert csrf_of(page) == csrf_of(ada.get("/organisations"))
    assert ada.post("/organisations", name=name, slug="good").status_code == 303


def test_only_the_form_that_was_sent_is_filled(portal: ShopPortal) -> None:
    page = portal.as_("ada", "ko").post("/account", action="token", name="", scopes="write")
    assert page.status_code == 422
    forms = {re.search(r'name="action" value="(\w+)"', one)[1]: one for one in re.findall(r"<form.*?</form>", page.text, re.DOTALL) if 'name="action"' in one}  # type: ignore[index] # it is there  # fmt: skip
    assert 'value="Ada"' in _field(forms["save"], "name")
    assert 'value=""' in _field(forms["token"], "name")
    assert "aria-invalid" in _field(forms["token"], "name")
    checked = re.findall(r'<input[^>]*value="(\w+)"[^>]* checked>', forms["token"])
    assert checked == ["write"]


def test_a_subscription_that_is_rejected_keeps_the_plan(portal: ShopPortal) -> None:
    application = portal.market.application()
    page = portal.as_("ada").post("/products/shop/subscribe", application=application.id, plan="gold")
    assert page.status_code == 422
    assert "<option selected>gold" in page.text
    assert "Terms: accept the terms" in page.text
    assert "aria-invalid" in _field(page.text, "accepts_terms")


def test_a_key_with_a_wrong_end_is_mended_on_the_page_of_the_application(portal: ShopPortal) -> None:
    market = portal.market
    subscription = market.subscribe(market.application(), market.product())
    page = portal.as_("ada").post(
        f"/subscriptions/{subscription.id}/keys", slot="secondary", until="2001-01-01"
    )
    assert (page.status_code, "valid until: write a moment" in page.text) == (422, True)
    marked = re.findall(r"<input[^>]*aria-invalid[^>]*>", page.text)
    assert [('value="2001-01-01"' in one, "until-secondary" in one) for one in marked] == [(True, True)]
    queue = portal.as_("pub").post(
        f"/manage/subscriptions/{subscription.id}", action="expire", until="2001-01-01"
    )
    assert (queue.status_code, 'value="2001-01-01"' in queue.text) == (422, True)


def test_a_product_that_is_rejected_keeps_its_prices(portal: ShopPortal) -> None:
    form = {"slug": "new", "title": "New", "apis": "orders", "description": "Line 1\nLine 2", "plan-0": "gold", "currency-0": "EUR", "charge-0": "volume", "amount-0-0": "1", "up_to-0-0": "5", "amount-0-1": "2", "up_to-0-1": "3", "amount-0-2": "9"}  # fmt: skip
    page = portal.as_("pub").post("/manage/products", action="add", **form)
    assert page.status_code == 422, page.text
    assert "aria-invalid" in _field(page.text, "up_to-0-1")
    assert "Up to call: " in page.text
    assert 'value="9"' in _field(page.text, "amount-0-2")
    assert "\nLine 1\nLine 2</textarea>" in page.text
    assert re.search(r'name="charge-0">.*?<option value="volume" selected>', page.text, re.DOTALL)
    taken = portal.as_("pub").post(
        "/manage/products", action="add", **{**form, "slug": "shop", "up_to-0-1": "8"}
    )
    assert (taken.status_code, "Slug: there is a product" in taken.text) == (409, True)
    assert "aria-invalid" in _field(taken.text, "slug")


def test_an_error_leads_back_to_where_it_came_from(portal: ShopPortal) -> None:
    ada = portal.as_("ada")
    for referer, back in (
        (f"{portal.address}/usage?days=90", "/usage?days=90"),
        ("https://evil.example/x", "/"),
        (f"{portal.address}//evil.example", "/"),
    ):
        page = ada.client.get("/subscriptions/x/y", headers={"referer": referer})
        assert f'<a href="{back}">Back' in page.text
