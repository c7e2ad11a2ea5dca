"""How an Envoy in a pod trusts its control plane and proves who it is: by files in one folder that the kubelet renews.

The folder is one volume with the token of a service account and a ConfigMap that has the authorities to trust. Envoy reads
the token for each stream, and the authorities when it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from envoy.config.core.v3 import grpc_service_pb2
from envoy.config.grpc_credential.v3 import file_based_metadata_pb2

from xds_server.translate.protobuf import packed

TOKEN = "token"  # noqa: S105 - a name of a file
"""The file of the token."""
_AUTHORITIES = "ca.crt"
_PLUGIN = "envoy.grpc_credentials.file_based_metadata"
_CHANNEL = {
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.initial_reconnect_backoff_ms": 500,
    "grpc.max_reconnect_backoff_ms": 5_000,  # by itself, gRPC waits up to 2 minutes
    "grpc.max_receive_message_length": -1,  # by itself, gRPC rejects what is larger than 4 MiB
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedIdentity:
    """A `folder` in the pod."""

    folder: PurePosixPath

    @property
    def token(self) -> PurePosixPath:
        """The file of the token."""
        return self.folder / TOKEN

    @property
    def authorities(self) -> PurePosixPath:
        """The file of the authorities to trust, in PEM."""
        return self.folder / _AUTHORITIES

    def files(self, bundle: bytes) -> Mapping[str, str]:
        """Return the files of the ConfigMap. `bundle` has the authorities in PEM."""
        return {_AUTHORITIES: bundle.decode()}

    def grpc_service(self, address: str) -> grpc_service_pb2.GrpcService:
        """Return the control plane at ``host:port``, whose certificate must be for that host."""
        result = grpc_service_pb2.GrpcService()
        google = result.google_grpc
        google.target_uri, google.stat_prefix = address, "control_plane"
        google.channel_credentials.ssl_credentials.root_certs.filename = str(self.authorities)
        token = file_based_metadata_pb2.FileBasedMetadataConfig(
            header_key="authorization", header_prefix="Bearer "
        )
        token.secret_data.filename = str(self.token)
        plugin = google.call_credentials.add().from_plugin
        plugin.name = google.credentials_factory_name = _PLUGIN
        plugin.typed_config.CopyFrom(packed(token))
        for name, value in _CHANNEL.items():
            google.channel_args.args[name].int_value = value
        return result
