"""Traefik, built from its Go module by ``make traefik``: what is imported of its files is compared with it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Self

import httpx

from tests.support.kubernetes import build
from tests.support.logged_process import LoggedProcess
from tests.support.ports import free_port
from tests.support.wait import wait_for

VERSION = "v3.5.4"
_MODULE = "github.com/traefik/traefik/v3"
_STATIC = """
entryPoints: {{web: {{address: "127.0.0.1:{web}"}}, admin: {{address: "127.0.0.1:{admin}"}}}}
providers: {{file: {{filename: {file}}}}}
ping: {{entryPoint: admin}}
log: {{level: WARN}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
"""


def binary() -> Path | None:
    """The program, None if it is not built."""
    found = build.CACHE / f"traefik-{VERSION}" / "traefik"
    return found if found.exists() else None


def make() -> None:
    """Build the program, unless it is there. Raises CannotBuildError."""
    build.built(build.CACHE / f"traefik-{VERSION}", _into)


def _into(target: Path) -> None:
    """Build in a copy of the module, whose go.mod replaces other modules, which counts only there."""
    found = build.go(target, "mod", "download", "-json", f"{_MODULE}@{VERSION}", sources=target)
    sources = target / "sources"
    shutil.copytree(json.loads(found)["Dir"], sources, copy_function=shutil.copyfile)
    for folder in (sources, *(one for one in sources.rglob("*") if one.is_dir())):
        folder.chmod(0o755)
    flags = ("-trimpath", "-ldflags", "-s -w", "-o", str(target / "traefik"))
    build.go(target, "build", *flags, "./cmd/traefik", sources=sources)
    shutil.rmtree(sources)


class Traefik:
    """Traefik with a dynamic configuration. Use as a context manager; `url` is that of its entry point `web`."""

    def __init__(self, dynamic: str, folder: Path, *, processors: int | None = None) -> None:
        found = binary()
        assert found is not None, "make traefik builds it"
        self.port, self._admin = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        file, static = folder / "traefik-dynamic.yaml", folder / "traefik.yaml"
        file.write_text(dynamic)
        static.write_text(_STATIC.format(web=self.port, admin=self._admin, file=file))
        environment = {"GOMAXPROCS": str(processors)} if processors else {}
        self.process = LoggedProcess((found, f"--configFile={static}"), folder / "traefik.log", environment)

    @property
    def pid(self) -> int:
        assert self.process.process is not None
        return self.process.process.pid

    def __enter__(self) -> Self:
        self.process.start()
        wait_for(self._is_ready, lambda: f"Traefik; its log:\n{self.process.log[-3000:]}")
        return self

    def _is_ready(self) -> bool:
        return httpx.get(f"http://127.0.0.1:{self._admin}/ping").status_code == 200

    def __exit__(self, *_: object) -> None:
        self.process.stop()


if __name__ == "__main__":
    os.nice(19)
    make()
