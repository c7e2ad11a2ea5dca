"""How an end-to-end test starts what it needs. Everything here lives as long as the test module.

- an upstream: the fixture `backend`; several or special ones with `Backend` of tests/support/backend.py
- an Envoy with a compiled gateway: ``gateways.start(YAML, echo=backend.address)``
- the same with the real xDS server and a policy server between: ``stacks.start(YAML, echo=backend.address)``
- Valkey: ``with Valkey(tmp_path) as valkey``; a cluster or a Sentinel are in tests/support/valkey.py too
- `xds run` as a user starts it: `Running`, and `Served` with a gateway that changes, of tests/support/running.py
- an Envoy that is fed with resources made by hand: `XdsThread` and `Envoy` of tests/support/

In the YAML, ``$name`` stands for the value that `start` is given by that name, and ``$port`` for a free port. A test
that needs a gateway for itself alone uses `Gateways` or `Stacks` as a context manager with its `tmp_path`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.backend import Backend
from tests.support.gateway import Gateways
from tests.support.policy_server import Stacks


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """An upstream with the name ``echo``, which answers with what it was sent."""
    with Backend("echo") as running:
        yield running


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """Starts Envoys, each with a gateway."""
    with Gateways(tmp_path_factory.mktemp("gateways")) as started:
        yield started


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    """Starts Envoys, each with a gateway, an xDS server and a policy server."""
    with Stacks(tmp_path_factory.mktemp("stacks")) as started:
        yield started
