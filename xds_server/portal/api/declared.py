"""How an operation of the API is declared: once, for the server and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xds_server.marketplace.pages import MOST, PageOf, Wanted
from xds_server.marketplace.store import Transaction, Version
from xds_server.portal.api import schemas
from xds_server.portal.gateway_view import GatewayView
from xds_server.usage.store import Store

Scope = Literal["read", "write", "publish", "admin"]
_TEXT: Mapping[str, Any] = {"type": "string", "maxLength": 255}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A valid request. `version` has those of If-Match, and `usage` is the usage store; both are None if there is none."""

    now: Transaction
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    version: Version
    gateway: GatewayView
    usage: Store | None = None

    @property
    def page(self) -> Wanted:
        """The page of a list that is asked for."""
        return Wanted(self.query.get("after"), self.query.get("limit", 50))

    def moment(self, name: str) -> int | None:
        """Return a time of the body in Unix seconds. Raises Invalid."""
        return schemas.seconds(self.body.get(name), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation. `query` and `body` are JSON Schemas of parameters by name, and `needs` the required ones of the body.

    `returns` names the schema of what it returns, None for nothing. `lists` is true if it returns a page of these. If it is
    `bounded`, a user can do it some times a minute. If it is `versioned`, it changes an object that has an ETag.
    """

    method: str
    path: str
    name: str
    summary: str
    tag: str
    scope: Scope
    call: Callable[[Asked], Any]
    returns: str | None = None
    lists: bool = False
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    body: Mapping[str, Mapping[str, Any]] | None = None
    needs: tuple[str, ...] = ()
    bounded: bool = False
    versioned: bool = False
    status: int = 200

    @property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """All parameters of the query."""
        return {**self.query, **PAGES} if self.lists else self.query

    @property
    def changes(self) -> bool:
        """True if it changes something."""
        return self.method != "GET"

    @property
    def body_schema(self) -> dict[str, Any]:
        """The schema of its body."""
        return {
            "type": "object",
            "properties": {name: dict(one) for name, one in (self.body or {}).items()},
            "required": list(self.needs),
            "additionalProperties": False,
        }


PAGES: Mapping[str, Mapping[str, Any]] = {
    "after": {"type": "string", "minLength": 1, "maxLength": 36, "description": "`next` of the page before."},
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "default": 50},
}


def text(longest: int = 255, **more: Any) -> Mapping[str, Any]:
    """Return the schema of a text."""
    return {"type": "string", "maxLength": longest, **more}


def choice(*values: str) -> Mapping[str, Any]:
    """Return the schema of one of some texts."""
    return {"type": "string", "enum": list(values)}


def moment() -> Mapping[str, Any]:
    """Return the schema of a time, or null for none."""
    return {"anyOf": [{"type": "string", "format": "date-time", "maxLength": 40}, {"type": "null"}]}


def listed(page: PageOf[Any]) -> dict[str, Any]:
    """Return a page as JSON."""
    return {"items": schemas.as_json(page.items), "next": page.next}
