"""Prometheus metrics of the xDS server, computed from the events of a store."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from xds_server.discovery.types import BY_URL, ResourceType
from xds_server.serving.events import (
    Acked,
    Connected,
    Disconnected,
    Event,
    Nacked,
    Overdue,
    Published,
    Quarantined,
    Sent,
)
from xds_server.serving.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BYTES = tuple(4**power * 256 for power in range(9))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfType:
    """The metrics of one resource type, looked up once, because the lookup costs more than the count."""

    pushes: Counter
    resources: Counter
    removed: Counter
    size: Histogram
    acks: Counter
    rejects: Counter
    ack_latency: Histogram
    convergence: Histogram


class Metrics:
    """Observes one store. The default `registry` is a new one."""

    def __init__(self, store: Store, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._store = store
        self._streams: dict[int, tuple[str, str]] = {}
        self._connected = self._gauge(
            "connected_streams", "Open streams of xDS clients.", "group", "protocol"
        )
        self._pushes = self._counter("pushes", "Responses sent to xDS clients.", "type")
        self._resources_sent = self._counter("pushed_resources", "Resources in the responses sent.", "type")
        self._removed = self._counter("removed_resources", "Removed resources in the responses sent.", "type")
        self._size = self._histogram("push_size_bytes", "Bytes of one response, before HTTP/2.", _BYTES)
        self._acks = self._counter("acks", "Responses that clients accepted (ACK).", "type")
        self._rejects = self._counter("rejects", "Responses that clients rejected (NACK).", "type")
        self._ack_latency = self._histogram(
            "ack_latency_seconds", "Seconds from sending a response to its ACK.", _SECONDS
        )
        self._convergence = self._histogram(
            "convergence_seconds", "Seconds from publishing a snapshot to its ACK.", _SECONDS
        )
        self._overdue = self._counter(
            "overdue", "Times that make-before-break stopped waiting for an ACK.", "group"
        )
        self._published = self._counter("publications", "Snapshots published.", "group")
        self._resources = self._gauge("resources", "Resources served.", "group", "type")
        self._bytes = self._gauge("resource_bytes", "Bytes of the resources served.", "group", "type")
        self._quarantined = self._gauge(
            "quarantined_resources", "Rejected resources that are held back.", "group"
        )
        self._types: dict[ResourceType, _OfType] = {}
        self._unknown = self._labelled("unknown")

    def observe(self, event: Event) -> None:
        """Count one event."""
        match event:
            case Sent():
                self._sent(event)
            case Acked():
                of_type = self._of(event.type)
                of_type.acks.inc()
                of_type.ack_latency.observe(event.latency)
                of_type.convergence.observe(event.convergence)
            case Nacked():
                self._of(event.type).rejects.inc()
            case Connected():
                self._streams[event.stream] = (event.group, event.protocol)
                self._connected.labels(event.group, event.protocol).inc()
            case Disconnected() if event.stream in self._streams:
                self._connected.labels(*self._streams.pop(event.stream)).dec()
            case Overdue():
                self._overdue.labels(event.group).inc()
            case Published():
                self._publication(event.group)
            case Quarantined():
                self._quarantined.labels(event.group).set(len(self._store.held(event.group)))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _sent(self, event: Sent) -> None:
        of_type = self._of(event.type)
        of_type.pushes.inc()
        of_type.resources.inc(event.resources)
        of_type.removed.inc(event.removed)
        of_type.size.observe(event.size)

    def _of(self, type_: ResourceType) -> _OfType:
        """Return the metrics of a type.

        Types that only clients name are counted as one, because a client can make up any name.
        """
        metrics = self._types.get(type_)
        if metrics is not None:
            return metrics
        if type_.url in BY_URL or any(type_ in snapshot for snapshot in self._store.groups.values()):
            metrics = self._types[type_] = self._labelled(type_.name)
            return metrics
        return self._unknown

    def _labelled(self, name: str) -> _OfType:
        return _OfType(
            pushes=self._pushes.labels(name),
            resources=self._resources_sent.labels(name),
            removed=self._removed.labels(name),
            size=self._size.labels(name),
            acks=self._acks.labels(name),
            rejects=self._rejects.labels(name),
            ack_latency=self._ack_latency.labels(name),
            convergence=self._convergence.labels(name),
        )

    def _publication(self, group: str) -> None:
        self._published.labels(group).inc()
        self._quarantined.labels(group).set(len(self._store.held(group)))
        snapshot = self._store.current(group)
        for type_ in snapshot or ():
            items = snapshot[type_] if snapshot is not None else {}
            self._resources.labels(group, type_.name).set(len(items))
            self._bytes.labels(group, type_.name).set(sum(len(resource.body) for resource in items.values()))

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"xds_{name}", text, [label], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"xds_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"xds_{name}", text, ["type"], buckets=buckets, registry=self.registry)
