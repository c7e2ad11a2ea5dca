"""Notices: what publishers announce to everybody on the first page."""

from __future__ import annotations

from sqlalchemy import or_

from xds_server.marketplace import names
from xds_server.marketplace.pages import FIRST, PageOf, Wanted, page
from xds_server.marketplace.records import Notice
from xds_server.marketplace.schema import NOTICES
from xds_server.marketplace.store import Transaction, columns

_NOTICE = columns(Notice, NOTICES)


def notices(transaction: Transaction, wanted: Wanted = FIRST) -> PageOf[Notice]:
    """Return the notices that are shown now, the newest first."""
    shown = or_(NOTICES.c.until.is_(None), NOTICES.c.until > transaction.now)
    return page(transaction, Notice, _NOTICE.where(shown), NOTICES.c.id, wanted)


def add_notice(transaction: Transaction, title: str, text: str, until: int | None = None) -> Notice:
    """Announce something. Raises Invalid, Forbidden."""
    transaction.actor.require_publisher()
    if until is not None:
        names.future(until, transaction.now, "until")
    id_ = names.new_id()
    values = {
        "id": id_,
        "title": names.line(title, "title"),
        "text": names.text(text, "text", 10_000),
        "created": transaction.now,
        "until": until,
    }
    transaction.add(NOTICES, "notice", values)
    return transaction.one(Notice, _NOTICE.where(NOTICES.c.id == id_), "notice")


def remove_notice(transaction: Transaction, id_: str) -> None:
    """Show a notice no longer. Raises NotFound, Forbidden."""
    transaction.actor.require_publisher()
    before = transaction.one(Notice, _NOTICE.where(NOTICES.c.id == id_), "notice")
    transaction.connection.execute(NOTICES.delete().where(NOTICES.c.id == before.id))
    transaction.audit("delete", "notice", before.id, before={"title": before.title, "text": before.text})
