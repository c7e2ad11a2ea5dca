"""A branch as a source: what is served is always one whole commit that is fine."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.git import DrippingServer, WorkingTree, collected
from tests.support.wait import eventually
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.control_plane.control_loop import ControlLoop, JudgedVersion
from xds_server.sources.gateway_folder import FolderReader, GatewayFolder
from xds_server.sources.git_address import GitAddress
from xds_server.sources.git_pin import Pins
from xds_server.sources.git_repository import GitCredentials, GitFailed, LocalRepository, RemoteRepository
from xds_server.sources.git_source import GitSource, Pace

PACE = Pace(interval=60.0, spacing=0.0, first=60.0, files=0.01)
"""Nothing happens by itself but for changed files: tests say when to look."""


@asynccontextmanager
async def following(
    path: Path, pace: Pace = PACE, pins: Pins | None = None
) -> AsyncIterator[tuple[ControlLoop, GitSource]]:
    source = GitSource("shop", LocalRepository(str(path), "", "main"), pace, pins=pins)

    async def publish(_compiled: Compiled) -> None:
        """Nobody is connected."""

    def judged(verdict: JudgedVersion) -> None:
        if not verdict.problems:
            source.pins.note_served(verdict.version.id)

    folder = GatewayFolder(source, FolderReader())
    control = ControlLoop(folder, Compiler({}), publish, judged=judged)
    running = asyncio.create_task(control.run())
    try:
        yield control, source
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def gateway(version: int) -> dict[str, str]:
    """Return two files of one version, so that a mixture of two commits shows."""
    return {
        name: f"routes: {{{name}: {{path: /{name}, respond: {{body: '{version}'}}}}}}\n"
        for name in ("a", "b")
    }


def served(control: ControlLoop) -> set[str]:
    """Return the versions that are served."""
    compiled = control.serving.compiled
    routes = compiled.gateway.sections.routes.values() if compiled is not None else ()
    return {repr(one.respond) for one in routes}


async def looked(control: ControlLoop, source: GitSource, tree: WorkingTree) -> None:
    """Have the source look, and wait until what it has seen is what the branch has."""
    source.notify()
    head = tree.git("for-each-ref", "--format=%(objectname)", "refs/heads/main")

    def same() -> bool:
        source.notify()
        state = source.state
        return (state.version.id if state.version is not None else "") == head

    await eventually(same, "the commit to be seen", 20)
    broken = not head or tree.git("log", "-1", "--format=%s", head) != "good"
    await eventually(
        lambda: control.serving.healthy is not broken, lambda: f"{head}; {control.serving.unreadable}", 20
    )


ACTIONS = st.lists(
    st.sampled_from(["good", "broken", "empty", "delete", "back", "look", "restart"]), min_size=3, max_size=9
)


@settings(max_examples=15, deadline=None)
@given(ACTIONS)
def test_what_is_served_is_one_whole_commit_that_is_fine(actions: list[str]) -> None:
    async def scenario(tree: WorkingTree) -> None:
        good: list[str] = []
        tree.commit("good", **gateway(0))
        good.append(tree.git("rev-parse", "HEAD"))
        waiting = list(actions)
        while waiting:
            async with following(tree.path) as (control, source):
                await looked(control, source, tree)
                while waiting and (action := waiting.pop(0)) != "restart":
                    _do(action, tree, good)
                    await looked(control, source, tree)
                    assert len(served(control)) <= 1
                    version = control.serving.version
                    assert version is None or version.id in good
                    if control.serving.healthy:
                        assert version is not None
                        assert version.id == tree.git("rev-parse", "refs/heads/main")

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(WorkingTree(Path(folder, "tree"))))


def _do(action: str, tree: WorkingTree, good: list[str]) -> None:
    tree.git("checkout", "--quiet", "--force", "--detach", good[-1])
    if action == "good":
        good.append(tree.commit("good", **gateway(len(good))))
    elif action == "broken":
        tree.commit("broken", a="routes: {a: {path: 5}}\n")
    elif action == "empty":
        tree.git("rm", "--quiet", "-r", ".")
        tree.commit("empty")
    elif action == "back" and len(good) > 1:
        tree.git("checkout", "--quiet", "--detach", good[0])
    if action == "delete":
        tree.git("update-ref", "-d", "refs/heads/main")
    elif action != "look":
        tree.git("update-ref", "refs/heads/main", "HEAD")


PINNING = st.lists(
    st.sampled_from(["good", "broken", "pin first", "pin last", "unpin", "restart"]), min_size=3, max_size=9
)


@settings(max_examples=10, deadline=None)
@given(PINNING)
def test_a_pinned_commit_is_served_until_told_otherwise(actions: list[str]) -> None:
    async def scenario(root: Path) -> None:
        tree = WorkingTree(root / "tree")
        good = [tree.commit("good", **gateway(0))]
        wanted, newest, pinned = good[0], good[0], False
        waiting = list(actions)
        while waiting:
            async with following(tree.path, pins=Pins.read(root / "pin")) as (control, source):
                await serves(control, wanted)
                while waiting and (action := waiting.pop(0)) != "restart":
                    if action in ("good", "broken"):
                        _do(action, tree, good)
                        newest = good[-1] if action == "good" else ""
                        source.notify()
                    else:
                        pinned = action != "unpin"
                        if pinned:
                            wanted = good[0] if action == "pin first" else good[-1]
                            assert (await source.pin(wanted)).id == wanted
                        else:
                            source.unpin()
                    wanted = (
                        wanted if pinned or not newest else newest
                    )  # a broken commit leaves what is served
                    await serves(control, wanted)
                    assert len(served(control)) == 1
                if not newest:  # nobody remembers the last good commit over a restart, but for the state file
                    _do("good", tree, good)
                    newest = good[-1]
                wanted = wanted if pinned else newest

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


async def serves(control: ControlLoop, commit: str) -> None:
    def same() -> bool:
        version = control.serving.version
        return version is not None and version.id == commit

    await eventually(same, lambda: f"{commit}; {control.serving.version}; {control.serving.unreadable}", 20)


async def test_a_changed_file_of_this_machine_is_a_change(tmp_path: Path) -> None:
    tree, secret = WorkingTree(tmp_path / "tree"), tmp_path / "key.pem"
    secret.write_text("one")
    tree.commit("good", **gateway(1))
    changes = GitSource("shop", LocalRepository(str(tree.path), "", "main"), PACE)
    states = changes.changes()
    first = await anext(states)
    changes.refer_to([secret])
    again = asyncio.ensure_future(anext(states))
    secret.write_text("two words")
    assert await again == first
    await states.aclose()


async def test_a_fetch_without_end_fails_or_makes_room() -> None:
    with collected(), DrippingServer() as server:
        address = GitAddress(f"{server.url}/shop.git")
        pace = Pace(interval=60.0, first=60.0, patience=0.1)
        states = GitSource("shop", RemoteRepository(address, GitCredentials()), pace).changes()
        assert "did not send the commit in time" in (await anext(states)).problems[0]
        await states.aclose()

        source = GitSource(
            "shop", RemoteRepository(address, GitCredentials()), Pace(polite=0.1, patience=0.3)
        )
        states = source.changes()
        polling = asyncio.ensure_future(anext(states))
        await eventually(server.connected.is_set, "a poll")
        with pytest.raises(GitFailed, match="did not send the commit in time"):
            await source.pin("f" * 40)
        assert "did not send the commit in time" in (await polling).problems[0]
        await states.aclose()


async def test_a_source_ends_while_it_fetches_without_end() -> None:
    with collected(), DrippingServer() as server:
        repository = RemoteRepository(GitAddress(f"{server.url}/shop.git"), GitCredentials())
        states = GitSource("shop", repository, Pace()).changes()
        polling = asyncio.ensure_future(anext(states))
        await eventually(server.connected.is_set, "a poll")
        polling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await polling


def test_failures_make_the_pauses_longer_up_to_a_limit() -> None:
    pace = Pace(interval=30, first=1, longest=300, random=lambda: 0.5)
    assert [pace.after(failures) for failures in (0, 1, 2, 3, 9, 99)] == [30, 1, 2, 4, 256, 300]
    assert [pace.between(notices) for notices in (0, 1, 2, 3, 9, 99)] == [0, 1, 2, 4, 30, 30]
    assert Pace(random=lambda: 0.0).after(0) == 27
    assert Pace(random=lambda: 1.0).after(0) == 33


async def test_a_fetch_can_be_ended_before_its_thread_begins() -> None:
    with collected(), DrippingServer() as server:
        repository = RemoteRepository(GitAddress(f"{server.url}/shop.git"), GitCredentials())
        repository.begin()
        repository.end()
        with pytest.raises(GitFailed, match="did not send the commit in time"):
            await asyncio.to_thread(repository.fetch)
        repository.close()
