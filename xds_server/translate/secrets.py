"""Secrets (SDS): certificates are never in listeners or clusters, so that a rotation drains no connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2

from filters.pipeline import POLICIES
from filters.policy import Context
from xds_server.gateway.model.gateway import Sections
from xds_server.translate import names
from xds_server.translate.protobuf import ads


def _bytes(content: bytes) -> base_pb2.DataSource:
    return base_pb2.DataSource(inline_bytes=content)


def _ca(name: str, content: bytes) -> secret_pb2.Secret:
    context = common_pb2.CertificateValidationContext(trusted_ca=_bytes(content))
    return secret_pb2.Secret(name=name, validation_context=context)


def _generic(name: str, content: bytes) -> secret_pb2.Secret:
    """Return a secret text, without the line end that an editor adds."""
    return secret_pb2.Secret(
        name=name, generic_secret=secret_pb2.GenericSecret(secret=_bytes(content.rstrip(b"\r\n")))
    )


def secrets(sections: Sections, context: Context) -> Iterator[secret_pb2.Secret]:
    """Yield every secret of the gateway: certificates with private keys, and authorities."""
    contents = context.contents
    for name, secret in sections.secrets.items():
        certificate = common_pb2.TlsCertificate(
            certificate_chain=_bytes(contents[secret.certificate]),
            private_key=_bytes(contents[secret.private_key]),
        )
        yield secret_pb2.Secret(name=names.certificate(name), tls_certificate=certificate)
    for policy in POLICIES:
        for name, content in policy.secrets(context):
            yield _generic(name, content)
    for name, upstream in sections.upstreams.items():
        if upstream.tls is not None and upstream.tls.ca is not None:
            yield _ca(names.upstream_ca(name), contents[upstream.tls.ca])
    for name, listener in sections.listeners.items():
        if listener.tls is not None and listener.tls.client_certificate is not None:
            sources = listener.tls.client_certificate.authorities
            yield _ca(names.client_ca(name), b"\n".join(contents[one] for one in sources))


def also_verifying(
    authority: secret_pb2.Secret, names: Iterable[common_pb2.SubjectAltNameMatcher]
) -> secret_pb2.Secret:
    """Return a secret with an authority that accepts these names too. Envoy adds them to those of the TLS context."""
    result = secret_pb2.Secret()
    result.CopyFrom(authority)
    result.validation_context.match_typed_subject_alt_names.extend(names)
    return result


def reference(name: str) -> secret_pb2.SdsSecretConfig:
    """Return a reference to a secret that Envoy fetches over ADS."""
    return secret_pb2.SdsSecretConfig(name=name, sds_config=ads())
