"""Products: APIs that are subscribed to together, on one of several plans."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import String, cast, or_, select

from xds_server.marketplace import names, prices, subscribers, unbilled
from xds_server.marketplace.actor import not_found
from xds_server.marketplace.errors import Conflict, Invalid
from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.people import one_of
from xds_server.marketplace.records import Product, ProductPlan
from xds_server.marketplace.schema import ORGANISATIONS, PRODUCTS
from xds_server.marketplace.store import Transaction, Version, columns, require_version

STATES = ("draft", "published", "retired")
"""A draft is seen by publishers only; a retired product has subscriptions, and takes no new ones."""
MOST_LISTED = 1000
_PRODUCT = columns(Product, PRODUCTS)
_ADDED = ("slug", "title", "summary", "description", "apis", "plans", "visible_to", "terms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What the gateway has: names of its catalogue and of its plans."""

    apis: Collection[str]
    plans: Collection[str]


def product(transaction: Transaction, id_: str) -> Product:
    """Return a product by its identifier or its slug. Raises NotFound."""
    found = _made(transaction, (PRODUCTS.c.id == id_) | (PRODUCTS.c.slug == id_))
    if found is None or not _visible(transaction, found):
        raise not_found("product")
    return found


def named(transaction: Transaction, id_: str) -> Product | None:
    """Return a product by its identifier, whoever may see it: the actor has a subscription to it."""
    return _made(transaction, PRODUCTS.c.id == id_)


def all_named(transaction: Transaction, ids: Iterable[str]) -> dict[str, Product]:
    """Return the products with some identifiers, by them, whoever may see them."""
    found = transaction.all(Product, _PRODUCT.where(PRODUCTS.c.id.in_(set(ids))))
    return {one.id: _typed(one) for one in found}


def products(
    transaction: Transaction, wanted: Wanted = FIRST, *, published: bool = False, api: str | None = None
) -> PageOf[Product]:
    """Return the products that the actor may see, or of these only `published` ones, or those with an API, the newest first."""
    statement = _PRODUCT
    if published:
        statement = statement.where(PRODUCTS.c.state == "published")
    if api is not None:
        statement = statement.where(cast(PRODUCTS.c.apis, String).contains(json.dumps(api), autoescape=True))
    if not transaction.actor.publishes:
        slugs = transaction.connection.execute(
            select(ORGANISATIONS.c.slug).where(ORGANISATIONS.c.id.in_(transaction.actor.organisations))
        ).scalars()
        visible: list[Any] = [PRODUCTS.c.visible_to.is_(None)]
        visible += [cast(PRODUCTS.c.visible_to, String).contains(f'"{slug}"') for slug in slugs]
        statement = statement.where(PRODUCTS.c.state == "published", or_(*visible))
    found = page(transaction, Product, statement, PRODUCTS.c.id, wanted)
    return PageOf([_typed(one) for one in found.items], found.next)


def add_product(transaction: Transaction, values: Mapping[str, Any], offered: Offered) -> Product:
    """Add a draft. Raises Invalid, Conflict, Forbidden."""
    transaction.actor.require_publisher()
    return _add(transaction, _checked(values, offered), source="portal", state="draft")


def change_product(
    transaction: Transaction,
    id_: str,
    values: Mapping[str, Any],
    offered: Offered,
    *,
    state: str | None = None,
    version: Version = None,
) -> Product:
    """Change a product, or its `state`. What is not among the `values` stays.

    Subscriptions follow at once: an API that is added can be called, and one that is removed cannot. A plan that has
    subscriptions cannot be removed. Raises Invalid, NotFound, Conflict, Forbidden, Stale.
    """
    transaction.actor.require_publisher()
    before = product(transaction, id_)
    if before.source == "gateway":
        raise Conflict(
            "this product is written in the gateway's YAML; change it there, or remove it to retire it"
        )
    new = dict(_checked({**_written(before), **values}, offered)) if values else {}
    if new.get("slug", before.slug) != before.slug:
        raise Conflict("a slug never changes; make another product", "slug")
    if state is not None:
        new["state"] = one_of(state, STATES, "state")
    require_version(before, version)
    if new:
        _change(transaction, before, new, version)
    return product(transaction, before.id)


def take_from_gateway(
    transaction: Transaction, written: Sequence[Mapping[str, Any]], offered: Offered
) -> None:
    """Make the products of the source ``gateway`` those that its YAML has. One that is gone is retired.

    Raises Conflict if the portal has a product with the same name, and Invalid.
    """
    known = {one.slug: one for one in map(_typed, transaction.all(Product, _PRODUCT))}
    for values in written:
        new = _checked(values, offered)
        before = known.get(new["slug"])
        if before is None:
            _add(transaction, new, source="gateway", state="published")
        elif before.source != "gateway":
            raise Conflict(
                f"products.{before.slug} of the gateway's YAML and the product '{before.slug}' of the portal have the "
                "same name; rename one of them",
                "slug",
            )
        elif (changed := {**_with_used_plans(transaction, before, new), "state": "published"}) != {
            **_written(before),
            "state": before.state,
        }:
            _change(transaction, before, changed, None)
    gone = {name for name, one in known.items() if one.source == "gateway"} - {one["slug"] for one in written}
    for name in sorted(gone):
        if known[name].state != "retired":
            _change(transaction, known[name], {"state": "retired"}, None)


def _with_used_plans(transaction: Transaction, before: Product, new: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a product of the YAML with the plans that it had before, and that subscriptions or statements still need.

    They have their limits no longer if the YAML has no such plan, but their prices, and take no new subscription by itself.
    """
    written = {one["plan"] for one in new["plans"]}
    if all(one.plan in written for one in before.plans):
        return new  # as nearly always; what is below looks through all subscriptions of the product
    used = {*subscribers.plans_in_use(transaction, before.id), *_unbilled(transaction, before)} - written
    kept = [{**asdict(one), "approval": "manual"} for one in before.plans if one.plan in used]
    return {**new, "plans": [*new["plans"], *kept]} if kept else new


def _add(transaction: Transaction, values: Mapping[str, Any], *, source: str, state: str) -> Product:
    if _made(transaction, PRODUCTS.c.slug == values["slug"]) is not None:
        raise Conflict(f"there is a product '{values['slug']}' already; choose another slug", "slug")
    row = {"id": names.new_id(), "source": source, "state": state, "created": transaction.now, "version": 1}
    transaction.add(PRODUCTS, "product", {**values, **row})
    found = _made(transaction, PRODUCTS.c.id == row["id"])
    assert found is not None
    return found


def _change(transaction: Transaction, before: Product, values: Mapping[str, Any], version: Version) -> None:
    if "plans" in values and before.source == "portal":
        _require_plans(transaction, before, values["plans"])
    plain = Product(**{name: getattr(before, name) for name in before.__dataclass_fields__})
    transaction.change(PRODUCTS, "product", _as_row(plain), values, version=version)
    if "apis" in values and tuple(values["apis"]) != before.apis:
        subscribers.refresh_product(transaction, before.id)


def _require_plans(transaction: Transaction, before: Product, plans: Sequence[Mapping[str, Any]]) -> None:
    """Raise Conflict if new plans lack one, or have another currency, that subscriptions or statements need."""
    kept = {one["plan"] for one in plans}
    used, owed = subscribers.plans_in_use(transaction, before.id), _unbilled(transaction, before)
    if lost := used - kept:
        raise Conflict(f"the plan '{min(lost)}' has subscriptions; cancel them first", "plans")
    if lost := owed.keys() - kept:
        plan = min(lost)
        raise Conflict(
            f"the plan '{plan}' has calls of {owed[plan]}, which is not closed yet; remove it then", "plans"
        )
    currencies = [
        {one["currency"] for one in found if one is not None}
        for found in ([one.price for one in before.plans], [one["price"] for one in plans])
    ]
    if (used or owed) and all(currencies) and currencies[0] != currencies[1]:
        raise Conflict("a product with subscriptions keeps its currency; make another product", "plans")


def _unbilled(transaction: Transaction, before: Product) -> Mapping[str, str]:
    """Return the plans with a price that months which are not closed need, with one of these months."""
    priced = {one.plan for one in before.plans if one.price is not None}
    return {plan: month for plan, month in unbilled.plans(transaction, before.id).items() if plan in priced}


class _Row:
    """A product as the row that it was read from, for the audit log."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)


def _as_row(one: Product) -> Any:
    return _Row({**_written(one), "id": one.id, "version": one.version, "state": one.state})


def _written(one: Product) -> dict[str, Any]:
    values = {name: getattr(one, name) for name in _ADDED}
    visible = None if one.visible_to is None else list(one.visible_to)
    return {
        **values,
        "apis": list(one.apis),
        "plans": [asdict(plan) for plan in one.plans],
        "visible_to": visible,
    }


def _checked(values: Mapping[str, Any], offered: Offered) -> dict[str, Any]:
    unknown = values.keys() - set(_ADDED)
    if unknown:
        raise Invalid(f"there is no such field; the fields are {', '.join(_ADDED)}", min(unknown))
    apis = _names(values.get("apis", ()), "apis", offered.apis)
    plans = values.get("plans", ())
    if not isinstance(plans, Iterable) or isinstance(plans, str | Mapping):
        raise Invalid("write a list of plans", "plans")
    checked = [_plan(one, number, offered.plans) for number, one in enumerate(plans)]
    if len({one["plan"] for one in checked}) < len(checked):
        raise Invalid("write each plan once", "plans")
    currencies = {one["price"]["currency"] for one in checked if one["price"] is not None}
    if len(currencies) > 1:
        raise Invalid(
            f"write one currency for all plans of a product, not {' and '.join(sorted(currencies))}", "plans"
        )
    if not apis or not checked:
        raise Invalid("a product needs at least one API and one plan", "plans" if apis else "apis")
    visible = values.get("visible_to")
    return {
        "slug": names.slug(_string(values.get("slug", ""), "slug")),
        "title": names.line(_string(values.get("title", ""), "title"), "title"),
        "summary": names.text(_string(values.get("summary", ""), "summary"), "summary", 500),
        "description": names.text(_string(values.get("description", ""), "description"), "description"),
        "apis": apis,
        "plans": checked,
        "visible_to": None
        if visible is None
        else [names.slug(one, "visible_to") for one in _names(visible, "visible_to")],
        "terms": names.text(_string(values.get("terms", ""), "terms"), "terms"),
    }


def _plan(value: Any, number: int, known: Collection[str]) -> dict[str, Any]:
    field = f"plans.{number}"
    if not isinstance(value, Mapping) or value.keys() - {"plan", "approval", "price"}:
        raise Invalid("write an object with plan, approval and price", field)
    (name,) = _names([value.get("plan", "")], f"{field}.plan", known)
    approval = one_of(
        _string(value.get("approval", "automatic"), f"{field}.approval"),
        ("automatic", "manual"),
        f"{field}.approval",
    )
    return {"plan": name, "approval": approval, "price": prices.checked(value.get("price"), f"{field}.price")}


def _names(values: Any, field: str, known: Collection[str] | None = None) -> list[str]:
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        raise Invalid("write a list of names", field)
    found = [_string(one, field) for one in values]
    if len(found) > MOST_LISTED:
        raise Invalid(f"write at most {MOST_LISTED} names", field)
    for name in found:
        if known is not None and name not in known:
            raise Invalid(
                f"the gateway has no '{name}'; it has {', '.join(sorted(known)[:20]) or 'none'}", field
            )
    return list(dict.fromkeys(found))


def _string(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise Invalid("write a text", field)
    return value


def _visible(transaction: Transaction, one: Product) -> bool:
    if transaction.actor.publishes:
        return True
    if one.state == "draft":
        return False
    if one.visible_to is None:
        return True
    theirs = select(ORGANISATIONS.c.slug).where(ORGANISATIONS.c.id.in_(transaction.actor.organisations))
    return bool(set(transaction.connection.execute(theirs).scalars()) & set(one.visible_to))


def _made(transaction: Transaction, where: Any) -> Product | None:
    found = transaction.maybe(Product, _PRODUCT.where(where))
    return None if found is None else _typed(found)


def _typed(one: Product) -> Product:
    plans: Any = one.plans
    values = {name: getattr(one, name) for name in one.__dataclass_fields__}
    return Product(**{**values, "plans": tuple(ProductPlan(**plan) for plan in plans)})
