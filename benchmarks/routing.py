"""Many routes on one host: what a request costs with ten routes and with thousands, as a list and as a tree."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from benchmarks import routing_changes
from benchmarks.tables import HEADS, row, show
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.trees import LIST, tree
from xds_server.control_plane.compiler import Compiler
from xds_server.discovery.types import ROUTE
from xds_server.sources.folder import Folder
from xds_server.translate.readable import plain
from xds_server.translate.route_trees import DEFAULT, Shape
from xds_server.translate.static import bootstrap

FEW, SOME, MANY = 10, 5_000, 10_000
AROUND = (16, 32, 64, 128)
"""Numbers of routes around the one from which a host becomes a tree."""
SECONDS, TURNS, CONNECTIONS = 1, 5, 16
GAIN = 8
"""The least requests/s of the tree with some routes, as a multiple of those of the list."""
MEMORY = 1.2
"""The most memory of an Envoy with the tree, as a multiple of that with the list."""
HEADS_OF_FORMS = (
    *("routes", "form", "bytes", "memory of Envoy"),
    *("first, requests/s", "processor time", "last, requests/s", "processor time"),
)
_TICKS = 100
"""Clock ticks in a second, of /proc/PID/stat."""


@dataclass(frozen=True)
class Kind:
    """A kind of routes: the conditions of a route, and a path and headers that it takes, by the route's number.

    With the most routes, a host must answer at least `least` of the requests that it answers with the fewest.
    """

    route: str
    path: str
    headers: str = ""
    least: float = 0.85


EXACT = Kind("path: /s{n}/exact", "/s{n}/exact")
PREFIX = Kind("path: /s{n}/prefix/*", "/s{n}/prefix/x")
TEMPLATE = Kind("path: '/s{n}/{{id}}/x'", "/s{n}/1/x")
REGEX = Kind("path: '~^/s{n}/[0-9]+$'", "/s{n}/1", least=0.6)
KINDS: Mapping[str, Sequence[Kind]] = {
    "exact": [EXACT],
    "prefix": [PREFIX],
    "template": [TEMPLATE],
    "regex": [REGEX],
    "a fourth each": [EXACT, PREFIX, TEMPLATE, REGEX],
    "method": [Kind("path: /s{n}/x, methods: [GET]", "/s{n}/x")],
    "header": [Kind("path: /one, headers: {{x-tenant: t{n}}}", "/one", "x-tenant: t{n}")],
}
"""Routes of one host. The route of a number has the kind at this number in the sequence, again and again."""


def main() -> None:
    """Print the tables."""
    if shutil.which("wrk") is None:
        print("Requests are not measured: wrk is missing (package wrk).\n")
    else:
        for name, kinds in KINDS.items():
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                _many(name, kinds, Path(folder), stack)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            _around(Path(folder), stack)
    routing_changes.show_changes()


def _many(name: str, kinds: Sequence[Kind], folder: Path, stack: ExitStack) -> None:
    """Print the tables of one kind of routes."""
    forms = [(FEW, LIST), (SOME, LIST), (SOME, DEFAULT), (MANY, LIST), (MANY, DEFAULT)]
    served = [Served(kinds, routes, shape, folder, stack) for routes, shape in forms]
    few, some_listed, some, listed, many = served
    _take_turns([few, some_listed, some, many])
    show(f"Routes of one host that answer themselves: {name}", HEADS_OF_FORMS, [one.row() for one in served])
    share = min(many.rate(end) / few.rate(end) for end in (0, 1))
    gain = min(some.rate(end) / some_listed.rate(end) for end in (0, 1))
    rows = [
        row(f"requests/s with {MANY:,} routes ÷ with {FEW}", share, kinds[0].least, "", least=True),
        row(f"memory of Envoy with {MANY:,} routes, tree ÷ list", many.memory / listed.memory, MEMORY, ""),
        row("bytes, tree ÷ list", many.size / listed.size, DEFAULT.size, ""),
    ]
    if len(kinds) > 1:
        rows.insert(1, row(f"requests/s with {SOME:,} routes, tree ÷ list", gain, GAIN, "", least=True))
    show(f"… {name}", HEADS, rows)


def _around(folder: Path, stack: ExitStack) -> None:
    """Print from which number of routes a tree is faster."""
    shapes = (LIST, tree(DEFAULT.length))
    served = [Served([TEMPLATE], routes, shape, folder, stack) for routes in AROUND for shape in shapes]
    _take_turns(served)
    show("From which number of routes a tree is faster", HEADS_OF_FORMS, [one.row() for one in served])


def _take_turns(served: Sequence[Served]) -> None:
    for _ in range(TURNS):
        for one in served:
            one.turn()


class Served:
    """Routes in an Envoy of their own."""

    def __init__(
        self, kinds: Sequence[Kind], routes: int, shape: Shape, folder: Path, stack: ExitStack
    ) -> None:
        self._kinds, self._routes, self._form = kinds, routes, "list" if shape is LIST else "tree"
        self._port = free_port()
        texts = {"gateway.yaml": "".join(_gateway(kinds, routes, self._port)).encode()}
        snapshot = Compiler({}, shape=shape).compile(Folder(Path(), MappingProxyType(texts))).snapshot
        self.size = len(snapshot[ROUTE]["http"].body)
        self._envoy = stack.enter_context(Envoy(plain(bootstrap(snapshot)), folder, log_level="error"))
        self._envoy.ready()
        self.memory = int(httpx.get(f"{self._envoy.admin}/memory").json()["allocated"])
        self._turns: tuple[list[tuple[float, float]], ...] = ([], [])

    def turn(self) -> None:
        """Ask for the first and for the last route."""
        for turns, number in zip(self._turns, (0, self._routes - 1), strict=True):
            turns.append(self._asked(number))

    def rate(self, asked: int) -> float:
        """Return the median of the requests in a second for the first (0) or the last route (1)."""
        return statistics.median(rate for rate, _ in self._turns[asked])

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table, with dashes if it took no turns."""
        head = (f"{self._routes:,}", self._form, f"{self.size:,}", f"{self.memory / 2**20:.1f} MiB")
        return (*head, *(cell for asked in (0, 1) for cell in self._measured(asked)))

    def _measured(self, asked: int) -> tuple[str, str]:
        if not self._turns[asked]:
            return "–", "–"
        rates, times = zip(*self._turns[asked], strict=True)
        spread = f"{self.rate(asked):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        return spread, f"{statistics.median(times):.1f} µs"

    def _asked(self, number: int) -> tuple[float, float]:
        """Return the requests in a second, and Envoy's microseconds of processor time for each."""
        kind = self._kinds[number % len(self._kinds)]
        url = f"http://127.0.0.1:{self._port}{kind.path.format(n=number)}"
        headers = [kind.headers.format(n=number)] if kind.headers else []
        answer = httpx.get(url, headers=[tuple(one.split(": ")) for one in headers])
        assert answer.text == f"r{number}", answer
        options = [part for one in headers for part in ("-H", one)]
        command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s", *options, url]
        before = self._cpu()
        done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        spent = self._cpu() - before
        assert "Non-2xx" not in done, done
        found = re.search(r"(\d+) requests in ([\d.]+)s", done)
        assert found is not None, done
        return int(found[1]) / float(found[2]), spent / int(found[1]) * 1e6

    def _cpu(self) -> float:
        """Return Envoy's processor time in seconds."""
        assert self._envoy.process is not None
        fields = Path(f"/proc/{self._envoy.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def _gateway(kinds: Sequence[Kind], routes: int, port: int) -> Iterator[str]:
    yield f"listeners: {{http: {{port: {port}, address: 127.0.0.1, access_log: false}}}}\nroutes:\n"
    for number in range(routes):
        conditions = kinds[number % len(kinds)].route.format(n=number)
        yield f"  r{number}: {{{conditions}, respond: {{body: r{number}}}}}\n"
