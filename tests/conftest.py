"""Options that all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.support.envoy import use_oldest
from tests.support.kubernetes import build
from tests.support.kubernetes.api_server import Channel
from tests.support.kubernetes.shared import SharedServer, session_process, shared_server
from tests.support.trees import use_trees

# How long an example takes says more of the machine than of the code.
settings.register_profile("xds", deadline=None)
settings.load_profile("xds")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the golden files and prune orphans"
    )
    parser.addoption(
        "--oldest-envoy", action="store_true", help="use the oldest Envoy that is supported, not the newest"
    )
    parser.addoption(
        "--route-trees",
        action="store_true",
        help="find the routes of every host by a tree, however few they are",
    )
    parser.addoption(
        "--experimental-crds",
        action="store_true",
        help="install the experimental CRDs of the Gateway API in the Kubernetes API server, not the standard ones",
    )
    parser.addoption("--soak", type=float, default=10, help="seconds of tests/e2e/test_soak.py; default 10")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the Envoy and the form of routes, also in the processes of pytest-xdist."""
    if config.getoption("--route-trees"):
        use_trees()
    if config.getoption("--oldest-envoy"):
        use_oldest()


@pytest.fixture(scope="session")
def kubernetes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SharedServer:
    """The session's Kubernetes API server; tests/support/kubernetes/ has what a test does with it."""
    if line := build.missing():
        pytest.skip(line)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base
    experimental = request.config.getoption("--experimental-crds")
    channel: Channel = "experimental" if experimental else "standard"
    return shared_server(shared / "kubernetes", channel, session_process())
