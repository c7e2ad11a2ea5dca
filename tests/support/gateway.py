"""A gateway for a test: YAML compiled, rendered as a static bootstrap, and served by a real Envoy."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.envoy import Envoy, for_this_envoy
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.sources.folder import read_folder
from xds_server.translate.readable import plain
from xds_server.translate.static import bootstrap


def write(folder: Path, **files: str) -> Path:
    """Write YAML files, named without their ending, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    return folder


def compiled(folder: Path) -> Compiled:
    """The gateway of a folder. Raises InvalidGateway."""
    return Compiler().compile(read_folder(folder))


class Gateway:
    """A running gateway of the folder `path`. Use as a context manager.

    `ports` may be used in the YAML by whoever writes it; `client()` talks to the first listener's port.
    """

    def __init__(self, path: Path, logs: Path, *, scheme: str = "http") -> None:
        self.compiled = compiled(path)
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


def until(gateway: Gateway, path: str, status: int) -> httpx.Response:
    """Ask until the answer has this status."""
    last: list[httpx.Response] = []

    def ask() -> bool:
        last.append(gateway.get(path))
        return last[-1].status_code == status

    wait_for(ask, f"{path} to answer {status}")
    return last[-1]


__all__ = ["Gateway", "compiled", "free_port", "until", "write"]
