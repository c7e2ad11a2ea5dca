"""One stream on the wire: passes requests to the state machine, writes its responses, and records events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from xds_server.discovery import events as protocol
from xds_server.discovery import wire
from xds_server.discovery.node import Node
from xds_server.discovery.rejection import is_bind_failure
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.stream import Protocol, Stream
from xds_server.discovery.types import SECRET, ResourceType
from xds_server.serving.events import Acked, Connected, Disconnected, Event, Nacked, Overdue, Resumed, Sent
from xds_server.serving.first_config_slots import Slot, Slots
from xds_server.serving.store import Store

log = logging.getLogger(__name__)

_ENCODE = {Protocol.SOTW: wire.sotw, Protocol.DELTA: wire.delta}
_REQUESTS: dict[Protocol, Any] = {
    Protocol.SOTW: discovery_pb2.DiscoveryRequest,
    Protocol.DELTA: discovery_pb2.DeltaDiscoveryRequest,
}

RETRY = 5.0
"""Seconds until a client gets a listener again whose port was in use."""
_MISPLACED = "the node belongs to another group now; connect again"
Context = grpc.aio.ServicerContext[Any, Any]
_END: Any = grpc.aio.EOF  # type: ignore[attr-defined] # the stubs lack it


GroupOf = Callable[[Node, Context], str | Awaitable[str | None] | None]
"""Returns the group of a node, or None to reject the node. It may be a coroutine function, and raise NodeRejected."""


class NodeRejected(Exception):  # noqa: N818 - it is the response
    """Why a node is not served. With the status UNAVAILABLE, the client tries again as if there were no server."""

    def __init__(self, status: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class _Unread(Exception):  # noqa: N818 - it is what the response is
    """The client did not read a response in time."""


class Session:
    """A stream with its client.

    Requests are read as bytes, so that bytes that are not a request are rejected and do not raise an error in this
    server. Secrets are sent only over TLS and on the same machine, unless `secrets_anywhere`. The first responses
    wait for one of the `slots`, which the session holds until the client acknowledges.
    """

    def __init__(
        self,
        number: int,
        stream: Stream,
        store: Store,
        group_of: GroupOf,
        clock: Callable[[], float],
        slots: Slots,
        secrets_anywhere: bool = False,
    ) -> None:
        self.number = number
        self.stream = stream
        self.group = self.release = ""
        self.refused: str | None = None
        self._store = store
        self._group_of = group_of
        self._clock = clock
        self._slots = slots
        self._slot: Slot | None = None
        self._parse = _REQUESTS[stream.protocol].FromString
        self._secrets = secrets_anywhere
        self._bell = asyncio.Event()
        self._ended = self._misplaced = False
        self._warned = False
        self._stalled = False
        self._sent: dict[ResourceType, tuple[float, float]] = {}  # when sent, when published
        self._resumed = set[ResourceType]()

    @property
    def node(self) -> Node:
        """The client's node, known after its first request."""
        return self.stream.node or Node()

    async def run(self, context: Context) -> None:
        """Serve the stream until the client ends it."""
        if not await self._begun(context):
            return
        group = await self._group(context)
        self.group, self.release = group, self._store.join(group, self.node)
        self.meet(context)
        self._record(
            Connected(
                stream=self.number,
                node=self.node,
                group=group,
                protocol=self.stream.protocol.value,
                peer=peer_of(context),
            )
        )
        with self._store.notify_on_publish(self._bell, group):
            await self._converse(context)

    async def _begun(self, context: Context) -> bool:
        """Handle the first request. Returns False if there is none.

        This is not a part of `run`, whose frame would keep the node of an Envoy, 60 KiB, while the stream is open.
        """
        try:
            async with asyncio.timeout(self.stream.limits.first_request_timeout):
                request = await context.read()
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"no request in {self.stream.limits.first_request_timeout:g} s",
            )
        if request is _END:
            return False
        self._receive(request)
        return True

    def reconnect(self) -> None:
        """End the stream, because its node belongs to another group now. The client connects again."""
        self._misplaced = True
        self._bell.set()

    async def _group(self, context: Context) -> str:
        """Return the group of the node. End the stream if the node is rejected."""
        try:
            found = self._group_of(self.node, context)
            group = await found if isawaitable(found) else found
            if group is None:
                raise NodeRejected(
                    grpc.StatusCode.PERMISSION_DENIED, f"node {self.node.id!r} belongs to no group"
                )
        except NodeRejected as rejection:
            log.warning(
                "rejected a node node=%s peer=%s reason=%s",
                self.node.id,
                peer_of(context),
                rejection.message,
            )
            await context.abort(rejection.status, rejection.message)
        return group

    async def _converse(self, context: Context) -> None:
        reading = asyncio.create_task(self._read(context))
        reason = "the server ended the stream"
        try:
            await self._write(context)
            reason = self.refused or ""
        except _Unread:
            reason = f"the client did not read a response within {self.stream.limits.write_timeout:g} s"
            await _give_up(context, reason)
        except grpc.aio.InternalError:
            reason = ""
            # the client disconnected during a write: gRPC has no status to send, and treats this as a cancellation
            raise asyncio.CancelledError from None
        finally:
            reading.cancel()
            if self._slot is not None:
                self._slot.end()
            self._record(Disconnected(stream=self.number, node=self.node, group=self.group, reason=reason))

    async def _read(self, context: Context) -> None:
        try:
            while (request := await context.read()) is not _END:
                if self._receive(request):
                    self._bell.set()
        finally:
            self._ended = True
            self._bell.set()

    def _receive(self, body: bytes) -> bool:
        """Handle a request. Returns False if no response is needed."""
        try:
            event = self.stream.receive(self._parse(body))
        except DecodeError as error:
            event = protocol.ProtocolViolation(message=f"not a discovery request: {error}")
        if self._slot is not None and isinstance(event, protocol.Acked | protocol.Nacked):
            self._slot.end()
        match event:
            case protocol.ProtocolViolation():
                self.refused = event.message
            case protocol.Acked():
                self._record(self._acked(event))
            case protocol.Nacked():
                self._record(self._nacked(event))
                if is_bind_failure(event.message):
                    asyncio.get_running_loop().call_later(RETRY, self._again, event)
        return self.stream.busy or not isinstance(event, protocol.Acked)

    def _again(self, rejected: protocol.Nacked) -> None:
        self.stream.again(rejected.type, rejected.blamed)
        self._bell.set()

    async def _write(self, context: Context) -> None:
        while not self._ended:
            self._bell.clear()
            if self.refused is not None:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refused)
            if self._misplaced:
                await context.abort(grpc.StatusCode.UNAVAILABLE, _MISPLACED)
            if self._slot is None:
                await self._begin(context)
            else:
                await self._respond(context)
            self._report_resumed()
            self._report_overdue()
            await self._wait()

    async def _begin(self, context: Context) -> None:
        """Send the first responses in a slot. Their content is computed when the slot is free."""
        self._slot = await self._slots.take()
        if self._ended or not await self._respond(context):
            self._slot.end()
            self._slot = None

    async def _respond(self, context: Context) -> bool:
        """Send the responses that are due. Returns False if there are none.

        This is not a part of `_write`, whose frame would keep the bytes of the last response while the stream is
        quiet.
        """
        published = self._store.published_at(self.group)
        earlier = self._store.before(self.group, self.release, self.node.id)
        responses = self.stream.responses(self.view(), self._clock(), earlier)
        for response in responses:
            body = _ENCODE[self.stream.protocol](response)
            self._sent[response.type] = (self._clock(), published)
            self._record(
                self._sending(response, len(body))
            )  # first, because the acknowledgement may arrive before the write returns
            await self._deliver(context, body)
        return bool(responses)

    async def _deliver(self, context: Context, body: bytes) -> None:
        """Write until the client has room for all bytes. A client that takes too long is disconnected."""
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(self.stream.limits.write_timeout, self._stall, task)
        try:
            await context.write(body)
        except asyncio.CancelledError:
            if self._stalled and not task.uncancel():
                raise _Unread from None
            raise
        finally:
            timer.cancel()

    def _stall(self, task: asyncio.Task[Any]) -> None:
        self._stalled = True
        task.cancel()

    def meet(self, context: Context) -> None:
        """Note whether the connection is confidential."""
        self._secrets = self._secrets or _confidential(context)

    def view(self) -> Snapshot | None:
        """Return the part of the group's snapshot that this client may have."""
        current = self._store.current(self.group, self.release, self.node.id)
        if current is None or self._secrets:
            return current
        if SECRET in self.stream.watches and not self._warned:
            self._warned = True
            log.warning(
                "secrets withheld, because the connection is neither encrypted nor local node=%s",
                self.node.id,
            )
        return current.without(SECRET)

    async def _wait(self) -> None:
        if self.stream.deadline is None:
            await self._bell.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.stream.deadline - self._clock()):
                await self._bell.wait()

    def _report_resumed(self) -> None:
        """Report the types of which the client had everything when it connected."""
        snapshot = self.view()
        if snapshot is None or self.stream.watches.keys() <= self._sent.keys() | self._resumed:
            return
        for type_ in (
            self.stream.watches.keys() - self._sent.keys() - self._resumed - set(self.stream.lacks(snapshot))
        ):
            self._resumed.add(type_)
            version = snapshot.version(type_)
            self._record(
                Resumed(stream=self.number, node=self.node, group=self.group, type=type_, version=version)
            )

    def _report_overdue(self) -> None:
        for overdue in self.stream.overdue:
            self._record(
                Overdue(
                    stream=self.number,
                    node=self.node,
                    group=self.group,
                    waited=overdue.waited,
                    unacknowledged=overdue.unacknowledged,
                )
            )
        self.stream.overdue.clear()

    def _sending(self, response: protocol.Response, size: int) -> Sent:
        return Sent(
            stream=self.number,
            node=self.node,
            group=self.group,
            type=response.type,
            version=response.version,
            resources=len(response.resources),
            removed=len(response.removed),
            size=size,
        )

    def _acked(self, event: protocol.Acked) -> Acked:
        now = self._clock()
        sent, published = self._sent.get(event.type, (now, now))
        return Acked(
            stream=self.number,
            node=self.node,
            group=self.group,
            type=event.type,
            version=event.version,
            versions=event.versions,
            removed=event.removed,
            latency=now - sent,
            convergence=now - published,
            release=self.release,
        )

    def _nacked(self, event: protocol.Nacked) -> Nacked:
        now = self._clock()
        return Nacked(
            stream=self.number,
            node=self.node,
            group=self.group,
            type=event.type,
            version=event.version,
            versions=event.versions,
            message=event.message,
            blamed={name: event.versions[name] for name in sorted(event.blamed)},
            latency=now - self._sent.get(event.type, (now, now))[0],
            release=self.release,
        )

    def _record(self, event: Event) -> None:
        self._store.record(event)


def _confidential(context: Context) -> bool:
    """True if no one between can read the stream: it is encrypted, or it never leaves the machine."""
    security = (context.auth_context() or {}).get("transport_security_type", [b""])
    return local(context) or b"ssl" in security


def peer_of(context: Context) -> str:
    """Return the address of a client in gRPC's form, without its percent-encoding of brackets."""
    return unquote(context.peer())


def local(context: Context) -> bool:
    """True if the client is on this machine."""
    return peer_of(context).startswith(("unix:", "ipv4:127.", "ipv6:[::1]"))


async def _give_up(context: Context, reason: str) -> None:
    """End the stream, without waiting long: the client gets the status only after the bytes that it does not read."""
    with contextlib.suppress(TimeoutError, grpc.aio.BaseError):
        async with asyncio.timeout(1):
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, reason)
