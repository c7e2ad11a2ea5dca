"""The certificate authority in a Secret of a real API server: shared by replicas, rotated, and never replaced if it is foreign."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.kubernetes.objects import Objects
from xds_server.certificate_authority.authority import new_authority
from xds_server.certificate_authority.rotation import Authorities
from xds_server.controller.authority_secret import LABEL, AuthoritySecret
from xds_server.errors import EnvironmentFailed
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.resources import Key
from xds_server.kubernetes.token_review import ServiceAccount, review


def _secret(objects: Objects, namespace: str, data: dict[str, bytes], label: str = "xds-gateway") -> None:
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    metadata = {"name": "authority", "namespace": namespace, "labels": {LABEL: label}}
    objects.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}])


async def test_replicas_share_one_authority(client: ApiClient, namespace: str) -> None:
    replicas = [AuthoritySecret(client, Key(namespace, "authority"), ["a.example.com"]) for _ in range(5)]
    await asyncio.gather(*(one.open() for one in replicas))
    assert len({one.bundle for one in replicas}) == 1
    assert len({one.serving() for one in replicas}) == 5  # each has a key of its own


async def test_an_old_authority_gets_a_successor_and_the_others_hear_of_it(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    old = new_authority("old", datetime.now(UTC) - timedelta(days=8), timedelta(days=10))
    _secret(objects, namespace, Authorities(current=old).data())
    told: list[bool] = []
    one, other = (
        AuthoritySecret(
            client, Key(namespace, "authority"), ["a.example.com"], lambda which=which: told.append(which)
        )
        for which in (True, False)
    )
    await one.open()
    assert one.authorities.current == old
    assert one.authorities.upcoming is not None
    await other.open()
    assert other.authorities == one.authorities


@pytest.mark.parametrize(("data", "said"), [({}, "no tls.crt"), ({"tls.crt": b"x", "tls.key": b"y"}, "PEM")])
async def test_a_secret_that_is_no_authority_is_left_alone(
    client: ApiClient, objects: Objects, namespace: str, data: dict[str, bytes], said: str
) -> None:
    _secret(objects, namespace, data)
    with pytest.raises(EnvironmentFailed, match=f"{namespace}/authority.*{said}.*correct or delete it"):
        await AuthoritySecret(client, Key(namespace, "authority"), ["a.example.com"]).open()


async def test_an_authority_of_somebody_else_is_used_and_not_rotated(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    foreign = new_authority("theirs", datetime.now(UTC) - timedelta(days=9), timedelta(days=10))
    _secret(objects, namespace, Authorities(current=foreign).data(), label="cert-manager")
    authority = AuthoritySecret(client, Key(namespace, "authority"), ["a.example.com"])
    await authority.open()
    assert authority.authorities == Authorities(current=foreign)


async def test_a_token_tells_its_account_to_its_audience_only(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    token = objects.token_of(namespace, "orders", audiences=["here.example.com"])
    assert await review(client, token, "here.example.com") == ServiceAccount(namespace, "orders")
    assert await review(client, token, "there.example.com") is None
    assert await review(client, f"{token[:-6]}AAAAAA", "here.example.com") is None
    assert await review(client, "rubbish", "here.example.com") is None
