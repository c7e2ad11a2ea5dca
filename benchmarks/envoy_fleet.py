"""Simulated Envoys in several processes, led by lines of JSON: a command on a process's stdin, one line in return."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvloop

from benchmarks.simulated_envoys import Envoys, Options

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300.0
"""Seconds in which a fleet has to do what it is told."""


@dataclass(slots=True)
class Reached:
    """The Envoys that have reached something, each with a time of the monotonic clock; and how many have not."""

    times: list[float] = field(default_factory=list)
    missing: int = 0


@dataclass(slots=True)
class Report:
    """What the Envoys of a fleet have and have received since the last report."""

    connected: int = 0
    complete: int = 0
    states: Counter[int] = field(default_factory=Counter)
    """How many Envoys have the same resources."""
    held: int = 0
    """Resources of the first Envoy."""
    errors: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    responses: int = 0
    resources: int = 0
    bytes: int = 0


class Fleet:
    """Simulated Envoys of `processes` processes. Use as a context manager."""

    def __init__(
        self,
        ports: Sequence[int],
        *,
        processes: int,
        node: bytes = b"",
        delta: bool = True,
        lrs: bool = True,
        tls: tuple[Path, Path, Path] | None = None,
    ) -> None:
        """`tls` is the authority's certificate, and the Envoys' certificate and key."""
        raise_files_limit()
        self.size = 0
        self._options = {
            "ports": list(ports),
            "node": base64.b64encode(node).decode(),
            "delta": delta,
            "lrs": lrs,
            "tls": [str(one) for one in tls] if tls is not None else None,
        }
        self._count = processes
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for number in range(self._count):
            options = json.dumps({**self._options, "first": number * 1_000_000})
            command = [sys.executable, "-m", "benchmarks.envoy_fleet", options]
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def add(self, count: int) -> None:
        """Start so many more Envoys at once."""
        self.size += count
        share, rest = divmod(count, self._count)
        self._all({"do": "add", "count": share + (number < rest)} for number in range(self._count))

    def until(self, what: str, *, seconds: float = LIMIT, missing: int = 0) -> Reached:
        """Wait until all Envoys but `missing` ones of each process are "connected", "complete" or have a marker."""
        found = Reached()
        for one in self._all({"do": "until", "what": what, "seconds": seconds, "missing": missing} for _ in range(self._count)):  # fmt: skip
            found.times += one["times"]
            found.missing += one["missing"]
        return found

    def half(self, what: str) -> None:
        """Wait until half of the Envoys have reached something."""
        self.until(what, missing=self.size // self._count // 2)

    def hang(self, count: int) -> None:
        """Let the first Envoys of each process stop reading; with 0, let all read again."""
        self._same({"do": "hang", "count": count})

    def restart(self) -> float:
        """Let all Envoys start again at once, without their state. Returns when."""
        now = time.monotonic()
        self._same({"do": "restart"})
        return now

    def use(self, *ports: int) -> None:
        """Let Envoys connect to these control planes from now on."""
        self._same({"do": "use", "ports": ports})

    def report(self) -> Report:
        """Return what the Envoys have, and what they have received since the last report."""
        total = Report()
        for one in self._same({"do": "report"}):
            total.held = one.pop("held")
            total.states.update({int(digest): count for digest, count in one.pop("states").items()})
            for name in ("errors", "endings"):
                getattr(total, name).update(one.pop(name))
            for name, value in one.items():
                setattr(total, name, getattr(total, name) + value)
        return total

    def _same(self, command: dict[str, Any]) -> list[Any]:
        return self._all(command for _ in range(self._count))

    def _all(self, commands: Any) -> list[Any]:
        for process, command in zip(self._processes, commands, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        return [json.loads(_line(process)) for process in self._processes]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of simulated Envoys ended with {process.wait()}")
    return line


def raise_files_limit() -> None:
    """Raise the limit of open files to the largest that is allowed, for this process and those that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Member:
    """One process of a fleet."""

    def __init__(self, given: dict[str, Any]) -> None:
        options = Options(
            ports=tuple(given["ports"]),
            delta=given["delta"],
            lrs=given["lrs"],
            node=base64.b64decode(given["node"]),
            tls=_tls(*given["tls"]) if given["tls"] is not None else None,
        )
        self._envoys = Envoys(options, given["first"])
        self._changed = asyncio.Event()
        self._envoys.seen.changed = self._changed.set
        self._hanging = 0

    async def run(self) -> None:
        """Obey until stdin ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        pinging = loop.create_task(self._envoys.ping())
        while line := await reader.readline():
            command = json.loads(line)
            answer = getattr(self, f"_do_{command.pop('do')}")(**command)
            print(json.dumps(await answer if asyncio.iscoroutine(answer) else answer), flush=True)
        pinging.cancel()

    def _do_add(self, count: int) -> None:
        self._envoys.add(count)

    def _do_restart(self) -> None:
        self._envoys.restart()

    def _do_use(self, ports: list[int]) -> None:
        self._envoys.options.ports = tuple(ports)

    def _do_hang(self, count: int) -> None:
        for member in self._envoys.members[: self._hanging]:
            member.read(True)
        for member in self._envoys.members[:count]:
            member.read(False)
        self._hanging = count

    async def _do_until(self, what: str, seconds: float, missing: int) -> dict[str, Any]:
        wanted = len(self._envoys.members) - missing
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self._reached(what)) < wanted:
                    self._changed.clear()
                    await self._changed.wait()
        times = list(self._reached(what).values())
        return {"times": times, "missing": len(self._envoys.members) - len(times)}

    def _reached(self, what: str) -> dict[int, float]:
        seen = self._envoys.seen
        named = {"connected": seen.connected, "complete": seen.complete}
        return named[what] if what in named else seen.markers.get(what, {})

    def _do_report(self) -> dict[str, Any]:
        seen, members = self._envoys.seen, self._envoys.members
        report = {
            "connected": len(seen.connected),
            "complete": len(seen.complete),
            "states": Counter(str(member.digest()) for member in members),
            "held": sum(map(len, members[0].held.values())) if members else 0,
            "errors": dict(seen.errors),
            "endings": dict(seen.endings),
            **{name: getattr(seen, name) for name in ("attempts", "responses", "resources", "bytes")},
        }
        seen.attempts = seen.responses = seen.resources = seen.bytes = 0
        seen.errors.clear()
        seen.endings.clear()
        return report


def _tls(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    return context


def _run(text: str) -> None:
    raise_files_limit()
    uvloop.run(_Member(json.loads(text)).run())


if __name__ == "__main__":
    _run(sys.argv[1])
