"""Pages of long lists: each begins after the last identifier of the one before, so nothing is seen twice or left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select

from xds_server.marketplace.errors import Invalid
from xds_server.marketplace.store import Transaction

_R = TypeVar("_R", bound=Any)
MOST = 200
"""Objects on one page."""


class PageOf(NamedTuple, Generic[_R]):
    """Objects, and the identifier after which the next page begins; None if this is the last page."""

    items: list[_R]
    next: str | None


class Wanted(NamedTuple):
    """The page that is wanted: at most `limit` objects after an identifier, the newest first."""

    after: str | None = None
    limit: int = 50


FIRST = Wanted()
"""The first page."""


def every(load: Callable[[Wanted], PageOf[_R]]) -> list[_R]:
    """Return the objects of all pages. `load` returns one page."""
    found: list[_R] = []
    after = None
    while True:
        one = load(Wanted(after, MOST))
        found += one.items
        if one.next is None:
            return found
        after = one.next


def page(
    transaction: Transaction, record: type[_R], statement: Select[Any], by: ColumnElement[Any], wanted: Wanted
) -> PageOf[_R]:
    """Return a page of the rows of a statement, whose unique column is `by`. Raises Invalid."""
    if not 1 <= wanted.limit <= MOST:
        raise Invalid(f"write a number from 1 to {MOST}", "limit")
    if wanted.after is not None:
        statement = statement.where(by < _typed(wanted.after, by))
    rows = transaction.all(record, statement.order_by(by.desc()).limit(wanted.limit + 1))
    key = str(by.key)
    following = str(getattr(rows[wanted.limit - 1], key)) if len(rows) > wanted.limit else None
    return PageOf(rows[: wanted.limit], following)


def _typed(after: str, by: ColumnElement[Any]) -> Any:
    try:
        found = by.type.python_type(after)
    except ValueError:
        found = None
    if found is None or (isinstance(found, int) and not 0 <= found < 2**31):
        raise Invalid("use the value of `next` of the page before", "after")
    return found
