"""catalog: APIs that developers find in the portal, with their documents, owners and lifecycles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import ClassVar, Literal

from filters.grpc_transcoding.sources import DescriptorFile, ProtoFile
from filters.language import DataSource, Mistake, Path, Shorthand, option
from filters.validation.settings import OpenApiFile

_URI = r"!#-;=?-\[\]_a-z~"
"""The characters of a URI (RFC 3986) and no others, in a class of a regular expression."""
URL = rf"https?://[^\s/?#@\"<>]+([/?#][{_URI}]*)?"
MOMENT = r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))?"
MOMENT_SHAPE = "a date such as 2026-11-01, or 2026-11-01T12:00:00Z"
SLUG = r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?"

Lifecycle = Literal["experimental", "production", "deprecated", "retired"]


def moment(text: str) -> datetime:
    """Return a date or a time of RFC 3339 in UTC. A date is its first moment in UTC. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkdownFile(DataSource):
    """A page in Markdown: a file in the gateway's folder."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "FILE.md", {"type": "string", "pattern": r"^.+\.md$"})

    @classmethod
    def short(cls, value: str) -> MarkdownFile:
        """The page in a file. Raises Mistake."""
        result = cls(file=value)
        for mistake in result.check():
            raise mistake
        return result

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless a file of Markdown is named."""
        if self.file is None or self.env is not None or self.inline is not None:
            yield Mistake("a page must be a file in the gateway's folder", "write docs: [docs/guide.md]")
        elif not self.file.endswith(".md"):
            yield Mistake("not a file of Markdown", "write a file such as docs/guide.md", value=self.file)

    @property
    def slug(self) -> str:
        """The last part of the page's address: the file's name in lower case, without its ending."""
        return re.sub(r"[^a-z0-9]+", "-", PurePosixPath(self.file or "").stem.lower()).strip("-") or "page"


def repeated_pages(pages: Iterable[MarkdownFile], path: Path = ("docs",)) -> Iterator[Mistake]:
    """Yield a mistake for each page that would have the address of another one."""
    known: dict[str, str | None] = {}
    for number, page in enumerate(pages):
        if page.slug in known:
            message = f"the pages of two files have the address '{page.slug}'"
            yield Mistake(message, "rename one of the files", path=(*path, number), value=page.file)
        known.setdefault(page.slug, page.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkdownText(DataSource):
    """A text in Markdown, or a file with it."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "the text itself")

    @classmethod
    def short(cls, value: str) -> MarkdownText:
        """The text itself."""
        return cls(inline=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphqlSchema(DataSource):
    """The schema of a GraphQL service in its schema definition language (SDL)."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file")
    path: str = option(
        "The path at which clients send queries.",
        default="/graphql",
        pattern=r"/[^?#\s]*",
        shape="a path such as /graphql",
    )

    @classmethod
    def short(cls, value: str) -> GraphqlSchema:
        """The schema in a file."""
        return cls(file=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcSources:
    """Services of gRPC, from the same files as in [grpc_transcoding](transcoding.md)."""

    protos: tuple[ProtoFile, ...] = option("`.proto` files in the gateway's folder.", default=())
    descriptors: DescriptorFile | None = option(
        "A descriptor set, as `protoc --include_imports --include_source_info --descriptor_set_out=FILE` writes it. "
        "Without `--include_source_info` it has no comments.",
        default=None,
    )
    services: tuple[str, ...] = option("Full names of services. Default: all.", default=(), narrows=True)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless there is exactly one kind of source."""
        if self.descriptors is not None and self.protos:
            yield Mistake("'protos' and 'descriptors' exclude each other", "keep one")
        elif self.descriptors is None and not self.protos:
            yield Mistake("'protos' or 'descriptors' is needed", "write protos: [shop.proto]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who answers for an API."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a name")
    name: str = option("The name of a team or a person.")
    email: str | None = option(
        "An address for questions.", default=None, pattern=r"[^@\s<>]+@[^@\s<>]+", shape="an email address"
    )
    url: str | None = option("A page for questions.", default=None, pattern=URL, shape="an http(s) URL")

    @classmethod
    def short(cls, value: str) -> Owner:
        """The owner of this name."""
        return cls(name=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleLinks:
    """Pages that say more about the end of an API."""

    deprecation: str | None = option(
        "About the deprecation (RFC 9745).", default=None, pattern=URL, shape="an http(s) URL"
    )
    sunset: str | None = option(
        "About the end (RFC 8594).", default=None, pattern=URL, shape="an http(s) URL"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """Who sees it in the portal."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "`public`", {"enum": ["public"]})
    organisations: tuple[str, ...] = option(
        "Slugs of the organisations of the portal whose members see it. Others get 404.",
        pattern=SLUG,
        shape="a slug such as acme",
        narrows=True,
    )

    @classmethod
    def short(cls, value: str) -> Visibility:
        """The visibility that a word stands for. Raises Mistake."""
        if value == "public":
            return PUBLIC
        raise Mistake("expected public or a mapping", "write public or {organisations: [acme]}")

    @property
    def public(self) -> bool:
        """True if everybody sees it, also without a login."""
        return not self.organisations

    def allows(self, organisation: str | None) -> bool:
        """True if members of an organisation see it. None stands for people without one."""
        return self.public or organisation in self.organisations

    def covers(self, other: Visibility) -> bool:
        """True if everybody who sees `other` sees this too."""
        return self.public or (not other.public and set(other.organisations) <= set(self.organisations))


PUBLIC = Visibility(organisations=())
"""Everybody sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An API: some routes with their documents."""

    routes: tuple[str, ...] = option(
        "The routes of the API. A route belongs to at most one API.", refers="routes", minimum_items=1
    )
    title: str | None = option(
        "The title. Default: `info.title` of the OpenAPI document, else the name.", default=None
    )
    summary: str | None = option("One line about it. Default: `info.summary` of the document.", default=None)
    version: str | None = option("The version. Default: `info.version` of the document.", default=None)
    openapi: OpenApiFile | None = option("Its description in OpenAPI.", default=None)
    graphql: GraphqlSchema | None = option("Its schema in GraphQL.", default=None)
    grpc: GrpcSources | None = option("Its services in gRPC.", default=None)
    tags: tuple[str, ...] = option(
        "Words by which the catalogue is filtered.",
        default=(),
        pattern=r"[^\s,]([^,]{0,38}[^\s,])?",
        shape="a tag of at most 40 characters, without commas",
    )
    owner: Owner | None = option("Who answers for it.", default=None)
    lifecycle: Lifecycle = option(
        "`retired` takes it out of the catalogue for everybody who is not subscribed; its routes still work.",
        default="production",
    )
    deprecated: str | None = option(
        "The moment from which nobody should begin to use it, past or future: all responses of its routes have the "
        "header `Deprecation` (RFC 9745). A date is its first moment in UTC.",
        default=None,
        pattern=MOMENT,
        shape=MOMENT_SHAPE,
    )
    sunset: str | None = option(
        "The moment from which it may stop to work: all responses of its routes have the header `Sunset` (RFC 8594).",
        default=None,
        pattern=MOMENT,
        shape=MOMENT_SHAPE,
    )
    successor: str | None = option(
        "The API that replaces it. With `portal`, a header `Link` leads to its page.",
        default=None,
        refers="catalog",
    )
    links: LifecycleLinks = option(
        "Pages for the header `Link` of all responses. With `portal`, `deprecation` is by default its page there.",
        default=LifecycleLinks(),
    )
    visibility: Visibility = option("Who sees it.", default=PUBLIC)
    docs: tuple[MarkdownFile, ...] = option("Its guides.", default=())

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys."""
        described = [key for key in ("openapi", "graphql", "grpc") if getattr(self, key) is not None]
        if len(described) > 1:
            message = f"'{described[0]}' and '{described[1]}' describe one API"
            yield Mistake(message, "keep one, or write two APIs", path=(described[1],))
        moments = {}
        for key in ("deprecated", "sunset"):
            text = getattr(self, key)
            try:
                moments[key] = moment(text) if text is not None else None
            except ValueError:
                yield Mistake("there is no such date", f"write {MOMENT_SHAPE}", path=(key,), value=text)
        since, until = moments.get("deprecated"), moments.get("sunset")
        if since is not None and until is not None and until < since:
            yield Mistake(
                f"the API would end before it is deprecated ({self.deprecated})",
                "write a later moment",
                path=("sunset",),
                value=self.sunset,
            )
        if self.links.deprecation is not None and self.deprecated is None:
            path = ("links", "deprecation")
            yield Mistake("the API is not deprecated", "add 'deprecated', or remove the link", path=path)
        if self.links.sunset is not None and self.sunset is None:
            yield Mistake("the API has no end", "add 'sunset', or remove the link", path=("links", "sunset"))
        yield from repeated_pages(self.docs)
