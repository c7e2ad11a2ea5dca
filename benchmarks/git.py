"""A gateway in git beside the same gateway in a folder: the time from a commit to traffic, compilations, and memory."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from benchmarks import gateways
from benchmarks.tables import HEADS, row, show
from tests.support.git import GitServer, WorkingTree
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

ROUTES, FILES = 1_000, 200
CHANGES = 15
BURST = 100
HISTORY = 50_000
_QUIET = 2.5
"""Seconds between two changes, after which a webhook is followed at once again."""
_SECRET = "a secret of webhooks"
_FORMS = ("folder", "git+file", "git+http")


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        forms = {name: stack.enter_context(_serving(name, root / name.replace("+", "-"))) for name in _FORMS}
        times: dict[str, list[float]] = {name: [] for name in forms}
        for number in range(1, CHANGES + 1):
            for name, one in forms.items():
                times[name].append(one.change(number))
            time.sleep(_QUIET)
        medians = {name: statistics.median(some) * 1e3 for name, some in times.items()}
        rows = [row(f"{name}: p50", medians[name], 150, " ms") for name in _FORMS[:2]]
        rows.append(row("git+file: more than the folder", medians["git+file"] - medians["folder"], 50, " ms"))
        over = f"{medians['git+http']:.3g} ms"
        rows.append(("git+http: p50, with a server that starts processes for each request", over, "", ""))
        rows.append(
            row(f"{BURST} commits with a webhook each: compilations", forms["git+file"].burst(), 3, "")
        )
        show(
            f"A commit that changes one of {FILES} files, {ROUTES:,} routes → the first response by it",
            HEADS,
            rows,
        )
    show(f"Memory of `xds run` without Envoy, {HISTORY:,} commits", HEADS, _memory())


class _Gateway:
    """A running gateway, and a way to change its file with the route `/version`."""

    def __init__(
        self,
        running: Running,
        port: int,
        change: Callable[[str], None],
        hook: str = "",
        tree: WorkingTree | None = None,
    ) -> None:
        self._running, self._port, self._change, self._hook, self._tree = running, port, change, hook, tree

    def change(self, number: int) -> float:
        """Change the file, and return the seconds from then (from the webhook, if there is one) to the first response by it."""
        self._change(str(number))
        start = time.perf_counter()
        self._tell()
        with httpx.Client(base_url=f"http://127.0.0.1:{self._port}") as client:
            wait_for(lambda: client.get("/version").text == str(number), "the change")
        return time.perf_counter() - start

    def burst(self) -> float:
        """Have the branch name one commit after the other, and return how often the gateway was compiled."""
        assert self._tree is not None
        ids = [self._tree.commit("Burst", **_file(f"burst {number}")) for number in range(BURST)]
        self._tree.push("origin", "HEAD:refs/heads/next")
        branch = Path(self._tree.git("remote", "get-url", "origin")) / "refs/heads/main"
        before = self._running.status()["gateway"]["changes"]
        for id_ in ids:
            branch.write_text(f"{id_}\n")
            self._tell()
        wait_for(lambda: self._running.status()["gateway"]["commit"]["id"] == ids[-1], "the last one")
        return float(self._running.status()["gateway"]["changes"] - before)

    def _tell(self) -> None:
        if self._hook:
            httpx.post(self._hook, headers={"x-gitlab-token": _SECRET}).raise_for_status()


def _texts(port: int) -> dict[str, str]:
    texts = gateways.gateway(ROUTES, 2 * FILES, FILES + 1)
    texts["gateway.yaml"] = f"listeners:\n  http: {{port: {port}, address: 127.0.0.1}}\n"
    return {**texts, "version.yaml": _version("0")}


def _version(text: str) -> str:
    return f"routes: {{version: {{path: /version, respond: {{body: '{text}'}}}}}}\n"


@contextmanager
def _serving(form: str, root: Path) -> Iterator[_Gateway]:
    port = free_port()
    if form == "folder":
        folder = root / "gateway"
        gateways.write(folder, _texts(port))
        file = folder / "version.yaml"
        with Running(folder, root) as running:
            _ready(port)
            yield _Gateway(running, port, lambda text: _replace(file, _version(text)))
        return
    served = root / "served"
    served.mkdir(parents=True)
    tree = WorkingTree(root / "tree", served / "shop.git")
    gateways.write(tree.path / "gateway", _texts(port))
    tree.commit("First")
    tree.push()
    secret = root / "secret"
    secret.write_text(_SECRET)

    def commit(text: str) -> None:
        tree.commit(text, **_file(text))
        tree.push()

    with GitServer(served) as server:
        base = f"git+file://{served}" if form == "git+file" else f"git+{server.url}"
        flags = ("--git-interval", "3600", "--git-webhook-secret", str(secret))
        with Running(f"{base}/shop.git//gateway?ref=main", root, *flags) as running:
            _ready(port)
            yield _Gateway(running, port, commit, f"http://{running.admin}/git/webhook", tree)


def _file(text: str) -> dict[str, str]:
    return {"gateway/version": _version(text)}


def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def _ready(port: int) -> None:
    wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/version").status_code == 200, "the gateway")


def _memory() -> Iterator[tuple[str, ...]]:
    """Yield what git costs over a folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        many = _many(root / "many.git")
        gateways.write(root / "gateway", {"gateway.yaml": _version(str(HISTORY - 1))})
        with GitServer(root) as server:
            resident = {
                "folder": _resident(str(root / "gateway"), root),
                "git+file": _resident(f"git+file://{many}?ref=main", root),
                "git+http": _resident(f"git+{server.url}/many.git?ref=main", root),
            }
    for form in _FORMS[1:]:
        yield row(f"{form}: more than the folder", resident[form] - resident["folder"], 30, " MiB")


def _resident(source: str, root: Path) -> float:
    """Return the resident memory of the control plane on a source, in MiB."""
    with Running(source, root, "--no-proxy", "--no-prove") as running:
        wait_for(lambda: running.status()["gateway"]["healthy"], "the gateway")
        assert running.process is not None
        lines = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _many(path: Path) -> Path:
    """Make a repository with a long history."""
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    parts = []
    for number in range(HISTORY):
        text = _version(str(number))
        head = (
            f"commit refs/heads/main\ncommitter A <a@example.com> {1_700_000_000 + number} +0000\ndata 1\nc\n"
        )
        parts.append(f"{head}M 100644 inline gateway.yaml\ndata {len(text)}\n{text}\n")
    command = ["git", "-C", str(path), "fast-import", "--quiet"]
    subprocess.run(command, input="".join(parts).encode(), check=True)
    subprocess.run(["git", "-C", str(path), "gc", "--quiet"], check=True)
    return path
