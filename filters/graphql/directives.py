"""The directives that bind fields to calls, as they are declared for every schema, and their values on one field."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import Node

from filters.graphql.request_context import RequestContext
from filters.graphql.selection import Pick
from filters.graphql.templates import BodyTemplate, PathTemplate, Source, TextTemplate

DECLARED = '''
"""Any JSON value."""
scalar JSON
"""A whole number of any size."""
scalar BigInt

"""The value of the field is the answer to a call."""
directive @rest(
  "A name of `upstreams`." upstream: String!
  "The path and query: `/users/{arg:id}`." path: String!
  method: String! = "GET"
  headers: [RestHeader!]! = []
  "The JSON body: `{name: \\"{arg:name}\\"}`." body: JSON
  "The part of the answer: a path, or `{from: PATH, fields: {NAME: PATH}}`." select: JSON
  "How several of these calls become one." batch: RestBatch
  "The longest time of the call, such as `300ms`." timeout: String
) on FIELD_DEFINITION
input RestHeader { name: String! value: String! }
input RestBatch {
  "The path for several keys, `{ids}`." path: String!
  "The member of each object of the answer that is its key." by: String!
  method: String! = "GET"
  body: JSON
  "The most keys of one call." size: Int! = 100
}

"""The field of a subscription has the events of a stream (server-sent events), whose data is JSON."""
directive @sse(
  upstream: String!
  path: String!
  headers: [RestHeader!]! = []
  "The part of the data: as for `@rest`." select: JSON
) on FIELD_DEFINITION

"""The value of the field is at this path of the parent's JSON, instead of the member with the field's name.
Of an input field it is the name of the member that is sent."""
directive @value(from: String!) on FIELD_DEFINITION | INPUT_FIELD_DEFINITION

"""Who gets the field, or all fields of the type. All keys must match; other callers get null and an error."""
directive @auth(
  "On one of these plans." plans: [String!]
  "With all of these scopes." scopes: [String!]
  "One of these consumers." consumers: [String!]
  "With all of these claims." claims: [AuthClaim!]
) on FIELD_DEFINITION | OBJECT
input AuthClaim { name: String! "It equals, or is a list that contains, one of these." values: [JSON!]! }

"""What the field costs, without what is below it. Default: 1 for objects and for fields with a call, 0 for others."""
directive @cost(weight: Int!) on FIELD_DEFINITION

"""How many elements the list is assumed to have when the cost is computed."""
directive @listSize(
  assumedSize: Int
  "Arguments that say how many." slicingArguments: [String!]! = []
) on FIELD_DEFINITION

"""Which member of the JSON tells the type of an object, and the types of its values. Default: `__typename`."""
directive @discriminator(property: String!, mapping: [DiscriminatorValue!]! = []) on INTERFACE | UNION
input DiscriminatorValue { value: String! type: String! }
'''
INCREMENTAL = '''
"""Delivers the fragment after the rest."""
directive @defer(if: Boolean! = true, label: String) on FRAGMENT_SPREAD | INLINE_FRAGMENT
"""Delivers the elements of the list one after the other."""
directive @stream(if: Boolean! = true, label: String, initialCount: Int! = 0) on FIELD
'''
"""The directives of operations that clients see, beside those of the specification."""
NAMES = frozenset({"rest", "sse", "value", "auth", "cost", "listSize", "discriminator"})
"""The directives that clients do not see."""
HELPERS = frozenset({"RestHeader", "RestBatch", "AuthClaim", "DiscriminatorValue"})
"""The types that only these directives use."""
FieldName = tuple[str, str]
"""The names of a type and of one of its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How calls for several keys become one. `by` takes the key of an object of the answer."""

    path: PathTemplate
    method: str
    body: BodyTemplate | None
    by: Pick
    size: int

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of its templates."""
        return (*self.path.sources, *(self.body.sources if self.body is not None else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The call of a field. `key` is the source whose values a batch has, `timeout` is in seconds."""

    field: FieldName
    upstream: str
    method: str
    path: PathTemplate
    headers: tuple[tuple[str, TextTemplate], ...]
    body: BodyTemplate | None
    select: Pick
    batch: Batch | None
    key: Source | None
    timeout: float | None
    node: Node
    sent: Mapping[tuple[str, ...], tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """For sources that are fields of inputs with `@value`: the steps of the schema, and those of the values that are sent."""
    request_headers: tuple[str, ...] = ()
    """The headers of the request that some source is, that of the batch too, in lower case."""

    @property
    def safe(self) -> bool:
        """True if equal calls of a request may be made once (RFC 9110 section 9.2.1)."""
        return self.method in SAFE

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of all templates but those of the batch."""
        body = self.body.sources if self.body is not None else ()
        headers = (one for _, text in self.headers for one in text.parts if isinstance(one, Source))
        return (*self.path.sources, *headers, *body)

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The sources of all templates."""
        return (*self.sources, *(self.batch.sources if self.batch is not None else ()))


SAFE = ("GET", "HEAD", "OPTIONS")
Claim = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who gets a field. Empty keys allow everybody. `node` is where it is written."""

    plans: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    consumers: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    node: Node | None = None

    def allows(self, context: RequestContext) -> bool:
        """True if all keys match."""
        return (
            (not self.plans or context.plan in self.plans)
            and (not self.consumers or context.consumer in self.consumers)
            and (not self.scopes or self.scopes <= context.scopes)
            and all(_has(context.claim(name), wanted) for name, wanted in self.claims)
        )


def _has(value: Any, wanted: Iterable[Any]) -> bool:
    found = value if isinstance(value, list | tuple) else (value,)
    return any(_equal(one, other) for one in found for other in wanted)


def _equal(one: Any, other: Any) -> bool:
    """True if two values are the same JSON: true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSize:
    """The number of elements that a list is assumed to have."""

    assumed: int | None
    arguments: tuple[str, ...]

    def of(self, arguments: Mapping[str, Any], default: int) -> int:
        """The number for the arguments of a request. It is at least 1, because services read 0 and -1 as they like."""
        found = [value for name in self.arguments if isinstance(value := arguments.get(name), int)]
        return max(1, *found) if found else max(1, default if self.assumed is None else self.assumed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discriminator:
    """Which member of the JSON tells the type of an object."""

    property: str = "__typename"
    mapping: tuple[tuple[str, str], ...] = ()

    def type_of(self, value: Any) -> str | None:
        """The name of the type, None if the value does not tell it."""
        found = value.get(self.property) if isinstance(value, Mapping) else None
        return dict(self.mapping).get(found, found) if isinstance(found, str) else None
