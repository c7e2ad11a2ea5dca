"""The clients that are served the same: their snapshot, the earlier ones, and the resources that they rejected."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from xds_server.discovery.snapshot import EMPTY, Difference, Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.serving.events import Held
from xds_server.serving.quarantine import Key, Quarantine

_REMEMBERED = 16
"""Earlier snapshots of a group. They share unchanged resources with the current one."""


Chosen = Callable[[str], bool]
"""Says of a node, by its id, whether it is served the candidate."""


def nobody(_node: str) -> bool:
    """Choose no node."""
    return False


@dataclass(slots=True)
class Audience:
    """The clients of one release in a group, and the snapshot that they are served."""

    quarantine: Quarantine
    wanted: Snapshot | None = None
    """The published snapshot, reduced to what the release supports."""
    lacking: tuple[Held, ...] = ()
    """The parts that were left out."""
    snapshot: Snapshot | None = None
    before: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Earlier snapshots, the newest first. Slow clients may still acknowledge them."""


@dataclass(slots=True, eq=False)
class Cohort:
    """The clients of a group that are served one publication: all of them, or those of a rollout's two halves."""

    audiences: dict[str, Audience]
    """By release. The release "" is that of clients that name no program."""
    wanted: Snapshot | None = None
    proved_by: str | None = None
    left_out: tuple[Held, ...] = ()


def renew(audience: Audience) -> Mapping[ResourceType, Difference]:
    """Serve the wanted snapshot without quarantined resources. Returns the changes."""
    assert audience.wanted is not None
    earlier = audience.snapshot
    audience.snapshot = audience.quarantine.apply(audience.wanted)
    if earlier is not None:
        audience.before.appendleft(earlier)
    return audience.snapshot.diff(earlier if earlier is not None else EMPTY)


def remember(audience: Audience, snapshots: Iterable[Snapshot | None]) -> None:
    """Add earlier snapshots, the oldest first: their clients may still acknowledge them."""
    audience.before.extendleft(one for one in snapshots if one is not None and one is not audience.snapshot)


def served_until_now(earlier: Cohort, release: str, stable: Cohort) -> deque[Snapshot]:
    """Return what clients of a release were served until now, the newest first."""
    cohorts = (earlier,) if earlier is stable else (earlier, stable)
    audiences = [cohort.audiences[release] for cohort in cohorts]
    snapshots = [one.snapshot for one in audiences] + list(audiences[0].before)
    distinct = dict.fromkeys(one for one in snapshots if one is not None)
    return deque(list(distinct)[:_REMEMBERED], maxlen=_REMEMBERED)


def has_version(snapshot: Snapshot | None, type_: ResourceType, name: str, version: str) -> bool:
    """True if a snapshot has a resource in this version."""
    resource = (snapshot or EMPTY)[type_].get(name)
    return resource is not None and resource.version == version


def report_key(held: Held) -> tuple[object, ...]:
    """Return the key by which a resource is reported once, for however many releases it is quarantined."""
    return held.type, held.name, held.version, held.release


def reportable(cohorts: Iterable[Cohort]) -> Iterator[Held]:
    """Yield everything that some client is not served as published."""
    for cohort in cohorts:
        for audience in cohort.audiences.values():
            yield from audience.quarantine.held.values()
            yield from audience.lacking
        yield from cohort.left_out


def quarantined(cohort: Cohort) -> Iterator[tuple[str, Key, Held]]:
    """Yield the quarantined resources of each release."""
    for release, audience in cohort.audiences.items():
        for key, held in audience.quarantine.held.items():
            yield release, key, held
