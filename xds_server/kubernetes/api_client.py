"""Requests to a Kubernetes API server.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from xds_server.kubernetes.api_errors import Gone, Unreachable, rejected, status_in
from xds_server.kubernetes.resources import Key, Object, Resource, key_of
from xds_server.kubernetes.transport import Transport, decoded

WATCH = 290.0
"""Seconds after which the API server is asked to end a watch. Its own default is random between 5 and 10 minutes."""
GRACE = 15.0
"""Seconds after that in which the end must arrive, or else the connection is taken for dead."""
PAGE = 500
"""Objects in one response to a list."""
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `resource_version` is that of the whole list; `more` is the token of the next page, if any."""

    items: list[Object]
    resource_version: str
    more: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event: ``ADDED``, ``MODIFIED``, ``DELETED``, or ``BOOKMARK``, which has no object but a version.

    `initial_end` is true for the bookmark that ends the initial events of a streaming list.
    """

    type: str
    object: Object

    @property
    def resource_version(self) -> str:
        version: str = self.object["metadata"]["resourceVersion"]
        return version

    @property
    def initial_end(self) -> bool:
        annotations = self.object["metadata"].get("annotations") or {}
        return self.type == "BOOKMARK" and annotations.get(_INITIAL_END) == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The part of a collection that is read: by labels and fields, as kubectl's ``-l`` and ``--field-selector``."""

    labels: str = ""
    fields: str = ""

    def parameters(self) -> dict[str, str]:
        """Return the query parameters."""
        given = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: value for name, value in given.items() if value}


ALL = Selection()


class ApiClient(Transport):
    """A client of one API server. Use as an asynchronous context manager.

    Every method raises ApiError (see `api_errors`), or InvalidKubeconfig if a file of the connection is unusable.
    """

    async def get(self, resource: Resource, key: Key) -> Object:
        """Return an object."""
        return await self.request("GET", resource.path(key))

    async def create(
        self, resource: Resource, object_: Object, subresource: str = "", **parameters: str
    ) -> Object:
        """Create an object, or a subresource of one such as ``token``, and return what the server made of it."""
        key = key_of(object_)
        path = resource.path(key, subresource) if subresource else resource.collection(key.namespace)
        return await self.request(
            "POST", path, _typed(resource, object_) if not subresource else object_, **parameters
        )

    async def replace(self, resource: Resource, object_: Object, subresource: str = "") -> Object:
        """Replace an object. With `metadata.resourceVersion` it raises Conflict if the object has changed."""
        path = resource.path(key_of(object_), subresource)
        return await self.request("PUT", path, _typed(resource, object_))

    async def apply(
        self, resource: Resource, object_: Object, *, manager: str, subresource: str = "", force: bool = True
    ) -> Object:
        """Apply the fields of an object on the server: fields that `manager` applied before and are missing now go.

        With `force`, it takes fields from other managers; without, it raises Conflict.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        path = resource.path(key_of(object_), subresource)
        parameters = {"fieldManager": manager, "force": str(force).lower()}
        return await self.request("PATCH", path, _typed(resource, object_), _APPLY, **parameters)

    async def merge_patch(
        self, resource: Resource, key: Key, patch: Object, *, manager: str, subresource: str = ""
    ) -> Object:
        """Change fields of an object (RFC 7386). With `metadata.resourceVersion` a change meanwhile raises Conflict."""
        return await self.request(
            "PATCH", resource.path(key, subresource), patch, _MERGE, fieldManager=manager
        )

    async def delete(self, resource: Resource, key: Key, *, uid: str = "") -> None:
        """Delete an object. With `uid` it raises Conflict if another object has this name now."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self.request("DELETE", resource.path(key), options)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        selection: Selection = ALL,
        *,
        limit: int = PAGE,
    ) -> list[Object]:
        """Return all objects of a namespace, or of all namespaces."""
        try:
            found = [
                one
                async for page in self.pages(resource, namespace, selection, limit=limit)
                for one in page.items
            ]
        except Gone:
            # The pages took longer than the server keeps old versions, so that one page must do.
            found = [
                one
                async for page in self.pages(resource, namespace, selection, limit=0)
                for one in page.items
            ]
        return found

    async def serves(self, resource: Resource) -> bool:
        """Return true if the API server has the kind in this version."""
        if resource.group:
            groups = (await self.request("GET", "/apis")).get("groups") or []
            versions = [
                version["version"]
                for group in groups
                if group["name"] == resource.group
                for version in group["versions"]
            ]
            if resource.version not in versions:
                return False
        base = resource.collection().rpartition("/")[0]
        kinds = (await self.request("GET", base)).get("resources") or []
        return any(kind["name"] == resource.plural for kind in kinds)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        selection: Selection = ALL,
        *,
        limit: int = PAGE,
    ) -> AsyncGenerator[Page, None]:
        """Yield the objects in pages of `limit` (0: one page). Raises Gone if the next page is no longer there."""
        more = ""
        while True:
            paging = {"limit": str(limit), "continue": more}
            parameters = selection.parameters() | {
                name: value for name, value in paging.items() if value not in ("", "0")
            }
            found = await self.request("GET", resource.collection(namespace), None, **parameters)
            page = _page(found, resource.collection(namespace))
            yield page
            more = page.more
            if not more:
                return

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        selection: Selection = ALL,
        *,
        resource_version: str | None,
        seconds: float = WATCH,
        grace: float = GRACE,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the events after a version, until the server ends the stream, which it should after `seconds`.

        Without a version, the stream begins with an ADDED event for every object, and the bookmark whose `initial_end`
        is true (a streaming list). An ERROR event raises what a response with its status would raise. Silence for
        `seconds` and `grace` raises Unreachable.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists
        """
        parameters = selection.parameters() | {"watch": "true", "allowWatchBookmarks": "true"}
        parameters["timeoutSeconds"] = str(max(1, round(seconds)))
        if resource_version is None:
            parameters |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            parameters["resourceVersion"] = resource_version
        path = resource.collection(namespace)
        async with aclosing(self.lines(path, parameters, seconds + grace)) as lines:
            async for line in lines:
                yield _event(decoded(line, f"watch {path}"), path)


def _typed(resource: Resource, object_: Object) -> Object:
    """Return an object with its kind, which a server-side apply needs."""
    return {**object_, "apiVersion": resource.api_version, "kind": resource.kind}


def _page(found: Object, path: str) -> Page:
    try:
        metadata = found["metadata"]
        return Page(found.get("items") or [], metadata["resourceVersion"], metadata.get("continue") or "")
    except (KeyError, TypeError, AttributeError):
        raise Unreachable(f"GET {path}: the response is not a list of objects") from None


def _event(found: Any, path: str) -> WatchEvent:
    """Return an event. Raises Rejected for an ERROR event."""
    try:
        event = WatchEvent(found["type"], found["object"])
        if event.type != "ERROR":
            event.resource_version  # noqa: B018 - raises if it is missing
            return event
        status = status_in(event.object)
    except (KeyError, TypeError, AttributeError):
        raise Unreachable(f"watch {path}: the response is not a stream of events") from None
    raise rejected(status, f"watch {path}", in_stream=True)
