"""The API of a portal over a store, in a web server of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn

from tests.support.market import Market
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.gateway.model.catalog import PUBLIC
from xds_server.gateway.model.portal import Portal
from xds_server.marketplace import logins
from xds_server.portal.application import API, application
from xds_server.portal.attempts import Attempts
from xds_server.portal.gateway_view import GatewayView

VIEW = GatewayView(
    portal=Portal(url="http://portal.example", gateway="http://api.example"),
    entries=dict.fromkeys(("orders", "payments"), SimpleNamespace(visibility=PUBLIC)),  # type: ignore[arg-type] # the rest does not matter
    plans={"free": None, "gold": None},  # type: ignore[dict-item] # only their names matter
    consumers=("acme",),
)
SCOPES = ("read", "write", "publish", "admin")


class ApiClient:
    """Calls the API as a person. `token` is that of the person."""

    def __init__(self, client: httpx.Client, token: str) -> None:
        self._client, self._headers = client, {"authorization": f"Bearer {token}"}
        self.token = token

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return the response. A body is sent as JSON."""
        options = {} if body is None else {"json": body}
        return self._client.request(method, f"{API}{path}", headers={**self._headers, **headers}, **options)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self.call("PATCH", path, body, **headers)


class ApiOf:
    """The API on a store."""

    def __init__(self, market: Market, client: httpx.Client) -> None:
        self.market, self.client = market, client

    def as_(self, name: str, *scopes: str) -> ApiClient:
        """Return a client with a new token of a person."""
        with self.market.store.begin(self.market.actor(name)) as now:
            _, token = logins.add_token(now, "test", scopes or SCOPES)
        return ApiClient(self.client, token)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port. Returns its address."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_config=None, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the web server")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def api_of(market: Market, attempts: Attempts | None = None) -> Iterator[ApiOf]:
    """Serve the API of a store."""
    app = application(market.store, lambda: VIEW, attempts or Attempts(most=1000))
    with serving(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield ApiOf(market, client)
