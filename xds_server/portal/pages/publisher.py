"""Pages of publishers and admins: what waits for approval, products, users and the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from xds_server.marketplace import audit, logins, notices, people, products, subscriptions
from xds_server.marketplace.errors import Conflict, Invalid
from xds_server.marketplace.pages import every
from xds_server.portal.pages import plan_forms
from xds_server.portal.pages.visits import Visit, end_of_day, see

_NEW = "new"
"""The path of the form for a product that there is not yet."""
_STEPS = {
    "approve": subscriptions.approve,
    "reject": subscriptions.reject,
    "suspend": subscriptions.suspend,
    "resume": subscriptions.resume,
    "cancel": subscriptions.cancel,
}


def queue(visit: Visit) -> Response:
    """The subscriptions, first of all those that wait for approval."""
    return _queue(visit, visit.query.get("state", "submitted"))


def queue_of_subscription(visit: Visit) -> Response:
    """The subscriptions in the state of one of them."""
    with visit.marketplace.read(visit.actor) as now:
        found = subscriptions.subscription(now, visit.path["subscription"])
    return _queue(visit, found.state)


def _queue(visit: Visit, state: str) -> Response:
    visit.actor.require_publisher()
    with visit.marketplace.read(visit.actor) as now:
        listed = subscriptions.subscriptions(now, state=state, wanted=visit.wanted)
        of = products.all_named(now, (one.product for one in listed.items))
    rows = [{"subscription": one, "product": of[one.product]} for one in listed.items]
    return visit.page("queue.html", rows=rows, state=state, next=listed.next)


def decide(visit: Visit) -> Response:
    """Take a step of a subscription, or say when it ends."""
    visit.actor.require_publisher()
    action = visit.form.get("action", "")
    if action not in (*_STEPS, "expire"):
        raise Invalid(f"write one of {', '.join(_STEPS)}, expire", "action")
    with visit.marketplace.begin(visit.actor) as now:
        before = subscriptions.subscription(now, visit.path["subscription"])
        if action == "expire":
            subscriptions.set_expiry(now, before.id, end_of_day(visit.form.get("until", ""), "until"))
        else:
            _STEPS[action](now, before.id, visit.form.get("note", ""))
    return see(f"/manage?state={before.state}")


def all_products(visit: Visit) -> Response:
    """All products."""
    visit.actor.require_publisher()
    with visit.marketplace.read(visit.actor) as now:
        found = products.products(now, visit.wanted)
    return visit.page("manage_products.html", products=found.items, next=found.next)


def product_form(visit: Visit) -> Response:
    """A form for a product of the portal, or for another one."""
    return _product_form(visit, visit.path["product"])


def rejected_product(visit: Visit) -> Response:
    """The page with the form that changes products, or adds one."""
    if visit.form.get("action") in ("add", "change"):
        return _product_form(visit, visit.form.get("product", _NEW))
    return all_products(visit)


def _product_form(visit: Visit, wanted: str) -> Response:
    visit.actor.require_publisher()
    found = None
    if wanted != _NEW:
        with visit.marketplace.read(visit.actor) as now:
            found = products.product(now, wanted)
        if found.source != "portal":
            raise Conflict("the product is written in the gateway's YAML; change it there")
    return visit.page(
        "manage_product.html",
        product=found,
        rows=plan_forms.shown(found.plans if found is not None else ()),
        apis=sorted(visit.gateway.entries),
        plans=sorted(visit.gateway.plans),
    )


def change_product(visit: Visit) -> Response:
    """Add, publish or retire a product, or change its prices."""
    visit.actor.require_publisher()
    try:
        _change_product(visit)
    except Invalid as error:
        raise Invalid(error.message, plan_forms.name_of(error.field, visit.form)) from None
    return see("/manage/products")


def _change_product(visit: Visit) -> None:
    form, action = visit.form, visit.form.get("action")
    with visit.marketplace.begin(visit.actor) as now:
        if action == "add":
            products.add_product(now, _product(form), visit.gateway.offered)
        elif action == "change":
            values = {key: value for key, value in _product(form).items() if key != "slug"}
            products.change_product(
                now,
                form.get("product", ""),
                values,
                visit.gateway.offered,
                version=_number(form.get("version", "")),
            )
        else:
            state = {"publish": "published", "retire": "retired"}.get(action or "", "")
            products.change_product(now, form.get("product", ""), {}, visit.gateway.offered, state=state)


def _product(form: Mapping[str, str]) -> dict[str, Any]:
    return {
        "slug": form.get("slug", ""),
        "title": form.get("title", ""),
        "summary": form.get("summary", ""),
        "description": form.get("description", ""),
        "terms": form.get("terms", ""),
        "apis": _listed(form.get("apis", "")),
        "plans": plan_forms.read(form),
        "visible_to": _listed(form.get("visible_to", "")) or None,
    }


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def users(visit: Visit, **shown: Any) -> Response:
    """All users, and a form to invite another one."""
    visit.actor.require_publisher()
    with visit.marketplace.read(visit.actor) as now:
        found = people.users(now, visit.wanted)
        of = people.memberships(now, (one.id for one in found.items))
        invited = (
            every(lambda wanted: logins.invitations(now, wanted=wanted)) if visit.actor.administers else []
        )
    return visit.page(
        "users.html",
        users=found.items,
        organisations=of,
        next=found.next,
        roles=people.ROLES,
        invited=invited,
        **shown,
    )


def change_user(visit: Visit) -> Response:
    """Invite a user, revoke an invitation, or change a user."""
    form, action = visit.form, visit.form.get("action")
    with visit.marketplace.begin(visit.actor) as now:
        if action == "invite":
            _, token = logins.invite(now, form.get("email", ""), role=form.get("role", "developer"))
        elif action == "revoke":
            logins.revoke_invitation(now, form.get("invitation", ""))
        elif action == "role":
            people.change_user(now, form.get("user", ""), role=form.get("role", ""))
        else:
            people.change_user(now, form.get("user", ""), disabled=action == "disable")
    if action == "invite":
        return users(visit, link=f"{visit.gateway.portal.url or ''}/invitations/{token}")
    return see("/manage/users")


def announcements(visit: Visit) -> Response:
    """The notices, and a form for another one."""
    visit.actor.require_publisher()
    with visit.marketplace.read(visit.actor) as now:
        found = notices.notices(now, visit.wanted)
    return visit.page("notices.html", notices=found.items, next=found.next)


def change_announcements(visit: Visit) -> Response:
    """Add or remove a notice."""
    form = visit.form
    with visit.marketplace.begin(visit.actor) as now:
        if form.get("action") == "remove":
            notices.remove_notice(now, form.get("notice", ""))
        else:
            days = _number(form.get("days", ""))
            until = now.now + days * 86_400 if days and days <= 3650 else None
            notices.add_notice(now, form.get("title", ""), form.get("text", ""), until)
    return see("/manage/notices")


def log(visit: Visit) -> Response:
    """The audit log."""
    visit.actor.require_publisher()
    with visit.marketplace.read(visit.actor) as now:
        found = audit.entries(now, wanted=visit.wanted)
    return visit.page("audit.html", entries=found.items, next=found.next)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
