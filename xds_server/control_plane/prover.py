"""Proof before push: a proving Envoy gets every snapshot first, and no other Envoy gets what it rejects."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xds_server.discovery.references import references
from xds_server.discovery.snapshot import EMPTY, Reference, Resource, Snapshot, content_hash
from xds_server.discovery.types import CLUSTER, LISTENER, ROUTE, SECRET, ResourceType
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.serving.events import Acked, Connected, Disconnected, Event, Held, Nacked
from xds_server.serving.store import Store
from xds_server.translate import filter_chains, names, tls_secrets
from xds_server.translate.proving_copy import (
    RouteOfHost,
    closed,
    deed,
    only,
    proving_copy,
    replaced,
    route_name,
    routes_of,
    with_any_condition,
)
from xds_server.translate.tls_secrets import Removed

log = logging.getLogger(__name__)

PROVING = "proving"
"""The node group of the proving Envoy, which is also the cluster of its node."""
PATIENCE = 5.0
"""The maximum number of seconds that a snapshot waits for the proof."""


SEARCH = 30.0
"""The maximum number of seconds of the search for rejected routes. After it, unverified routes answer 503 too."""
_PROBE = "probe-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A snapshot that may be served.

    `rejected` are the parts that were replaced or left out because Envoy rejects them: routes, and listeners and
    clusters that need a rejected secret. `judged` is false if no Envoy has verified the snapshot.
    """

    snapshot: Snapshot
    rejected: tuple[Held, ...] = ()
    judged: bool = True


class _Search:
    """The state of a search for rejected routes: bad routes with Envoy's messages, and unverified routes."""

    def __init__(self) -> None:
        self.found: dict[bytes, str] = {}
        self.waiting: set[bytes] = set()
        self._deeds: dict[bytes, bytes] = {}

    def blame(self, body: bytes, message: str) -> None:
        """Note that a route is bad."""
        self.found[body] = message
        self.waiting.discard(body)

    def blame_alike(self, body: bytes, message: str) -> None:
        """Note that all routes with the same action as a bad route are bad, if its action is bad."""
        bad = self._deed(body)
        for other in [one for one in self.waiting if self._deed(one) == bad]:
            self.blame(other, message)

    def _deed(self, body: bytes) -> bytes:
        known = self._deeds.get(body)
        if known is None:
            known = self._deeds[body] = deed(body)
        return known


class Prover:
    """Follows the proving Envoy of a store. `place` returns the place of a path of the gateway."""

    def __init__(
        self,
        store: Store,
        patience: float = PATIENCE,
        place: Callable[[tuple[str, ...]], str] = lambda _path: "",
        search_limit: float = SEARCH,
    ) -> None:
        self.available = True
        """False if there is no proving Envoy and none will connect."""
        self._store = store
        self._patience = patience
        self._place = place
        self._search_limit = search_limit
        self._streams: dict[int, str] = {}
        self._answered: dict[Reference, str] = {}
        self._messages: dict[Reference, str] = {}
        """The messages of rejected resources, from the last response."""
        self._snapshot = self._copy = EMPTY
        self._routes: dict[str, Resource] = {}
        self._instead: dict[bytes, bytes | None] = {}
        """By rejected route: the route that answers 503 instead, or None if that was rejected too."""
        self._unjudged: dict[bytes, Held] = {}
        """Routes that were not verified in time. They answer 503 until the next change."""
        self._why: dict[bytes, Held] = {}
        self._chains: dict[str, dict[str, bytes]] = {}
        """The accepted filter chains by listener and name."""
        self._bad_chains: dict[tuple[str, bytes], Held] = {}
        """The rejected filter chains, by listener and content."""
        self._lost: dict[str, str] = {}
        """Versions of rejected secrets without another known form, by name."""
        self._probes = itertools.count(1)
        self._unproved = False
        self._bell = asyncio.Event()

    async def prove(self, snapshot: Snapshot) -> Proof:
        """Prove a snapshot. The store quarantines bad resources of the group `PROVING`.

        If a route configuration is rejected, the bad routes are searched, and they answer 503.
        """
        if not self.available:
            return Proof(snapshot=snapshot, judged=False)
        self._unjudged = {}
        self._forget(snapshot)
        mended, gone = self._mended(snapshot)
        judged = await self._judge(mended)
        while judged and (
            self._lose(snapshot)
            or await self._search_chains(mended)
            or (not self._unjudged and await self._search(mended))
        ):
            mended, gone = self._mended(snapshot)
            judged = await self._judge(mended)
        whys = (*self._unjudged.values(), *self._why.values(), *self._bad_chains.values())
        rejected = {(held.type, held.name): held for held in (*whys, *map(self._left_out, gone))}
        return Proof(snapshot=mended, rejected=tuple(rejected.values()), judged=judged)

    async def _judge(self, snapshot: Snapshot) -> bool:
        self._snapshot, self._copy = snapshot, proving_copy(snapshot, self._copy, self._routes)
        self._store.publish(self._copy, PROVING)
        # an Envoy that did not respond the last time is not waited for until it is connected
        patience = 0 if self._unproved and not self._streams else self._patience
        try:
            async with asyncio.timeout(patience):
                await self._until(self._settled)
        except TimeoutError:
            self._unproved = True
            state = "did not answer in time" if self._streams else "is not connected"
            log.warning("the proving Envoy %s; the other Envoys get the gateway unproved", state)
            return False
        self._unproved = False
        return True

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._bell.clear()
            await self._bell.wait()

    def _settled(self) -> bool:
        """True if Envoy has accepted every resource that it subscribes to, or the resource is quarantined."""
        current = self._store.current(PROVING) or EMPTY
        return all(self._answered.get(key) == version for key, version in _asked_for(current))

    def _forget(self, snapshot: Snapshot) -> None:
        """Forget rejected routes, filter chains and secrets that the gateway no longer has."""
        if self._bad_chains:
            chains = {
                (name, body)
                for name, one in snapshot[LISTENER].items()
                for body in filter_chains.chains(one).values()
            }
            self._bad_chains = {key: held for key, held in self._bad_chains.items() if key in chains}
        secrets = snapshot[SECRET]
        self._lost = {
            name: version
            for name, version in self._lost.items()
            if name in secrets and secrets[name].version == version
        }
        if self._instead:
            there = {body for table in snapshot[ROUTE].values() for _, body in routes_of(table)}
            kept = {body: route for body, route in self._instead.items() if body in there}
            stand_ins = {
                route: None for route in kept.values() if route is not None and route in self._instead
            }
            self._instead = {**kept, **stand_ins}
            self._why = {body: held for body, held in self._why.items() if body in there}

    def _lose(self, snapshot: Snapshot) -> bool:
        """Note rejected secrets without another form. Returns True if there are new ones."""
        lost = {
            held.name: held.version
            for held in self._store.held(PROVING)
            if held.type == SECRET
            and held.standing is None
            and held.name in snapshot[SECRET]
            and not self._store.falls_back(SECRET, held.name, held.version)
        }
        new = not lost.keys() <= self._lost.keys()
        self._lost = {**self._lost, **lost}
        return new

    def _left_out(self, gone: Removed) -> Held:
        path = names.chain_origin(gone.chain) if gone.chain else ("upstreams", gone.name)
        return Held(
            type=gone.type,
            name=path[-1],
            version=self._snapshot.version(gone.type),
            standing=None,
            message=f"it needs a rejected secret: {', '.join(sorted(self._lost))}",
            node=self._judge_name(),
            place=self._place(path),
            origin=path,
        )

    def _judge_name(self) -> str:
        return next(iter(self._streams.values()), PROVING)

    def _mended(self, snapshot: Snapshot) -> tuple[Snapshot, tuple[Removed, ...]]:
        """Return a snapshot without bad routes, filter chains and secrets, and what was left out for the secrets."""
        snapshot = self._with_chains_replaced(self._with_routes_replaced(snapshot))
        return tls_secrets.without(snapshot, self._lost) if self._lost else (snapshot, ())

    def _with_routes_replaced(self, snapshot: Snapshot) -> Snapshot:
        if not self._instead and not self._unjudged:
            return snapshot
        final: dict[bytes, bytes | None] = {body: closed(body) for body in self._unjudged}
        for body, route in self._instead.items():
            final[body] = None if route is None else self._instead.get(route, route)
        tables = {name: replaced(table, final) for name, table in snapshot[ROUTE].items()}
        return snapshot.replacing({ROUTE: tables})

    def _with_chains_replaced(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with the last accepted form of each bad filter chain, or without it if there is none."""
        if not self._bad_chains:
            return snapshot
        listeners = dict(snapshot[LISTENER])
        for name, resource in snapshot[LISTENER].items():
            found = filter_chains.chains(resource)
            bad = [chain for chain, body in found.items() if (name, body) in self._bad_chains]
            if bad:
                known = {
                    chain: body
                    for chain, body in self._chains.get(name, {}).items()
                    if (name, body) not in self._bad_chains
                }
                mended = filter_chains.replaced(resource, {chain: known.get(chain) for chain in bad})
                if mended is not None and not _resolves(mended, snapshot):
                    mended = filter_chains.replaced(resource, dict.fromkeys(bad))
                if mended is None:
                    del listeners[name]
                else:
                    listeners[name] = mended
        return snapshot.replacing({LISTENER: listeners})

    async def _search_chains(self, snapshot: Snapshot) -> bool:
        """Search the bad filter chains of rejected listeners with several. Returns True if any was found."""
        found: dict[tuple[str, bytes], Held] = {}
        for held in self._store.held(PROVING):
            resource = snapshot[held.type].get(held.name)
            if held.type != LISTENER or resource is None or held.version != resource.version:
                continue
            chains, whole = filter_chains.chains(resource), self._copy[LISTENER][held.name]
            for chain, body in chains.items() if len(chains) > 1 else ():
                message = await self._probe(LISTENER, filter_chains.only(whole, chain, self._probe_version()))
                if message is not None:
                    found[held.name, body] = self._held_chain(held.name, chain, body, message)
        self._bad_chains |= found
        return bool(found)

    def _held_chain(self, listener: str, chain: str, body: bytes, message: str) -> Held:
        """Return the report of a filter chain that is not served as it is written."""
        path = names.chain_origin(chain)
        known = self._chains.get(listener, {}).get(chain)
        return Held(
            type=LISTENER,
            name=path[-1],
            version=content_hash(body),
            standing=None if known is None else content_hash(known),
            message=message,
            node=self._judge_name(),
            place=self._place(path),
            origin=path,
        )

    async def _search(self, snapshot: Snapshot) -> bool:
        """Search the bad routes of rejected route configurations. Returns True if any was found."""
        search = _Search()
        try:
            async with asyncio.timeout(self._search_limit):
                for held in self._store.held(PROVING):
                    table = snapshot[held.type].get(held.name)
                    if held.type == ROUTE and table is not None and held.version == table.version:
                        await self._search_in(table, search)
        except TimeoutError:
            log.warning(
                "search for rejected routes timed out; unverified routes answer 503 until the next change "
                "seconds=%.0f routes=%d",
                self._search_limit,
                len(search.waiting),
            )
            why = "Envoy rejects a part of this change, and there was no time to verify this route"
            self._unjudged = {body: self._held(body, why) for body in search.waiting}
        for body, message in search.found.items():
            originals = [original for original, route in self._instead.items() if route == body]
            self._instead[body] = None if originals else closed(body)
            for original in originals:  # Envoy rejects even its condition
                self._why[original] = replace(self._why[original], closed=False)
            if not originals:
                self._why[body] = self._held(body, message)
        return bool(search.found or search.waiting)

    async def _search_in(self, table: Resource, search: _Search) -> None:
        proved = self._routes.get(table.name)
        before = routes_of(proved) if proved is not None else frozenset()
        new = {body: (host, body) for host, body in routes_of(table) - before if body not in search.found}
        search.waiting |= new.keys()
        if await self._rejects(table, ()) is None:
            await self._halve(table, sorted(new.values()), search)
        search.waiting -= new.keys()

    async def _halve(self, table: Resource, some: Sequence[RouteOfHost], search: _Search) -> None:
        some = [chosen for chosen in some if chosen[1] not in search.found]
        message = await self._rejects(table, some) if some else None
        if message is None:
            search.waiting -= {body for _, body in some}
            return
        if len(some) > 1:
            half = len(some) // 2
            await self._halve(table, some[:half], search)
            await self._halve(table, some[half:], search)
            return
        host, body = some[0]
        search.blame(body, message)
        if await self._rejects(table, [(host, with_any_condition(body))]) is not None:
            search.blame_alike(body, message)

    async def _rejects(self, table: Resource, some: Sequence[RouteOfHost]) -> str | None:
        """Return Envoy's message about a route configuration with only some routes, or None if it accepts them."""
        probe = Resource.from_bytes(table.name, only(table, some), self._probe_version())
        return await self._probe(ROUTE, probe)

    def _probe_version(self) -> str:
        return f"{_PROBE}{next(self._probes)}"

    async def _probe(self, type_: ResourceType, probe: Resource) -> str | None:
        """Return Envoy's message about one resource, or None if it accepts it. The others stay as they are."""
        key = (type_, probe.name)
        self._copy = self._copy.replacing({type_: {**self._copy[type_], probe.name: probe}})
        self._store.publish(self._copy, PROVING)
        await self._until(lambda: self._answered.get(key) == probe.version)
        return self._messages.get(key)

    def _held(self, body: bytes, message: str) -> Held:
        """Return the report of a route that answers 503."""
        name = route_name(body)
        path = names.route_origin(name)
        return Held(
            type=ROUTE,
            name=path[-1] if path else name,
            version=content_hash(body),
            standing=None,
            message=message,
            node=self._judge_name(),
            place=self._place(path),
            origin=path,
            closed=True,
        )

    def observe(self, event: Event) -> None:
        """Handle one event of the store."""
        if not isinstance(event, Connected | Disconnected | Acked | Nacked) or event.group != PROVING:
            return
        match event:
            case Connected():
                self._streams[event.stream] = event.node.id
            case Disconnected():
                self._streams.pop(event.stream, None)
            case Acked():
                self._answer(event, event.versions, None)
                self._accept(event)
            case Nacked():
                self._answer(event, event.blamed, event.message)
        if self._unproved and self._settled():
            self._unproved = False
        self._bell.set()

    def _answer(self, event: Acked | Nacked, versions: Mapping[str, str], message: str | None) -> None:
        for name, version in versions.items():
            self._answered[event.type, name] = version
            self._messages.pop((event.type, name), None)
            if message is not None:
                self._messages[event.type, name] = message

    def _accept(self, event: Acked) -> None:
        """Remember the filter chains of listeners, to fall back on, and complete route configurations, because the copy
        has only their new routes.
        """
        if event.type == LISTENER:
            self._accept_chains(event)
        if event.type != ROUTE:
            return
        current = self._snapshot[ROUTE]
        for name, version in event.versions.items():
            if name in current and current[name].version == version:
                self._routes[name] = current[name]
        self._routes = {name: table for name, table in self._routes.items() if name in current}

    def _accept_chains(self, event: Acked) -> None:
        current = self._snapshot[LISTENER]
        for name, version in event.versions.items():
            if name in current and current[name].version == version:
                self._chains[name] = filter_chains.chains(current[name])
        self._chains = {name: chains for name, chains in self._chains.items() if name in current}

    def as_json(self) -> dict[str, Any]:
        """Return for machines whether the proving Envoy is connected, and whether it has proved the served gateway."""
        connected = self.available and bool(self._streams)
        return {"connected": connected, "proved": connected and not self._unproved}


def _resolves(listener: Resource, snapshot: Snapshot) -> bool:
    """True if the snapshot has everything that a listener refers to."""
    return all(name in snapshot[type_] for type_, name in references(LISTENER, listener))


def _asked_for(snapshot: Snapshot) -> Iterator[tuple[Reference, str]]:
    """Yield every cluster and listener, and the resources that they make Envoy request.

    Envoy never requests a resource that no other refers to.
    """
    for type_ in (CLUSTER, LISTENER):
        for resource in snapshot[type_].values():
            yield (type_, resource.name), resource.version
            for kind, name in references(type_, resource):
                if name in snapshot[kind]:
                    yield (kind, name), snapshot[kind][name].version


async def proving_envoy(binary: Path | None, xds_address: str, stack: AsyncExitStack) -> bool:
    """Start the proving Envoy. Returns True if it was started."""
    if binary is None:
        log.warning("there is no Envoy binary to prove with; Envoys get the gateway unproved")
        return False
    proving = bootstrap(xds_address=xds_address, node_id="prover", cluster=PROVING)
    supervisor = EnvoySupervisor(
        binary, proving, name="the proving Envoy", arguments=("--concurrency", "1"), log_level="off", drain=0
    )
    stack.push_async_callback(supervisor.stop)
    try:
        await supervisor.start()
    except OSError as error:
        log.warning("the proving Envoy could not be started; Envoys get the gateway unproved error=%s", error)
        return False
    return True
