"""How an Envoy in a pod trusts its control plane and proves who it is: by files in one folder that the kubelet renews.

The folder is one volume with the token of a service account and a ConfigMap. The ConfigMap has the authorities to trust,
and two SDS files that name the authorities and the token. The kubelet replaces the content of a volume by moving one
link, which Envoy watches, so that a new token and a new authority are used without a restart.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.filters.http.credential_injector.v3 import credential_injector_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.http.injected_credentials.generic.v3 import generic_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from google.protobuf import json_format

from xds_server.translate.protobuf import packed

TOKEN = "token"  # noqa: S105 - a name of a file
"""The file of the token."""
TOKEN_HEADER = "x-service-account-token"  # noqa: S105 - a name of a header
"""The header of the token. It is not `authorization`, because Envoy writes nothing before what a file has."""
_AUTHORITIES, _TRUST_SDS, _TOKEN_SDS = "ca.crt", "trust.json", "token.json"
_SECRET = "type.googleapis.com/" + secret_pb2.Secret.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedIdentity:
    """A `folder` in the pod, and the name of the control plane in its certificate: a host name or an IP address."""

    folder: PurePosixPath
    server_name: str

    def files(self, bundle: bytes) -> Mapping[str, str]:
        """Return the files of the ConfigMap. `bundle` has the authorities in PEM."""
        trust = secret_pb2.Secret(name=_TRUST_SDS)
        trust.validation_context.trusted_ca.filename = str(self.folder / _AUTHORITIES)
        name = trust.validation_context.match_typed_subject_alt_names.add()
        name.san_type = _san_type(self.server_name)
        name.matcher.exact = self.server_name
        token = secret_pb2.Secret(name=_TOKEN_SDS)
        token.generic_secret.secret.filename = str(self.folder / TOKEN)
        return {
            _AUTHORITIES: bundle.decode(),
            _TRUST_SDS: _sds_file(trust),
            _TOKEN_SDS: _sds_file(token),
        }

    def transport_socket(self) -> base_pb2.TransportSocket:
        """Return TLS to the control plane."""
        common = tls_pb2.CommonTlsContext(alpn_protocols=["h2"])
        common.validation_context_sds_secret_config.CopyFrom(self._sds(_TRUST_SDS))
        is_name = _san_type(self.server_name) == common_pb2.SubjectAltNameMatcher.DNS
        context = tls_pb2.UpstreamTlsContext(
            common_tls_context=common, sni=self.server_name if is_name else ""
        )
        return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))

    def http_filters(self) -> list[hcm_pb2.HttpFilter]:
        """Return the filters of requests to the control plane, which send the token with each stream."""
        generic = generic_pb2.Generic(credential=self._sds(_TOKEN_SDS), header=TOKEN_HEADER)
        injector = credential_injector_pb2.CredentialInjector(overwrite=True)
        injector.credential.name = "envoy.http.injected_credentials.generic"
        injector.credential.typed_config.CopyFrom(packed(generic))
        filters = {
            "envoy.filters.http.credential_injector": injector,
            "envoy.filters.http.upstream_codec": upstream_codec_pb2.UpstreamCodec(),
        }
        return [hcm_pb2.HttpFilter(name=name, typed_config=packed(one)) for name, one in filters.items()]

    def _sds(self, name: str) -> secret_pb2.SdsSecretConfig:
        config = config_source_pb2.ConfigSource(resource_api_version=config_source_pb2.V3)
        config.path_config_source.path = str(self.folder / name)
        config.path_config_source.watched_directory.path = str(self.folder)
        return secret_pb2.SdsSecretConfig(name=name, sds_config=config)


def _sds_file(secret: secret_pb2.Secret) -> str:
    value: dict[str, Any] = json_format.MessageToDict(secret, preserving_proto_field_name=True)
    return json.dumps({"resources": [{"@type": _SECRET, **value}]}, sort_keys=True)


def _san_type(name: str) -> common_pb2.SubjectAltNameMatcher.SanType:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return common_pb2.SubjectAltNameMatcher.DNS
    return common_pb2.SubjectAltNameMatcher.IP_ADDRESS
