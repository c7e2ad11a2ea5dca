"""The entries of the catalogue: what the gateway says of an API, joined with what its document says."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from filters.api_documents.faults import DocumentFaults
from filters.api_documents.reference import ApiReference
from filters.language.options import OFF
from xds_server.catalog.credentials import Credential, credential_of
from xds_server.gateway.catalog_documents import inputs_of, reference_of
from xds_server.gateway.model.catalog import Api, Lifecycle, MarkdownFile, Owner, Visibility, moment
from xds_server.gateway.model.gateway import Gateway

_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
KEPT = 2_000_000
"""Bytes of the documents whose references are kept. Those of others are made again when they are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page in Markdown. Its title is its first heading, else its file's name."""

    slug: str
    title: str
    text: str = field(repr=False)

    @classmethod
    def of(cls, file: MarkdownFile, content: bytes) -> Page:
        """Return the page of a file."""
        text = content.decode("utf-8", "replace").removeprefix("\ufeff")
        heading = _HEADING.search(text)
        return cls(slug=file.slug, title=heading[1] if heading else file.slug, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The document of an API, for downloads. `name` is that of a file."""

    kind: str
    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """An API of the catalogue. It is the same object as before if nothing of it changed.

    `base_url` is where developers call it: the portal's `gateway`, and the path before those of its operations.
    """

    name: str
    title: str
    summary: str
    version: str
    description: str
    routes: tuple[str, ...]
    tags: tuple[str, ...]
    owner: Owner | None
    lifecycle: Lifecycle
    deprecated: datetime | None
    sunset: datetime | None
    successor: str | None
    visibility: Visibility
    pages: tuple[Page, ...]
    document: Document | None
    base_url: str
    credential: Credential | None
    read: Callable[[], ApiReference | None] = field(repr=False)
    """Reads its document."""

    def listed(self, organisation: str | None) -> bool:
        """True if the catalogue lists it for members of an organisation; None stands for people without one."""
        return self.lifecycle != "retired" and self.visibility.allows(organisation)


class Catalog:
    """The entries of a gateway by name, in the order of their names, and the references of their documents."""

    def __init__(self) -> None:
        self.entries: Mapping[str, Entry] = {}
        self._inputs: dict[str, object] = {}
        self._references: OrderedDict[Entry, tuple[ApiReference | None, int]] = OrderedDict()

    def update(self, gateway: Gateway) -> None:
        """Take over another gateway. An entry that did not change stays the same object."""
        found: dict[str, Entry] = {}
        inputs: dict[str, object] = {}
        for name, api in gateway.sections.catalog.items():
            inputs[name] = _inputs(api, gateway)
            if name in self.entries and self._inputs[name] == inputs[name]:
                found[name] = self.entries[name]
            else:
                found[name] = self._entry(name, api, gateway)
        self.entries, self._inputs = found, inputs
        current = set(found.values())
        for entry in [one for one in self._references if one not in current]:
            del self._references[entry]

    def reference(self, name: str) -> ApiReference | None:
        """Return the reference of an API, or None if it has no document. Raises KeyError."""
        entry = self.entries[name]
        if entry not in self._references:
            self._keep(entry, entry.read())
        self._references.move_to_end(entry)
        return self._references[entry][0]

    def _keep(self, entry: Entry, reference: ApiReference | None) -> None:
        size = len(entry.document.content) if entry.document is not None else 0
        self._references[entry] = reference, size
        total = sum(one for _, one in self._references.values())
        while total > KEPT and len(self._references) > 1:
            _, (_, gone) = self._references.popitem(last=False)
            total -= gone

    def _entry(self, name: str, api: Api, gateway: Gateway) -> Entry:
        contents, portal = gateway.contents, gateway.sections.portal

        def read() -> ApiReference | None:
            try:
                return reference_of(api, contents)
            except DocumentFaults:  # xds check reports it; the catalogue shows the rest
                return None

        reference = read()
        described = reference if reference is not None else ApiReference(kind="openapi")
        entry = Entry(
            name=name,
            title=api.title or described.title or name,
            summary=api.summary or described.summary,
            version=api.version or described.version,
            description=described.description,
            routes=api.routes,
            tags=api.tags,
            owner=api.owner,
            lifecycle=api.lifecycle,
            deprecated=moment(api.deprecated) if api.deprecated is not None else None,
            sunset=moment(api.sunset) if api.sunset is not None else None,
            successor=api.successor,
            visibility=api.visibility,
            pages=tuple(Page.of(one, contents[one]) for one in api.docs if one in contents),
            document=_document(name, api, gateway),
            base_url=f"{portal.gateway or ''}{_base_path(api, reference)}",
            credential=credential_of(_policies(api, gateway)),
            read=read,
        )
        self._keep(entry, reference)
        return entry


def _inputs(api: Api, gateway: Gateway) -> tuple[Any, ...]:
    pages = tuple(gateway.contents.get(one) for one in api.docs)
    policies = tuple(_policies(api, gateway))
    return api, inputs_of(api, gateway.contents), pages, gateway.sections.portal.gateway, policies


def _policies(api: Api, gateway: Gateway) -> Iterator[Mapping[str, Any]]:
    """Yield the policies of the API's routes that say how callers are identified."""
    for route in api.routes:
        settings = gateway.policies.get(route, {})
        yield {
            key: settings[key]
            for key in ("api_key", "jwt", "basic_auth", "oidc", "mtls")
            if settings.get(key, OFF) is not OFF
        }


def _base_path(api: Api, reference: ApiReference | None) -> str:
    if api.graphql is not None:
        return api.graphql.path
    path = reference.base_path if reference is not None else ""
    return path if path.startswith("/") else ""  # a server of another scheme has no path at the gateway


def _document(name: str, api: Api, gateway: Gateway) -> Document | None:
    """Return the document for downloads. That of gRPC is a descriptor set."""
    contents = gateway.contents
    if api.openapi is not None and api.openapi in contents:
        content = contents[api.openapi]
        ending = "json" if content.lstrip()[:1] == b"{" else "yaml"
        return Document(kind="openapi", name=f"{name}.{ending}", content=content)
    if api.graphql is not None and api.graphql in contents:
        return Document(kind="graphql", name=f"{name}.graphql", content=contents[api.graphql])
    sets = inputs_of(api, contents)[1] if api.grpc is not None else ()
    return Document(kind="grpc", name=f"{name}.pb", content=b"".join(sets)) if sets else None
