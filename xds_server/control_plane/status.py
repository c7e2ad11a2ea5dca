"""The status of the gateway and of each object in it, for `xds status` and everything else that shows it.

It is read from the control loop, the store, the prover and the open streams, and changes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from filters.language import Place, Problem
from filters.policy_server import NODE_CLUSTER
from xds_server.control_plane.control_loop import GatewayState
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.previews import Previews
from xds_server.control_plane.progressive_rollout import ProgressiveRollout
from xds_server.control_plane.prover import Prover
from xds_server.control_plane.rollout_steps import State
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import EXTENSION_CONFIG, LISTENER, ROUTE, ResourceType
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.ports import Port, ports
from xds_server.serving.events import Held
from xds_server.serving.services import ClientState
from xds_server.serving.store import Store
from xds_server.sources.git_pin import Pin
from xds_server.sources.source import Version
from xds_server.translate import gateway_version, names
from xds_server.translate.composer_entry import NODE_CLUSTER as COMPOSERS

if TYPE_CHECKING:
    from xds_server.control_plane.subscriptions import Subscriptions

Key = tuple[str, str]
"""The section and the name of an object."""
_EVERYWHERE: Mapping[str, tuple[ResourceType, ...]] = {
    "identity": (EXTENSION_CONFIG, ROUTE),
    "consumers": (EXTENSION_CONFIG,),
    "plans": (ROUTE,),
    "policy_sets": (EXTENSION_CONFIG, ROUTE),
    "errors": (LISTENER,),
    "telemetry": (LISTENER,),
}
"""Types whose resources an object can be part of, for sections whose objects have no resource of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStatus:
    """The outcome of one object, such as a route, in the terms of a Kubernetes condition.

    `accepted` is True if its newest form has no errors. `problems` are the errors and warnings of
    its newest form. `held_back` are its resources that are not served as written, because an Envoy rejected them or its
    release does not support them. `acknowledged_by` are the nodes that have every resource of it. `waiting_for` are
    those that have not acknowledged the newest version yet. A resource may contain several objects: all routes of a
    listener are acknowledged together.
    """

    section: str
    name: str
    accepted: bool
    problems: tuple[Problem, ...] = ()
    held_back: tuple[Held, ...] = ()
    acknowledged_by: tuple[str, ...] = ()
    waiting_for: tuple[str, ...] = ()

    @property
    def programmed(self) -> bool:
        """True if every connected proxy has the form of the object that is served, and nothing of it is held back."""
        return self.accepted and not self.held_back and not self.waiting_for and bool(self.acknowledged_by)

    def as_json(self, place: Place | None) -> Mapping[str, Any]:
        """The status for machines, with the `place` of the object. Nodes that acknowledged it are counted, because they
        can be very many."""
        return {
            "section": self.section,
            "name": self.name,
            "place": str(place) if place is not None else None,
            "accepted": self.accepted,
            "programmed": self.programmed,
            "problems": [str(problem) for problem in self.problems],
            "held_back": [held_as_json(one) for one in self.held_back],
            "acknowledged": len(self.acknowledged_by),
            "waiting_for": list(self.waiting_for),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReader:
    """Reads the status, in the thread of the event loop. `clients` returns the open streams.

    `policy_server` is the admin address of the policy server that this process has started, None if there is none.
    `pin` returns the pinned commit, None if none is. `subscriptions` follow the marketplace, None if there is none.
    """

    gateway: GatewayState
    fleet: Fleet
    store: Store
    prover: Prover | None
    clients: Callable[[], Iterable[ClientState]]
    rollout: ProgressiveRollout
    previews: Previews
    policy_server: str | None = None
    subscriptions: Subscriptions | None = None
    pin: Callable[[], Pin | None] = lambda: None

    def as_json(self) -> Mapping[str, Any]:
        """The status of the gateway as a whole."""
        held = self._held()
        return {
            "gateway": _gateway_as_json(self.gateway, self.rollout.state, self.pin()),
            "policy_server": {"admin": self.policy_server},
            "prover": self.prover.as_json() if self.prover is not None else None,
            "held": [held_as_json(one) for one in held],
            "rollout": asdict(self.rollout.state),
            "previews": self.previews.as_json(),
            "marketplace": self.subscriptions.status().as_json() if self.subscriptions is not None else None,
            "envoys": self._envoys({(one.type.name, one.name) for one in held}),
        }

    def _envoys(self, held: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
        """Every client, with the commit that it is served and the types of it that it has not accepted yet."""
        lacks = {one.number: [type_.name for type_ in one.lacks] for one in self.clients()}
        envoys = self.fleet.as_json(held)
        for one in envoys:
            commit = self._commit(one["group"], one["node"])
            one["commit"] = asdict(commit) if commit is not None else None
            one["waiting_for"] = lacks.get(one.pop("stream"))
        return envoys

    def _commit(self, group: str, node: str) -> Version | None:
        """Return the commit that a node is served, None if that is not known."""
        if not group:
            return self.gateway.commits.get(self.rollout.version_of(node))
        preview = self.previews.serving(group)
        return preview.version if preview is not None else None

    def place(self, status: ObjectStatus) -> Place | None:
        """Return the place of an object in the YAML.

        It may parse a file again, so call it outside of the event loop.
        """
        written = (problem.place for problem in status.problems if problem.place is not None)
        return self.gateway.place((status.section, status.name)) or next(written, None)

    def objects_as_json(self, statuses: Iterable[ObjectStatus]) -> Mapping[str, Any]:
        """The status of objects, and of all that belongs to no single object. Call it outside of the event loop."""
        compiled = self.gateway.compiled
        shared = ports(compiled.gateway.sections) if compiled is not None else ()
        held = [held for held in self._held() if not _origins(held, shared)]
        problems = [problem for problem in self.gateway.problems if len(problem.path) < 2]
        return {
            "healthy": self.gateway.healthy,
            "serving": self.gateway.something,
            "problems": [
                *map(str, problems),
                *([self.gateway.unreadable] if self.gateway.unreadable else []),
            ],
            "held": [held_as_json(one) for one in held],
            "objects": [status.as_json(self.place(status)) for status in statuses],
        }

    def _held(self) -> tuple[Held, ...]:
        """What is held back from Envoys, policy servers and composers."""
        return (*self.store.held(), *self.store.held(NODE_CLUSTER), *self.store.held(COMPOSERS))

    def objects(self) -> tuple[ObjectStatus, ...]:
        """Return the status of every object, by section and name. Call it in the thread of the event loop."""
        compiled = self.gateway.compiled
        if compiled is None:
            return tuple(_not_served(self.gateway.problems, known=()))
        sections = compiled.gateway.sections
        shared = ports(sections)
        problems, held = _by_object(self.gateway.problems), _held_by_object(self._held(), shared)
        clients = [client for client in self.clients() if not client.group]
        statuses = []
        for section, name in _keys(sections):
            acknowledged, waiting = _nodes(
                clients, tuple(_resources(section, name, sections, shared, compiled.snapshot))
            )
            statuses.append(
                ObjectStatus(
                    section=section,
                    name=name,
                    accepted=not any(one.severity == "error" for one in problems.get((section, name), ())),
                    problems=tuple(problems.get((section, name), ())),
                    held_back=tuple(held.get((section, name), ())),
                    acknowledged_by=acknowledged,
                    waiting_for=waiting,
                )
            )
        return (*statuses, *_not_served(self.gateway.problems, known=_keys(sections)))


def held_as_json(held: Held) -> Mapping[str, Any]:
    """Return a quarantined resource, for machines."""
    return {
        "type": held.type.name,
        "name": held.name,
        "place": held.place or None,
        "rejected_by": held.node or None,
        "message": held.message,
        "served_instead": held.standing,
        "answers_503": held.closed,
        "for": held.release or None,
    }


def served_version(gateway: GatewayState, rollout: State) -> Version | None:
    """Return the version of the source that all Envoys are served that a rollout serves nothing newer."""
    if rollout.candidate or rollout.withdrawn is not None:
        return gateway.commits.get(rollout.stable)
    return gateway.version


def _gateway_as_json(gateway: GatewayState, rollout: State, pin: Pin | None) -> Mapping[str, Any]:
    served = served_version(gateway, rollout)
    versions = gateway.compiled.snapshot.versions if gateway.compiled else {}
    return {
        "folder": gateway.folder,
        "healthy": gateway.healthy,
        "serving": gateway.something,
        "served_since": gateway.since or None,
        "changes": gateway.changes,
        "version": gateway_version.version(gateway.compiled.snapshot) if gateway.compiled else None,
        "versions": {type_.name: version for type_, version in versions.items()},
        "commit": asdict(served) if served is not None else None,
        "newest": asdict(gateway.newest) if gateway.newest is not None else None,
        "pinned": asdict(pin) if pin is not None else None,
        "problems": [str(problem) for problem in gateway.problems],
        "unreadable": gateway.unreadable or None,
    }


def _keys(sections: Sections) -> Iterator[Key]:
    for section in fields(Sections):
        if section.name not in ("policies", "rollout", "groups", "portal"):
            for name in getattr(sections, section.name):
                yield section.name, name


def _by_object(problems: Iterable[Problem]) -> dict[Key, list[Problem]]:
    grouped: dict[Key, list[Problem]] = {}
    for problem in problems:
        if len(problem.path) > 1:
            grouped.setdefault((str(problem.path[0]), str(problem.path[1])), []).append(problem)
    return grouped


def _not_served(problems: Iterable[Problem], known: Iterable[Key]) -> Iterator[ObjectStatus]:
    """Yield the objects that are known only by their problems, because no served gateway had them."""
    served = frozenset(known)
    for (section, name), own in _by_object(problems).items():
        if (section, name) not in served and section != "policies":
            yield ObjectStatus(section=section, name=name, accepted=False, problems=tuple(own))


def _origins(held: Held, shared: Iterable[Port]) -> tuple[Key, ...]:
    """The sections and the names of the objects that a resource belongs to. `shared` are all ports."""
    if held.type.message == "gateway.rules.v1.Consumer":
        return (("consumers", held.name),)
    if held.origin:
        return ((held.origin[0], held.origin[1]),)
    return names.origins(held.type.name, held.name, shared)


def _held_by_object(held: Iterable[Held], shared: Sequence[Port]) -> dict[Key, list[Held]]:
    grouped: dict[Key, list[Held]] = {}
    for resource in held:
        for origin in _origins(resource, shared):
            grouped.setdefault(origin, []).append(resource)
    return grouped


def _resources(
    section: str, name: str, sections: Sections, shared: Sequence[Port], snapshot: Snapshot
) -> Iterator[tuple[ResourceType, frozenset[str]]]:
    """Yield the resources that an object is part of, by type."""
    if section == "routes":
        wanted = sections.routes[name].listeners or sections.listeners
        tables = (names.routes(port, one) for port in shared for one in port.http if one in wanted)
        yield ROUTE, frozenset(tables)
        return
    if section == "stream_routes":
        here = (port for port in shared if any(name in some for some in port.streams.values()))
        yield LISTENER, frozenset(map(names.listener, here))
        return
    for type_ in _EVERYWHERE.get(section, ()):
        yield type_, frozenset(snapshot[type_])
    if section in _EVERYWHERE:
        return
    for type_ in snapshot:
        own = frozenset(one for one in _candidates(section, name, shared) if one in snapshot[type_])
        yield (
            type_,
            frozenset(one for one in own if (section, name) in names.origins(type_.name, one, shared)),
        )


def _candidates(section: str, name: str, shared: Iterable[Port]) -> tuple[str, ...]:
    """Return all names that resources of one object can have."""
    if section == "listeners":
        port = next(one for one in shared if name in one.listeners)
        return (names.listener(port), names.quic(port), names.routes(port, name), names.client_ca(name))
    if section == "upstreams":
        return (names.cluster(name), names.upstream_ca(name))
    return (names.certificate(name),)


def _nodes(
    clients: Iterable[ClientState], resources: tuple[tuple[ResourceType, frozenset[str]], ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the nodes that have all these resources, and those that have not acknowledged some of them."""
    acknowledged, waiting = set[str](), set[str]()
    for client in clients:
        answers = {client.acknowledged(type_, some) for type_, some in resources}
        if False in answers:
            waiting.add(client.node)
        elif True in answers:
            acknowledged.add(client.node)
    return tuple(sorted(acknowledged - waiting)), tuple(sorted(waiting))
