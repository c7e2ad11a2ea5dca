"""What tests of the client have: a client of the session's API server, and a namespace of their own in it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.kubernetes.objects import Objects
from tests.support.kubernetes.shared import SharedServer
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.connection import Connection
from xds_server.kubernetes.kubeconfig import read_kubeconfig


@pytest.fixture
def connection(kubernetes: SharedServer) -> Connection:
    """How the session's API server is reached, as an administrator."""
    return read_kubeconfig([kubernetes.kubeconfig])


@pytest.fixture
async def client(connection: Connection) -> AsyncIterator[ApiClient]:
    """A client of an administrator."""
    async with ApiClient(connection) as entered:
        yield entered


@pytest.fixture
def objects(kubernetes: SharedServer) -> Iterator[Objects]:
    """The test's own view of the objects."""
    with kubernetes.objects() as entered:
        yield entered


@pytest.fixture
def namespace(objects: Objects) -> str:
    """A namespace that no other test uses. It stays until the API server ends."""
    return objects.namespace(f"test-{uuid.uuid4().hex[:12]}")
