"""Gateways for tests: compiled, rendered as a static bootstrap, and served by a real Envoy each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.envoy import Envoy, for_this_envoy
from tests.support.folder import NO_SERVICES, Files, compiled, filled, write
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.translate.readable import plain
from xds_server.translate.static import bootstrap


class Gateway:
    """The gateway of the folder `path` in an Envoy of its own. Use as a context manager.

    Its `port`, `url` and `client()` are those of the first listener by name. Envoy writes its log into `logs`.
    `services` are addresses of our own services by name.
    """

    def __init__(
        self, path: Path, logs: Path, *, scheme: str = "http", services: Mapping[str, str] = NO_SERVICES
    ) -> None:
        self.compiled = compiled(path, services)
        listener = next(iter(self.compiled.gateway.sections.listeners.values()))
        self.port = listener.port
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.envoy = Envoy(plain(bootstrap(for_this_envoy(self.compiled.snapshot))), logs)

    def __enter__(self) -> Self:
        self.envoy.start()
        self.envoy.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.envoy.stop()

    def client(self, **options: Any) -> httpx.Client:
        """A client whose paths are relative to the gateway."""
        return httpx.Client(base_url=self.url, timeout=30, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request."""
        with self.client() as client:
            return client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One GET."""
        return self.request("GET", path, **options)

    def until(self, path: str, status: int) -> httpx.Response:
        """Ask until the response has this status."""

        def response() -> httpx.Response | None:
            found = self.get(path)
            return found if found.status_code == status else None

        return wait_for(response, f"{path} to answer {status}")


class Gateways(ExitStack):
    """Starts gateways, each in a folder of its own below `folder`, and stops them all at its end."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._started = 0

    def start(
        self, text: str, *, files: Files | None = None, scheme: str = "http", **values: object
    ) -> Gateway:
        """Start the gateway that `text` describes, beside more `files` that it refers to.

        `text` is filled with `values`; ``$port`` is a free port. Raises InvalidGateway.
        """
        self._started += 1
        folder = self._folder / f"gateway-{self._started}"
        write(folder, files, gateway=filled(text, **{"port": free_port(), **values}))
        return self.enter_context(Gateway(folder, self._folder, scheme=scheme))
