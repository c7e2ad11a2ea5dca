"""The version of a gateway, and the HTTP filter that writes it into the metadata of each request.

The filter's configuration is delivered by ECDS, so that a new version does not change the listeners.
"""

from __future__ import annotations

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.set_metadata.v3 import set_metadata_pb2

from filters.log_fields import VERSION_METADATA
from filters.policy import HttpFilter
from filters.policy_server import internal_cluster
from xds_server.discovery.snapshot import Resource, Snapshot, content_hash, state_version
from xds_server.discovery.types import CLUSTER, EXTENSION_CONFIG
from xds_server.translate.protobuf import packed

NAME = "xds.version"
_INTERNAL = internal_cluster("")
"""The beginning of the names of clusters of our own services."""


def _config(version: str, commit: str = "") -> set_metadata_pb2.Config:
    values = {"version": version, **({"commit": commit} if commit else {})}
    config = set_metadata_pb2.Config()
    config.metadata.add(metadata_namespace=VERSION_METADATA).value.update(values)
    return config


FILTER = HttpFilter(name=NAME, config=_config(""), dynamic=True, always=True)
"""The filter, with an empty version until `written`."""


def version(snapshot: Snapshot) -> str:
    """Return the version of a gateway: a hash of everything that it serves, but for the version itself."""
    own = {type_.url: text for type_, text in snapshot.versions.items() if type_ != EXTENSION_CONFIG}
    extensions = snapshot[EXTENSION_CONFIG].items()
    own[EXTENSION_CONFIG.url] = state_version({name: one.version for name, one in extensions if name != NAME})
    return content_hash(*(f"{url}={own[url]}".encode() for url in sorted(own)))


def portable(snapshot: Snapshot) -> str:
    """Return a version without our own services, whose addresses can change with each start of the control plane."""
    clusters = {name: one for name, one in snapshot[CLUSTER].items() if not name.startswith(_INTERNAL)}
    return version(snapshot.replacing({CLUSTER: clusters}))


def written(snapshot: Snapshot, commit: str = "") -> Snapshot:
    """Return the snapshot with its version, and the commit that it is from, in the configuration of the filter, if it has the filter."""
    extensions = snapshot[EXTENSION_CONFIG]
    if NAME not in extensions:
        return snapshot
    config = extension_pb2.TypedExtensionConfig(
        name=NAME, typed_config=packed(_config(version(snapshot), commit))
    )
    return snapshot.replacing({EXTENSION_CONFIG: {**extensions, NAME: Resource.of(config)}})
