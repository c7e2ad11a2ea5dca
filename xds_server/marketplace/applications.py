"""Applications: the programs of an organisation that call APIs."""

from __future__ import annotations

from sqlalchemy import select

from xds_server.marketplace import names, people, subscriptions
from xds_server.marketplace.errors import Conflict
from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.records import Application
from xds_server.marketplace.schema import APPLICATIONS
from xds_server.marketplace.store import Transaction, Version, columns

MOST = 1000
"""Applications of one organisation."""
_APPLICATION = columns(Application, APPLICATIONS)


def applications(
    transaction: Transaction, organisation: str | None = None, wanted: Wanted = FIRST, *, own: bool = False
) -> PageOf[Application]:
    """Return the applications that the actor may see, or only those of the actor's `own` organisations, the newest first.

    Raises NotFound.
    """
    statement = _APPLICATION.where(APPLICATIONS.c.deleted.is_(None))
    if organisation is not None:
        found = people.organisation(transaction, organisation)
        statement = statement.where(APPLICATIONS.c.organisation == found.id)
    elif own or not transaction.actor.publishes:
        statement = statement.where(APPLICATIONS.c.organisation.in_(transaction.actor.organisations))
    return page(transaction, Application, statement, APPLICATIONS.c.id, wanted)


def add_application(
    transaction: Transaction, organisation: str, name: str, *, slug: str = "", description: str = ""
) -> Application:
    """Add an application of an organisation. Without a `slug` it gets one of its name. Raises Invalid, NotFound, Forbidden,
    Conflict.
    """
    owner = people.organisation(transaction, organisation)
    transaction.actor.require_member(owner.id, "organisation")
    name = names.line(name, "name")
    theirs = select(APPLICATIONS.c.slug).where(APPLICATIONS.c.organisation == owner.id)
    taken = set(transaction.connection.execute(theirs).scalars())
    slug = names.slug(slug) if slug else names.free_slug(names.slug_of(name) or names.any_slug("app"), taken)
    if slug in taken:
        raise Conflict(f"the organisation has or had an application '{slug}'; choose another slug", "slug")
    if len(taken) >= MOST:
        raise Conflict(f"an organisation has at most {MOST} applications; use one that there is")
    id_ = names.new_id()
    values = {
        "id": id_,
        "organisation": owner.id,
        "slug": slug,
        "name": name,
        "description": names.text(description, "description", 10_000),
        "created": transaction.now,
        "version": 1,
    }
    transaction.add(APPLICATIONS, "application", values, owner.id)
    return subscriptions.application(transaction, id_)


def change_application(
    transaction: Transaction,
    id_: str,
    *,
    name: str | None = None,
    description: str | None = None,
    version: Version = None,
) -> Application:
    """Change what is not None. The slug never changes. Raises Invalid, NotFound, Forbidden, Stale."""
    before = subscriptions.application(transaction, id_)
    transaction.actor.require_member(before.organisation, "application")
    values: dict[str, str] = {}
    if name is not None:
        values["name"] = names.line(name, "name")
    if description is not None:
        values["description"] = names.text(description, "description", 10_000)
    owner = before.organisation
    transaction.change(APPLICATIONS, "application", before, values, version=version, organisation=owner)
    return subscriptions.application(transaction, before.id)


def delete_application(transaction: Transaction, id_: str, version: Version = None) -> None:
    """Delete an application and cancel its subscriptions. Its usage and its invoices stay. Raises NotFound, Forbidden, Stale."""
    before = subscriptions.application(transaction, id_)
    transaction.actor.require_member(before.organisation, "application")
    for one in subscriptions.live(transaction, before.id):
        subscriptions.cancel(transaction, one.id)
    values = {"deleted": transaction.now}
    owner = before.organisation
    transaction.change(
        APPLICATIONS, "application", before, values, action="delete", version=version, organisation=owner
    )
