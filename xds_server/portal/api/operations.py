"""All operations of the API. What the actor may do is checked by the operations of the marketplace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xds_server.billing.usage_counts import of_actor
from xds_server.marketplace import (
    applications,
    audit,
    logins,
    notices,
    products,
    statements,
    subscriptions,
)
from xds_server.marketplace.actor import not_found
from xds_server.marketplace.records import SLOTS, Product
from xds_server.marketplace.store import require_version
from xds_server.portal.api import schemas
from xds_server.portal.api.declared import Asked, Operation, choice, listed, moment, text
from xds_server.portal.api.people_operations import PEOPLE
from xds_server.usage import latency, report
from xds_server.usage.store import SUMS

_SLOT = choice(*SLOTS)
_STATE = choice("submitted", "active", "suspended", "cancelled", "expired")
_NOTE = {"note": text(2000, description="A reason for the developer.")}
_LONG = text(100_000)
_PRICE = {"anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}]}
_PRODUCT: Mapping[str, Mapping[str, Any]] = {
    "title": text(),
    "summary": text(500),
    "description": _LONG,
    "apis": {"type": "array", "items": text(), "maxItems": products.MOST_LISTED},
    "plans": {
        "type": "array",
        "maxItems": 100,
        "items": {
            "type": "object",
            "properties": {"plan": text(), "approval": choice("automatic", "manual"), "price": _PRICE},
            "required": ["plan"],
            "additionalProperties": False,
        },
    },
    "visible_to": {"anyOf": [{"type": "array", "items": text(63), "maxItems": 1000}, {"type": "null"}]},
    "terms": _LONG,
}


def _add_token(asked: Asked) -> Any:
    body = asked.body
    made, secret = logins.add_token(
        asked.now, body["name"], body["scopes"], user=body.get("user", ""), expires=asked.moment("expires")
    )
    return {**schemas.as_json(made), "secret": secret}


def _make_key(asked: Asked) -> Any:
    made = subscriptions.make_key(
        asked.now, asked.path["subscription"], asked.path["slot"], asked.moment("not_after")
    )
    return {**schemas.as_json(made.key), "secret": made.secret}


def _subscribe(asked: Asked) -> Any:
    body = asked.body
    return subscriptions.subscribe(
        asked.now,
        body["application"],
        body["product"],
        body["plan"],
        taken=asked.gateway.consumers,
        accepts_terms=body.get("accepts_terms", False),
    )


def _change_subscription(asked: Asked) -> Any:
    found, version = subscriptions.subscription(asked.now, asked.path["subscription"]), asked.version
    require_version(found, version)
    if "plan" in asked.body:
        found = subscriptions.change_plan(asked.now, found.id, asked.body["plan"], version)
        version = None
    if "expires" in asked.body:
        found = subscriptions.set_expiry(asked.now, found.id, asked.moment("expires"), version)
    return found


def _change_product(asked: Asked) -> Product:
    values = {name: value for name, value in asked.body.items() if name != "state"}
    return products.change_product(
        asked.now,
        asked.path["product"],
        values,
        asked.gateway.offered,
        state=asked.body.get("state"),
        version=asked.version,
    )


def _usage(asked: Asked) -> Any:
    if asked.usage is None:
        raise not_found("usage store")
    by = asked.query.get("by", "day")
    rows = of_actor(asked.usage, asked.now, asked.query.get("days", 30), (by, "status"), asked.now.now)
    return report.readable([latency.summarized(row) for row in rows])


def _step(name: str, summary: str) -> Operation:
    step = getattr(subscriptions, name)
    return Operation(
        method="POST",
        path=f"/subscriptions/{{subscription}}/{name}",
        name=f"{name}_subscription",
        summary=summary,
        tag="subscriptions",
        scope="write" if name == "cancel" else "publish",
        call=lambda asked: step(
            asked.now, asked.path["subscription"], asked.body.get("note", ""), asked.version
        ),
        body=_NOTE,
        returns="Subscription",
        versioned=True,
    )


PRODUCTS = (
    Operation(
        method="GET", path="/products", name="list_products", summary="Products.", tag="products", scope="read",
        call=lambda asked: products.products(asked.now, asked.page), returns="Product", lists=True,
    ),
    Operation(
        method="POST", path="/products", name="add_product", summary="Add a product as a draft.", tag="products",
        scope="publish", call=lambda asked: products.add_product(asked.now, asked.body, asked.gateway.offered),
        body={"slug": text(63), **_PRODUCT}, needs=("slug", "title", "apis", "plans"), returns="Product", status=201,
    ),
    Operation(
        method="GET", path="/products/{product}", name="read_product", summary="A product, by identifier or slug.",
        tag="products", scope="read", call=lambda asked: products.product(asked.now, asked.path["product"]),
        returns="Product",
    ),
    Operation(
        method="PATCH", path="/products/{product}", name="change_product", versioned=True, tag="products", scope="publish",
        summary="Change a product, publish it or retire it.", call=_change_product,
        body={**_PRODUCT, "state": choice(*products.STATES)}, returns="Product",
    ),
)  # fmt: skip
APPLICATIONS = (
    Operation(
        method="GET", path="/applications", name="list_applications", summary="Applications.", tag="applications",
        scope="read", query={"organisation": text(63)},
        call=lambda asked: applications.applications(asked.now, asked.query.get("organisation"), asked.page),
        returns="Application", lists=True,
    ),
    Operation(
        method="POST", path="/applications", name="add_application", summary="Add an application.",
        tag="applications", scope="write", call=lambda asked: applications.add_application(asked.now, **asked.body),
        body={"organisation": text(63), "name": text(), "slug": text(63), "description": text(10_000)},
        needs=("organisation", "name"), returns="Application", status=201,
    ),
    Operation(
        method="GET", path="/applications/{application}", name="read_application", summary="An application.",
        tag="applications", scope="read",
        call=lambda asked: subscriptions.application(asked.now, asked.path["application"]), returns="Application",
    ),
    Operation(
        method="PATCH", path="/applications/{application}", name="change_application", versioned=True, tag="applications",
        scope="write", summary="Change an application.",
        call=lambda asked: applications.change_application(
            asked.now, asked.path["application"], **asked.body, version=asked.version
        ),
        body={"name": text(), "description": text(10_000)}, returns="Application",
    ),
    Operation(
        method="DELETE", path="/applications/{application}", name="delete_application", versioned=True, tag="applications",
        scope="write", summary="Delete an application, and cancel its subscriptions.",
        call=lambda asked: applications.delete_application(asked.now, asked.path["application"], asked.version),
        status=204,
    ),
)  # fmt: skip
SUBSCRIPTIONS = (
    Operation(
        method="GET", path="/subscriptions", name="list_subscriptions", summary="Subscriptions.", tag="subscriptions",
        scope="read", query={"state": _STATE, "application": text(36), "product": text(63)},
        call=lambda asked: subscriptions.subscriptions(
            asked.now,
            state=asked.query.get("state"),
            application_=asked.query.get("application"),
            product=asked.query.get("product"),
            wanted=asked.page,
        ),
        returns="Subscription", lists=True,
    ),
    Operation(
        method="POST", path="/subscriptions", name="subscribe", tag="subscriptions", scope="write",
        summary="Subscribe an application to a product.", call=_subscribe,
        body={"application": text(36), "product": text(63), "plan": text(), "accepts_terms": {"type": "boolean"}},
        needs=("application", "product", "plan"), returns="Subscription", status=201,
    ),
    Operation(
        method="GET", path="/subscriptions/{subscription}", name="read_subscription", tag="subscriptions",
        scope="read", summary="A subscription, by identifier or consumer.",
        call=lambda asked: subscriptions.subscription(asked.now, asked.path["subscription"]), returns="Subscription",
    ),
    Operation(
        method="PATCH", path="/subscriptions/{subscription}", name="change_subscription", versioned=True, tag="subscriptions",
        scope="write", summary="Change the plan, or the end, which publishers may do.", call=_change_subscription,
        body={"plan": text(), "expires": moment()}, returns="Subscription",
    ),
    _step("approve", "Let a submitted subscription begin."),
    _step("reject", "End a submitted subscription."),
    _step("suspend", "Make the keys fail until it is resumed."),
    _step("resume", "Let a suspended subscription go on."),
    _step("cancel", "End a subscription."),
    Operation(
        method="GET", path="/subscriptions/{subscription}/keys", name="list_keys", tag="keys", scope="read",
        summary="What is known of the keys.",
        call=lambda asked: subscriptions.keys(asked.now, asked.path["subscription"]), returns="KeyList",
    ),
    Operation(
        method="POST", path="/subscriptions/{subscription}/keys/{slot}", name="make_key", tag="keys", scope="write",
        summary="Make the primary or the secondary key. It is in this response only; the one before it stops to work.",
        call=_make_key, body={"not_after": moment()}, returns="NewKey", status=201, bounded=True,
    ),
    Operation(
        method="DELETE", path="/subscriptions/{subscription}/keys/{slot}", name="revoke_key", tag="keys",
        scope="write", summary="Make a key stop to work.",
        call=lambda asked: subscriptions.revoke_key(asked.now, asked.path["subscription"], asked.path["slot"]),
        status=204,
    ),
)  # fmt: skip
OTHERS = (
    Operation(
        method="GET", path="/usage", name="read_usage", tag="billing", scope="read", call=_usage, returns="UsageList",
        summary="Calls, bytes and milliseconds of the user's organisations by one group, and by status; publishers get all.",
        query={
            "days": {"type": "integer", "minimum": 1, "maximum": 92, "default": 30},
            "by": choice("day", "consumer", "route", "plan"),
        },
    ),
    Operation(
        method="GET", path="/statements", name="list_statements", summary="Closed statements, the newest first.",
        tag="billing", scope="read",
        query={"subscription": text(255), "period": {"type": "string", "pattern": r"^2[0-9]{3}-[0-9]{2}$", "maxLength": 7}},
        call=lambda asked: statements.statements(
            asked.now,
            subscription=asked.query.get("subscription"),
            period=asked.query.get("period"),
            wanted=asked.page,
        ),
        returns="Statement", lists=True,
    ),
    Operation(
        method="GET", path="/statements/{statement}", name="read_statement", summary="A closed statement.",
        tag="billing", scope="read", call=lambda asked: statements.statement(asked.now, asked.path["statement"]),
        returns="Statement",
    ),
    Operation(
        method="GET", path="/revenue", name="read_revenue", tag="billing", scope="publish", returns="RevenueList",
        summary="What the closed statements of the last months add up to, by month, product and currency.",
        query={"months": {"type": "integer", "minimum": 1, "maximum": 120, "default": 12}},
        call=lambda asked: statements.revenue(asked.now, asked.query.get("months", 12)),
    ),
    Operation(
        method="GET", path="/tokens", name="list_tokens", summary="The tokens of the user.", tag="tokens",
        scope="read", call=lambda asked: logins.tokens(asked.now, asked.page), returns="Token", lists=True,
    ),
    Operation(
        method="POST", path="/tokens", name="add_token", tag="tokens", scope="write",
        summary="Add a token. Its secret is in this response only.", call=_add_token,
        body={
            "name": text(),
            "scopes": {"type": "array", "items": choice(*logins.SCOPES), "minItems": 1, "maxItems": 10},
            "user": text(36),
            "expires": moment(),
        },
        needs=("name", "scopes"), returns="NewToken", status=201,
    ),
    Operation(
        method="DELETE", path="/tokens/{token}", name="revoke_token", summary="Revoke a token.", tag="tokens",
        scope="write", call=lambda asked: logins.revoke_token(asked.now, asked.path["token"]), status=204,
    ),
    Operation(
        method="GET", path="/notices", name="list_notices", summary="Notices that are shown now.", tag="notices",
        scope="read", call=lambda asked: notices.notices(asked.now, asked.page), returns="Notice", lists=True,
    ),
    Operation(
        method="POST", path="/notices", name="add_notice", summary="Announce something to everybody.", tag="notices",
        scope="publish",
        call=lambda asked: notices.add_notice(
            asked.now, asked.body["title"], asked.body["text"], asked.moment("until")
        ),
        body={"title": text(), "text": text(10_000), "until": moment()}, needs=("title", "text"), returns="Notice",
        status=201,
    ),
    Operation(
        method="DELETE", path="/notices/{notice}", name="remove_notice", summary="Show a notice no longer.",
        tag="notices", scope="publish", call=lambda asked: notices.remove_notice(asked.now, asked.path["notice"]),
        status=204,
    ),
    Operation(
        method="GET", path="/audit", name="list_audit", summary="The audit log, the newest first.", tag="audit",
        scope="read", query={"kind": text(32), "object": text(36), "organisation": text(36)},
        call=lambda asked: audit.entries(
            asked.now,
            kind=asked.query.get("kind"),
            object_=asked.query.get("object"),
            organisation=asked.query.get("organisation"),
            wanted=asked.page,
        ),
        returns="AuditEntry", lists=True,
    ),
)  # fmt: skip
OPERATIONS: tuple[Operation, ...] = (*PEOPLE, *PRODUCTS, *APPLICATIONS, *SUBSCRIPTIONS, *OTHERS)
EXTENDED: Mapping[str, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
    "NewKey": ("Key", {"secret": text(description="The key. It is shown once.")}),
    "NewToken": ("Token", {"secret": text(description="The token. It is shown once.")}),
    "NewInvitation": ("Invitation", {"link": text(2000, description="The link. It is shown once.")}),
    "NamedMember": ("Member", {"email": text(320), "name": text()}),
}
"""Schemas that extend those of records."""
PLAIN: Mapping[str, Mapping[str, Any]] = {
    "UsageRow": {
        "type": "object",
        "description": "Sums of one group and one status, and the milliseconds within which half of the requests and 99 % of them "
        "ended, or null if that was not counted. `day` is the begin of a day in UTC.",
        "properties": {
            **{name: {"type": "string"} for name in ("day", "consumer", "route", "plan")},
            **{name: {"type": "integer"} for name in ("status", *SUMS)},
            **{name: {"type": ["integer", "null"]} for name in latency.QUANTILES},
        },
        "required": ["status", *SUMS, *latency.QUANTILES],
        "additionalProperties": False,
    }
}
"""Schemas that are not made from records."""
LISTS: Mapping[str, str] = {
    "MemberList": "NamedMember",
    "KeyList": "Key",
    "UsageList": "UsageRow",
    "RevenueList": "Revenue",
}
"""Schemas of short lists, by those of their items."""


def page_of(value: Any) -> Any:
    """Return what an operation returns as JSON."""
    return listed(value) if hasattr(value, "items") and hasattr(value, "next") else schemas.as_json(value)
