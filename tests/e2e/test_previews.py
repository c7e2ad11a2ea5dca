"""Groups of Envoys are served branches of the gateway's repository, each on its own last good commit, by real Envoys."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.envoy import Envoy
from tests.support.git import GitServer, WorkingTree, collected
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.cli.main import main
from xds_server.proxy.bootstrap import bootstrap
from xds_server.translate.readable import plain

GROUPS = 'groups: {preview: {match: {id: "preview-*"}, ref: "feature/*"$more}}\n'
POLICY = "from filters.ext_authz import deny\ndef check(request):\n    return deny(409, body='$version')\n"


class Shop:
    """A repository with a branch for each name, and Envoys that listen at a port of their own."""

    def __init__(self, root: Path, server: GitServer, stack: ExitStack) -> None:
        self.root, self.server, self._stack = root, server, stack
        self.tree = WorkingTree(root / "tree", root / "served" / "shop.git")
        self.ports = {"main": free_port()}
        self.envoys: dict[str, Envoy] = {}

    def push(
        self,
        branch: str,
        version: str,
        *,
        groups: str = "",
        route: str = "",
        subject: str = "A change",
        **files: str,
    ) -> str:
        """Commit a version on top of the branch main, or on the branch, and push it."""
        port = self.ports.setdefault(branch, free_port())
        text = f"listeners: {{http: {{port: {port}, address: 127.0.0.1}}}}\n{groups}"
        text += f"routes:\n  version: {{path: /version, respond: {{body: '{version}'}}}}\n{route}"
        known = self.tree.git("branch", "--format=%(refname:short)").split()
        if branch in known:
            self.tree.git("checkout", "--quiet", branch)
        elif known:
            self.tree.git("checkout", "--quiet", "-b", branch, "main")
        for name, content in files.items():
            self.tree.write(f"gateway/{name}.py", content)
        made = self.tree.commit(subject, **{"gateway/gateway": text})
        self.tree.push("--force", "origin", f"HEAD:{branch}")
        return made

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[Running]:
        address = f"git+{self.server.url}/shop.git//gateway?ref=main"
        with Running(address, self.root, "--git-interval", "0.2", *arguments, **environment) as running:
            yield running

    def connect(self, running: Running, node: str, *, delta: bool = True) -> None:
        made = bootstrap(xds_address=running.xds_address, node_id=node, delta=delta)
        self.envoys[node] = self._stack.enter_context(Envoy(plain(made), self.root))

    def answer(self, branch: str, path: str = "/version") -> tuple[int, str]:
        found = httpx.get(f"http://127.0.0.1:{self.ports[branch]}{path}", timeout=5)
        return found.status_code, found.text

    def answers(
        self, running: Running, branch: str, version: str, status: int = 200, path: str = "/version"
    ) -> None:
        wait_for(
            lambda: self.answer(branch, path) == (status, version),
            lambda: f"{version} of {branch}; the log:\n{running.log[-3000:]}",
        )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "served").mkdir()
    with collected(), GitServer(tmp_path / "served") as server, ExitStack() as stack:
        yield Shop(tmp_path, server, stack)


def test_each_preview_is_on_its_own_last_good_commit(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.push("main", "main-1", groups=GROUPS.replace("$more", ""))
    first = shop.push("feature/login", "login-1", subject="Log in")
    shop.push("feature/cart", "cart-1")
    with shop.running() as running:
        shop.answers(running, "main", "main-1")
        shop.connect(running, "preview-login")
        shop.connect(running, "preview-cart", delta=False)
        shop.answers(running, "feature/login", "login-1")
        shop.answers(running, "feature/cart", "cart-1")
        assert main(["status", "--admin", running.admin]) == 0
        told = capsys.readouterr().out
        assert "preview of branch feature/login for group preview: served" in told
        assert f"commit {first[:12]} of Ada <ada@example.com>" in told.partition("preview-login ")[2]
        shop.push("feature/login", "login-2")
        shop.answers(running, "feature/login", "login-2")
        shop.push("feature/login", "login-3", route="  bad: {path: /x, upstrem: y}\n")
        running.says("preview of feature/login: the gateway has errors in commit")
        main(["status", "--admin", running.admin])
        told = capsys.readouterr().out
        assert "preview of branch feature/login for group preview: has errors" in told
        assert "did you mean 'upstream'?" in told
        metrics = httpx.get(f"http://{running.admin}/metrics").text
        assert 'xds_previews{state="current"} 1.0' in metrics
        assert 'xds_previews{state="behind"} 1.0' in metrics
        shop.push("main", "main-2", groups=GROUPS.replace("$more", ""))
        shop.answers(running, "main", "main-2")
        assert shop.answer("feature/login") == (200, "login-2")
        assert shop.answer("feature/cart") == (200, "cart-1")
        shop.tree.push("--delete", "origin", "feature/cart")
        running.says("it has no branch and no tag 'refs/heads/feature/cart'")
        assert shop.answer("feature/cart") == (200, "cart-1")


def test_a_node_moves_when_the_groups_change_and_an_unknown_branch_is_nothing(shop: Shop) -> None:
    shop.push("main", "main-1")
    with shop.running("--no-proxy", "--no-prove") as running:
        shop.connect(running, "preview-login")
        shop.answers(running, "main", "main-1")
        shop.push("feature/login", "login-1")
        shop.push("main", "main-2", groups=GROUPS.replace("$more", ""))
        shop.answers(running, "feature/login", "login-1")
        shop.connect(running, "preview-none")
        running.says("it has no branch and no tag 'refs/heads/feature/none'")
        envoys = {one["node"]: one for one in running.status()["envoys"]}
        assert envoys["preview-none"]["commit"] is None
        shop.push("main", "main-3")
        shop.answers(running, "main", "main-3")


def test_a_branch_reads_only_what_the_main_branch_allows(shop: Shop) -> None:
    route = "  more: {path: /more, respond: {body: 'a ${SECRET}'}}\n"
    shop.push("main", "main-1", groups=GROUPS.replace("$more", ""), route=route)
    shop.push("feature/login", "login-1", route=route)
    with shop.running(SECRET="of the environment") as running:
        shop.connect(running, "preview-login")
        shop.answers(running, "main", "a of the environment", path="/more")
        running.says("the environment variable SECRET is not set")
        allowed = GROUPS.replace("$more", ", environment: [SECRET]")
        shop.push("main", "main-2", groups=allowed, route=route)
        shop.answers(running, "feature/login", "a of the environment", path="/more")


def test_branches_have_policies_of_their_own_if_they_may(shop: Shop) -> None:
    route = '  more: {path: /more, respond: {body: x}, policies: {ext_authz: {python: "p.py:check", timeout: 20s}}}\n'
    allowed = GROUPS.replace("$more", ", python: true")
    of = {name: POLICY.replace("$version", name) for name in ("main", "login")}
    shop.push("main", "main-1", groups=GROUPS.replace("$more", ""), route=route, p=of["main"])
    shop.push("feature/login", "login-1", route=route, p=of["login"])
    with shop.running() as running:
        shop.connect(running, "preview-login")
        shop.answers(running, "main", "main", 409, "/more")
        running.says("write python: true in groups.NAME")
        shop.tree.write("gateway/p.txt", of["login"])
        shop.push(
            "feature/login", "login-1", route=route.replace('"p.py:check"', "{file: p.txt, function: check}")
        )
        running.says("a file of Python has a name that ends in .py")
        shop.push("feature/login", "login-1", route=route)
        shop.push("main", "main-2", groups=allowed, route=route)
        shop.answers(running, "feature/login", "login", 409, "/more")
        assert shop.answer("main", "/more") == (409, "main")


def test_the_groups_of_a_version_count_when_all_envoys_have_it(shop: Shop) -> None:
    """Those of a version that a rollout withdraws never count."""
    section = "rollout: {steps: [50%, 100%], pause: 10m}\n"
    shop.push("main", "main-1", groups=section + GROUPS.replace("$more", ""))
    shop.push("feature/login", "login-1")
    with shop.running("--no-proxy", "--no-prove") as running:
        for node in ("one", "preview-login"):
            shop.connect(running, node)
        shop.answers(running, "main", "main-1")
        shop.answers(running, "feature/login", "login-1")

        def group() -> str:
            envoys = {one["node"]: one["group"] for one in running.status()["envoys"]}
            return str(envoys.get("preview-login", "none"))

        shop.push("main", "main-2", groups=section)
        shop.answers(running, "main", "main-2")  # the only Envoy of the first step
        assert group() == "preview/preview/feature/login"
        assert main(["rollout", "abort", "--admin", running.admin]) == 1
        shop.answers(running, "main", "main-1")
        assert group() == "preview/preview/feature/login"
        other = GROUPS.replace("$more", "").replace("feature/*", "other/*")
        shop.push("main", "main-1", groups=section + other)  # Envoys are sent the same
        wait_for(lambda: group() == "preview/preview/other/login", "the group of the new section")
        shop.push("main", "main-3", groups=section)
        shop.answers(running, "main", "main-3")
        assert main(["rollout", "promote", "--admin", running.admin]) == 0
        wait_for(lambda: group() == "", "the group of all")


def test_a_restart_without_the_git_server_serves_each_group_what_it_had(shop: Shop) -> None:
    shop.push("main", "main-1", groups=GROUPS.replace("$more", ""))
    shop.push("feature/login", "login-1")
    state = str(shop.root / "state")
    with shop.running("--no-proxy", "--no-prove", "--state", state) as running:
        shop.connect(running, "main-envoy")
        shop.connect(running, "preview-login")
        shop.answers(running, "feature/login", "login-1")
        shop.answers(running, "main", "main-1")
        wait_for(lambda: b"login-1" in Path(state).read_bytes(), "the state file")
        running.stop(signal.SIGKILL)
        shop.server.down = True
        for envoy in shop.envoys.values():
            envoy.stop()
        running.start()
        shop.connect(running, "preview-login")
        shop.connect(running, "main-envoy")
        shop.answers(running, "feature/login", "login-1")
        shop.answers(running, "main", "main-1")
        shop.server.down = False
        shop.push("feature/login", "login-2")
        shop.answers(running, "feature/login", "login-2")
