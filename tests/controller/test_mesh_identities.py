"""Certificates of sidecars: whom they name, when they are renewed, and what a new authority changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from xds_server.certificate_authority.authority import new_authority
from xds_server.certificate_authority.rotation import Authorities
from xds_server.controller.mesh_groups import MeshGroups
from xds_server.controller.mesh_identities import MeshIdentities
from xds_server.controller.served import ServedGateway
from xds_server.discovery.snapshot import EMPTY, Resource, Snapshot
from xds_server.discovery.types import SECRET
from xds_server.gateway_api import mesh_tls

START = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT = ("shop", "orders")
NEEDS_ONE = Snapshot.of({SECRET: [Resource.of(secret_pb2.Secret(name=mesh_tls.SECRET))]})
"""What has a stand-in for the certificate."""


class Setting:
    """Authorities and a clock that a test changes."""

    def __init__(self) -> None:
        self.now = START
        self.authorities = self.new()
        self.identities = MeshIdentities(lambda: self.authorities, "example.com", now=lambda: self.now)

    def new(self) -> Authorities:
        return Authorities(current=new_authority("a", self.now, timedelta(days=3650)))

    def certificate(self) -> x509.Certificate:
        return _certificate(self.identities.with_certificate(NEEDS_ONE, ACCOUNT))


def _certificate(snapshot: Snapshot) -> x509.Certificate:
    (resource,) = snapshot[SECRET].values()
    secret = secret_pb2.Secret.FromString(resource.body)
    return x509.load_pem_x509_certificate(secret.tls_certificate.certificate_chain.inline_bytes)


def test_a_certificate_names_the_account_and_stays_for_half_of_its_life() -> None:
    setting = Setting()
    first = setting.certificate()
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://example.com/ns/shop/sa/orders"
    ]
    assert first.not_valid_after_utc == START + timedelta(hours=24)
    setting.now += timedelta(hours=11)
    assert not setting.identities.due()
    assert setting.certificate() == first
    setting.now += timedelta(hours=2)
    assert setting.identities.due()
    assert setting.certificate().not_valid_after_utc == setting.now + timedelta(hours=24)
    assert not setting.identities.due()


def test_a_snapshot_without_the_mesh_stays_as_it_is() -> None:
    assert Setting().identities.with_certificate(EMPTY, ACCOUNT) is EMPTY


def test_a_new_authority_signs_anew_and_is_trusted() -> None:
    setting = Setting()
    first, trust = setting.certificate(), setting.identities.trust()
    assert setting.identities.trust() is trust
    former = setting.authorities.current.certificate
    setting.authorities = Authorities(current=setting.new().current, former=former)
    assert setting.identities.due()
    assert setting.certificate().issuer == first.issuer
    setting.certificate().verify_directly_issued_by(
        x509.load_pem_x509_certificate(setting.authorities.current.certificate)
    )
    assert former.strip() in setting.identities.trust().bundle


def test_an_account_gets_what_its_namespace_gets_until_that_leaves_the_mesh() -> None:
    setting = Setting()
    published: dict[str, Snapshot] = {}
    served = {("shop", ""): ServedGateway(("shop", ""))}
    served["shop", ""].snapshot = NEEDS_ONE
    groups = MeshGroups(published.__setitem__, served, setting.identities)
    assert groups.join(("office", "client")) is None
    assert groups.join(ACCOUNT) == "shop/@orders"
    before = _certificate(published["shop/@orders"])
    setting.now += timedelta(hours=13)
    groups.changed(("shop", ""))
    assert _certificate(published["shop/@orders"]) != before
    served.clear()
    groups.removed(("shop", ""))
    assert published["shop/@orders"] is EMPTY
    assert groups.join(ACCOUNT) is None
