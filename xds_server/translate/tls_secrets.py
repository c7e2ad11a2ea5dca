"""References of TLS contexts to secrets (SDS), so that only a bad secret itself is blamed and left out.

Envoy builds a TLS context from all its secrets and blames the last one, whichever is bad. So the proving Envoy gets
each secret in a context of its own, and a listener stays in use without a certificate that Envoy rejects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, LISTENER, SECRET, ResourceType
from xds_server.translate import filter_chains, secrets
from xds_server.translate.protobuf import packed

PROBE = "proof/secret/"
"""The prefix of the proving Envoy's clusters with one secret each. No upstream has a slash in its name."""
_COMMON = tls_pb2.CommonTlsContext.DESCRIPTOR.full_name


def probes(snapshot: Snapshot) -> Iterator[Resource]:
    """Yield a cluster without endpoints for each certificate and each authority."""
    for name, one in snapshot[SECRET].items():
        kind = secret_pb2.Secret.FromString(one.body).WhichOneof("type")
        context = tls_pb2.UpstreamTlsContext()
        common = context.common_tls_context
        if kind == "tls_certificate":
            common.tls_certificate_sds_secret_configs.append(secrets.reference(name))
        elif kind == "validation_context":
            common.validation_context_sds_secret_config.CopyFrom(secrets.reference(name))
        else:
            continue
        socket = base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
        cluster = cluster_pb2.Cluster(name=f"{PROBE}{name}", type=cluster_pb2.Cluster.STATIC)
        cluster.transport_socket.CopyFrom(socket)
        cluster.load_assignment.cluster_name = cluster.name
        yield Resource.of(cluster)


def separate(message: Message, *, keep: int) -> None:
    """Leave only the first `keep` certificates of each TLS context, and no authorities from secrets."""

    def edit(common: Any) -> bool:
        del common.tls_certificate_sds_secret_configs[keep:]
        for field in ("validation_context_sds_secret_config", "combined_validation_context"):
            if common.HasField(field):
                common.ClearField(field)
        return True

    _edit(message, edit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A resource that was removed, or the filter chain `chain` of it."""

    type: ResourceType
    name: str
    chain: str = ""


def without(snapshot: Snapshot, lost: Collection[str]) -> tuple[Snapshot, tuple[Removed, ...]]:
    """Return a snapshot without references to `lost` secrets, and what was removed for that.

    A filter chain of a listener stays with its other certificates. It is removed if it has none left, or if it would no
    longer verify clients; its connections are then closed. A cluster is removed if it would no longer verify its endpoints or present its own
    certificate.
    """
    clusters, listeners = dict(snapshot[CLUSTER]), dict(snapshot[LISTENER])
    gone: list[Removed] = []
    for name, resource in snapshot[CLUSTER].items():
        cluster = cluster_pb2.Cluster.FromString(resource.body)
        kept, same = _without(cluster, lost, one_certificate_is_enough=False)
        if not kept:
            del clusters[name]
            gone.append(Removed(type=CLUSTER, name=name))
        elif not same:
            clusters[name] = Resource.of(cluster)
    for name, resource in snapshot[LISTENER].items():
        listener = listener_pb2.Listener.FromString(resource.body)
        results = [
            (one, *_without(one, lost, one_certificate_is_enough=True)) for one in listener.filter_chains
        ]
        gone += [Removed(type=LISTENER, name=name, chain=one.name) for one, kept, _ in results if not kept]
        if all(kept and same for _, kept, same in results):
            continue
        closed = {one.name for one, kept, _ in results if not kept}
        if filter_chains.close(listener, [one for one, _, _ in results], closed):
            listeners[name] = Resource.of(listener)
        else:
            del listeners[name]
    return snapshot.replacing({CLUSTER: clusters, LISTENER: listeners}), tuple(gone)


def _without(
    message: Message, lost: Collection[str], *, one_certificate_is_enough: bool
) -> tuple[bool, bool]:
    """Remove references to `lost` secrets. Returns whether the message can stay, and whether it is unchanged."""
    kept, same = True, True

    def edit(common: Any) -> bool:
        nonlocal kept, same
        wanted = list(common.tls_certificate_sds_secret_configs)
        left = [reference for reference in wanted if reference.name not in lost]
        authorities = (
            common.validation_context_sds_secret_config.name,
            common.combined_validation_context.validation_context_sds_secret_config.name,
        )
        if any(name in lost for name in authorities if name):
            kept = False
        if len(left) < len(wanted):
            same = False
            kept &= bool(left) and one_certificate_is_enough
            del common.tls_certificate_sds_secret_configs[:]
            common.tls_certificate_sds_secret_configs.extend(left)
        return len(left) < len(wanted)

    _edit(message, edit)
    return kept, same


def _edit(message: Any, edit: Callable[[Any], bool]) -> bool:
    """Apply `edit` to every CommonTlsContext below a message, also within an Any. Returns True if one was changed."""
    if isinstance(message, any_pb2.Any):
        inner = _unpacked(message)
        if inner is None or not _edit(inner, edit):
            return False
        message.CopyFrom(packed(inner))
        return True
    if message.DESCRIPTOR.full_name == _COMMON:
        return edit(message)
    changed = False
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            children = value.values() if field.message_type.fields_by_name["value"].message_type else ()
        else:
            children = value if field.is_repeated else (value,)
        for child in children:
            changed |= _edit(child, edit)
    return changed


def _unpacked(packed_message: any_pb2.Any) -> Message | None:
    try:
        found = descriptor_pool.Default().FindMessageTypeByName(packed_message.type_url.rpartition("/")[2])
    except KeyError:
        return None
    return message_factory.GetMessageClass(found).FromString(packed_message.value)
