"""The audit log: who did what, what it was before and after."""

from __future__ import annotations

from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.records import AuditEntry
from xds_server.marketplace.schema import AUDIT
from xds_server.marketplace.store import Transaction, columns


def entries(
    transaction: Transaction,
    *,
    kind: str | None = None,
    object_: str | None = None,
    organisation: str | None = None,
    wanted: Wanted = FIRST,
) -> PageOf[AuditEntry]:
    """Return entries, the newest first. Owners see those of their organisation, publishers all. Raises NotFound, Forbidden."""
    statement = columns(AuditEntry, AUDIT)
    if not transaction.actor.publishes:
        if organisation is None:
            transaction.actor.require_sight_of_all()
        else:
            transaction.actor.require_owner(organisation)
    if organisation is not None:
        statement = statement.where(AUDIT.c.organisation == organisation)
    if kind is not None:
        statement = statement.where(AUDIT.c.kind == kind)
    if object_ is not None:
        statement = statement.where(AUDIT.c.object == object_)
    return page(transaction, AuditEntry, statement, AUDIT.c.id, wanted)
