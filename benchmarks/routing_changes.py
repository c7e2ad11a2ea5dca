"""Many routes on one host: the time from a changed route to Envoy's acknowledgement, as a list and as a tree."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from benchmarks.tables import show
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.trees import LIST
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.types import ROUTE
from xds_server.serving.events import Acked
from xds_server.sources.folder import Folder
from xds_server.translate.route_trees import DEFAULT, Shape

ROUTES = (1_000, 10_000)
FILES, TURNS = 50, 15
PATHS = ("/s{n}/exact", "/s{n}/prefix/*", "'/s{n}/{{id}}/x'", "'~^/s{n}/[0-9]+$'")
CHANGES = ("another response", "another path", "a route more or less")


def show_changes() -> None:
    """Print the table."""
    rows = []
    for routes in ROUTES:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            forms = {
                name: Changing(routes, shape, Path(folder), stack)
                for name, shape in (("list", LIST), ("tree", DEFAULT))
            }
            for turn in range(TURNS):
                for one in forms.values():
                    for change in CHANGES:
                        one.change(change, turn)
            rows += [
                (f"{routes:,}", name, change, *one.medians(change))
                for change in CHANGES
                for name, one in forms.items()
            ]
    show(
        "One changed route of one host: milliseconds, medians",
        (
            "routes",
            "form",
            "change",
            "compiled",
            "pushed and acknowledged",
            "both",
            "processor time of Envoy",
        ),
        rows,
    )


class Changing:
    """A gateway whose routes change, and an Envoy that gets it from a real xDS server."""

    def __init__(self, routes: int, shape: Shape, folder: Path, stack: ExitStack) -> None:
        self._compiler = Compiler({}, shape=shape)
        self._bodies = {number: f"r{number}" for number in range(routes)}
        self._paths = {number: PATHS[number % len(PATHS)].format(n=number) for number in range(routes)}
        self._times: dict[str, list[tuple[float, float, float]]] = {change: [] for change in CHANGES}
        listener = f"listeners: {{http: {{port: {free_port()}, address: 127.0.0.1, access_log: false}}}}\n"
        self._texts = {"gateway.yaml": listener.encode()}
        for file in range(FILES):
            self._write(file)
        self._control = stack.enter_context(XdsThread())
        self._envoy = Envoy(bootstrap(self._control.port), folder, log_level="error")
        self._control.publish(self._compiled().snapshot)
        stack.enter_context(self._envoy).ready()

    def change(self, change: str, turn: int) -> None:
        """Make a change, and measure it."""
        number = (turn * 397 + 5) % len(self._bodies)
        if change == "another response":
            self._bodies[number] += "x"
        elif change == "another path":
            self._paths[number] = f"/changed{number}/{turn}"
        else:
            new = 1_000_000 + turn // 2 * FILES
            if turn % 2:
                del self._paths[new], self._bodies[new]
            else:
                self._paths[new], self._bodies[new] = f"/new{new}", "new"
            number = new
        self._write(number % FILES)
        self._times[change].append(self._publish())

    def medians(self, change: str) -> tuple[str, ...]:
        """Return the median milliseconds of compiling, of the rest, of both, and of Envoy's processor time."""
        compiled, pushed, used = zip(*self._times[change], strict=True)
        both = [first + second for first, second, _ in self._times[change]]
        return tuple(f"{statistics.median(some) * 1e3:.1f}" for some in (compiled, pushed, both, used))

    def _write(self, file: int) -> None:
        numbers = [number for number in self._paths if number % FILES == file]
        lines = [
            f"  r{n}: {{path: {self._paths[n]}, respond: {{body: {self._bodies[n]}}}}}\n" for n in numbers
        ]
        self._texts[f"{file}.yaml"] = "".join(["routes:\n", *lines]).encode()

    def _compiled(self) -> Compiled:
        return self._compiler.compile(Folder(Path(), MappingProxyType(dict(self._texts))))

    def _publish(self) -> tuple[float, float, float]:
        """Return the seconds to compile, those from then to Envoy's acknowledgement, and its processor time."""
        start = time.perf_counter()
        snapshot = self._compiled().snapshot
        compiled = time.perf_counter() - start
        version = snapshot[ROUTE]["http"].version
        begun, used = len(self._control.events), self._used()
        self._control.publish(snapshot)

        def acknowledged() -> float | None:
            events = [one for one in self._control.events[begun:] if isinstance(one, Acked)]
            return next((one.convergence for one in events if version in one.versions.values()), None)

        pushed = wait_for(acknowledged, "Envoy's acknowledgement")
        return compiled, pushed, self._used() - used

    def _used(self) -> float:
        """Return the seconds of processor time of all threads of Envoy."""
        assert self._envoy.process is not None
        tasks = Path(f"/proc/{self._envoy.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
