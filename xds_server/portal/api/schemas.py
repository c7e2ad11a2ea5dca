"""JSON Schemas of the objects of the API, made from the records of the store, and the JSON of a record.

Times are Unix seconds in the store and texts of RFC 3339 in JSON.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from xds_server.marketplace import records
from xds_server.marketplace.errors import Invalid
from xds_server.marketplace.names import END

TIMES = frozenset({"at", "closed", "created", "decided", "deleted", "disabled", "ended", "expires", "not_after", "requested", "revoked", "started", "until",
        "used", "verified"})  # fmt: skip
"""Fields of records that are times."""
SHOWN: Mapping[str, type[Any]] = {
    one.__name__: one
    for one in (
        records.Organisation,
        records.User,
        records.Member,
        records.Invitation,
        records.Token,
        records.ProductPlan,
        records.Product,
        records.Application,
        records.Subscription,
        records.Key,
        records.Statement,
        records.Revenue,
        records.Notice,
        records.AuditEntry,
    )
}
"""The records that the API shows, by their names in the document."""
_PLAIN: Mapping[Any, Mapping[str, Any]] = {str: {"type": "string"}, int: {"type": "integer"}, Any: {}}
_MOMENT = {"type": "string", "format": "date-time"}


def of_record(record: type[Any]) -> dict[str, Any]:
    """Return the schema of a record."""
    hints = get_type_hints(record)
    properties = {one.name: _of_field(one.name, hints[one.name]) for one in fields(record)}
    return {
        "type": "object",
        "description": " ".join((record.__doc__ or "").split()),
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _of_field(name: str, hint: Any) -> dict[str, Any]:
    if name not in TIMES:
        return _of_type(hint)
    return {"anyOf": [_MOMENT, {"type": "null"}]} if type(None) in get_args(hint) else dict(_MOMENT)


def _of_type(hint: Any) -> dict[str, Any]:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if origin is Literal:
        return {"type": "string", "enum": list(parts)}
    if origin in (Union, types.UnionType):
        some = [_of_type(one) for one in parts if one is not type(None)]
        return {"anyOf": [*some, {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _of_type(parts[0])}
    if is_dataclass(hint):
        return reference(hint.__name__)  # type: ignore[union-attr] # it is a class
    return {"type": "object", "additionalProperties": True}


def reference(name: str) -> dict[str, Any]:
    """Return a reference to the schema of this name in the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def as_json(value: Any) -> Any:
    """Return a record, or a list of records, as JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _part(one.name, getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value


def _part(name: str, value: Any) -> Any:
    return moment(value) if name in TIMES and value is not None else as_json(value)


def moment(seconds: int) -> str:
    """Return a time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def seconds(text: str | None, field: str) -> int | None:
    """Return a time of RFC 3339 in Unix seconds, None for None. Raises Invalid."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None and (number := int(found.timestamp())) < END:
            return number
    except (ValueError, OverflowError):
        pass
    raise Invalid("write a moment such as 2027-01-31T12:00:00Z", field)
