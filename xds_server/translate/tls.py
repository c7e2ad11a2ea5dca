"""TLS contexts, towards clients and towards endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.quic.v3 import quic_transport_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from xds_server.gateway.model.listeners import DownstreamTls
from xds_server.gateway.model.upstreams import UpstreamTls
from xds_server.translate import names, secrets
from xds_server.translate.protobuf import boolean, packed

SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
_VERSIONS = {
    "1.0": common_pb2.TlsParameters.TLSv1_0,
    "1.1": common_pb2.TlsParameters.TLSv1_1,
    "1.2": common_pb2.TlsParameters.TLSv1_2,
    "1.3": common_pb2.TlsParameters.TLSv1_3,
}


def alt_names(wanted: Iterable[str]) -> list[common_pb2.SubjectAltNameMatcher]:
    """Return the condition that a certificate has one of these names."""
    return [common_pb2.SubjectAltNameMatcher(san_type=_san_type(one), matcher=_text(one)) for one in wanted]


def _san_type(name: str) -> common_pb2.SubjectAltNameMatcher.SanType:
    return common_pb2.SubjectAltNameMatcher.URI if "://" in name else common_pb2.SubjectAltNameMatcher.DNS


def _text(name: str) -> string_pb2.StringMatcher:
    if name.startswith("*."):
        return string_pb2.StringMatcher(suffix=name[1:])
    if "://" in name and name.endswith("/*"):
        return string_pb2.StringMatcher(prefix=name[:-1])
    return string_pb2.StringMatcher(exact=name)


def upstream(name: str, config: UpstreamTls, alpn: Iterable[str]) -> base_pb2.TransportSocket:
    """Return TLS to the endpoints of an upstream."""
    common = tls_pb2.CommonTlsContext(
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=_VERSIONS[config.minimum_version],
            tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
        ),
        alpn_protocols=alpn,
    )
    if config.client_certificate is not None:
        common.tls_certificate_sds_secret_configs.append(
            secrets.reference(names.certificate(config.client_certificate))
        )
    if config.verify:
        _verify(name, config, common)
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=config.sni or "")
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _verify(name: str, config: UpstreamTls, common: tls_pb2.CommonTlsContext) -> None:
    wanted = config.subject_alt_names or ((config.sni,) if config.sni else ())
    validation = common_pb2.CertificateValidationContext(match_typed_subject_alt_names=alt_names(wanted))
    if config.ca is None:
        validation.trusted_ca.filename = SYSTEM_CA
        common.validation_context.CopyFrom(validation)
    else:
        common.combined_validation_context.default_validation_context.CopyFrom(validation)
        reference = secrets.reference(names.upstream_ca(name))
        common.combined_validation_context.validation_context_sds_secret_config.CopyFrom(reference)


HTTP = ("h2", "http/1.1")
"""The protocols that are negotiated by ALPN for HTTP over TCP (RFC 7301)."""


def downstream(name: str, config: DownstreamTls, alpn: Iterable[str]) -> base_pb2.TransportSocket:
    """Return TLS over TCP, with these protocols for ALPN."""
    context = _downstream(name, config, alpn)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def quic(name: str, config: DownstreamTls) -> base_pb2.TransportSocket:
    """Return TLS within QUIC, for HTTP/3 clients."""
    context = _downstream(name, config, ("h3",))
    context.common_tls_context.ClearField("tls_params")
    transport = quic_transport_pb2.QuicDownstreamTransport(
        downstream_tls_context=context, enable_early_data=boolean(False)
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.quic", typed_config=packed(transport))


def _downstream(name: str, config: DownstreamTls, alpn: Iterable[str]) -> tls_pb2.DownstreamTlsContext:
    common = tls_pb2.CommonTlsContext(
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=_VERSIONS[config.minimum_version],
            tls_maximum_protocol_version=_VERSIONS[config.maximum_version],
            cipher_suites=config.cipher_suites,
        ),
        tls_certificate_sds_secret_configs=[
            secrets.reference(names.certificate(one)) for one in config.certificates
        ],
        alpn_protocols=alpn,
    )
    context = tls_pb2.DownstreamTlsContext(common_tls_context=common)
    client = config.client_certificate
    if client is not None:
        validation = common_pb2.CertificateValidationContext(
            match_typed_subject_alt_names=alt_names(client.subject_alt_names),
        )
        if not client.verify:
            validation.trust_chain_verification = common_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED
        combined = context.common_tls_context.combined_validation_context
        combined.default_validation_context.CopyFrom(validation)
        combined.validation_context_sds_secret_config.CopyFrom(secrets.reference(names.client_ca(name)))
        context.require_client_certificate.value = client.required
        # Envoy treats the certificate of a resumed session as unverified, and `mtls` would reject it.
        context.disable_stateless_session_resumption = True
        context.disable_stateful_session_resumption = True
    return context
