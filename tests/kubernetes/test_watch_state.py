"""The copy of a collection ends in the API server's state, whatever happens to its streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from xds_server.kubernetes.resources import Key
from xds_server.kubernetes.watch_state import (
    Change,
    Found,
    PagedList,
    StreamingList,
    WatchFrom,
    WatchState,
)

Changes = list[Change[int]]
A, B = Key("shop", "a"), Key("shop", "b")


def _state(**items: int) -> WatchState[int]:
    state: WatchState[int] = WatchState()
    for name, value in items.items():
        state.put(Found(Key("shop", name), f"uid-{name}", value), "1")
    state.bookmark("10", initial_end=True)
    return state


def test_it_lists_and_then_watches_from_the_version_of_the_list() -> None:
    state: WatchState[int] = WatchState(streaming=False)
    assert state.request == PagedList()
    assert state.page([Found(A, "1", 1)], "7", last=False) == [Change(A, None, 1)]
    assert not state.synced
    assert state.page([Found(B, "2", 2)], "7", last=True) == [Change(B, None, 2)]
    assert state.synced
    assert state.request == WatchFrom("7")


def test_a_streaming_list_ends_with_its_bookmark() -> None:
    state: WatchState[int] = WatchState()
    assert state.request == StreamingList()
    state.put(Found(A, "1", 1), "3")
    assert state.bookmark("5", initial_end=False) == []
    assert (state.request, state.synced) == (StreamingList(), False)
    state.bookmark("6", initial_end=True)
    assert (state.request, state.synced) == (WatchFrom("6"), True)


def test_a_server_without_streaming_lists_is_asked_for_pages() -> None:
    state: WatchState[int] = WatchState()
    state.rejected()
    assert state.request == PagedList()
    state.page([], "4", last=True)
    state.gone()
    assert state.request == PagedList()


def test_a_page_that_is_too_old_is_followed_by_one_list_as_a_whole() -> None:
    state: WatchState[int] = WatchState(streaming=False)
    state.page([Found(A, "1", 1)], "4", last=False)
    state.gone()
    assert state.request == PagedList(whole=True)
    state.page([Found(A, "1", 1)], "9", last=True)
    state.gone()
    assert state.request == PagedList()


def test_a_version_that_is_no_version_is_listed_again() -> None:
    state = _state(a=1)
    state.rejected()
    assert state.request == StreamingList()


def test_a_cut_watch_resumes_after_the_last_event_or_bookmark() -> None:
    state = _state(a=1)
    state.put(Found(A, "uid-a", 2), "11")
    state.interrupted()
    assert state.request == WatchFrom("11")
    state.bookmark("15", initial_end=False)
    state.interrupted()
    assert state.request == WatchFrom("15")


def test_only_the_difference_is_told_after_a_new_list() -> None:
    state = _state(a=1, b=2)
    state.gone()
    assert state.put(Found(A, "uid-a", 1), "20") == []
    assert state.bookmark("21", initial_end=True) == [Change(B, 2, None)]


def test_a_list_that_breaks_off_deletes_nothing() -> None:
    state = _state(a=1, b=2)
    state.gone()
    state.put(Found(A, "uid-a", 1), "20")
    state.interrupted()
    assert state.put(Found(B, "uid-b", 2), "22") == []
    assert state.bookmark("23", initial_end=True) == [Change(A, 1, None)]


def test_an_object_deleted_during_a_streaming_list_is_gone_after_it() -> None:
    state = _state(a=1)
    state.gone()
    state.put(Found(A, "uid-a", 1), "20")
    assert state.deleted(A, "21") == [Change(A, 1, None)]
    assert state.bookmark("22", initial_end=True) == []
    assert state.items == {}


def test_another_object_with_the_same_name_is_told_as_deleted_and_added() -> None:
    state = _state(a=1)
    state.gone()
    assert state.put(Found(A, "another", 1), "20") == [Change(A, 1, None), Change(A, None, 1)]


def test_a_change_of_what_is_not_kept_is_not_told_and_the_kept_object_stays_the_same() -> None:
    state: WatchState[tuple[int, ...]] = WatchState()
    first, second = (1, 2), tuple(range(1, 3))
    state.put(Found(A, "1", first), "1")
    assert state.put(Found(A, "1", second), "2") == []
    assert state.items[A] is first


def test_an_object_that_is_not_kept_any_more_is_told_as_deleted() -> None:
    state = _state(a=1)
    assert state.put(Found(A, "uid-a", None), "11") == [Change(A, 1, None)]
    assert state.put(Found(A, "uid-a", None), "12") == []
    assert state.deleted(A, "13") == []


def test_a_kind_that_the_server_does_not_have_is_empty_and_synced() -> None:
    state: WatchState[int] = WatchState()
    assert state.absent() == []
    assert (state.synced, state.request) == (True, StreamingList())
    state = _state(a=1)
    assert state.absent() == [Change(A, 1, None)]


@dataclass
class Server:
    """Objects with their history, as etcd has it."""

    version: int = 0
    oldest: int = 0
    objects: dict[Key, Found[int]] = field(default_factory=dict)
    events: list[tuple[int, str, Found[int]]] = field(default_factory=list)

    def write(self, type_: str, found: Found[int]) -> None:
        self.version += 1
        self.events.append((self.version, type_, found))
        if type_ == "DELETED":
            del self.objects[found.key]
        else:
            self.objects[found.key] = found

    def after(self, version: int) -> tuple[int, str, Found[int]] | None:
        return next((event for event in self.events if event[0] > version), None)


class Following(RuleBasedStateMachine):
    """A server that changes, forgets and cuts, and a copy that follows it. Negative values are not kept."""

    @initialize(streaming=st.booleans(), supported=st.booleans())
    def begin(self, streaming: bool, supported: bool) -> None:
        self.server, self.told = Server(), dict[Key, int]()
        self.state: WatchState[int] = WatchState(streaming=streaming)
        self.supported = supported
        self.connection: Iterator[Callable[[], Changes]] | None = None

    names = st.sampled_from([Key("shop", name) for name in "abc"])

    @rule(key=names, value=st.integers(-1, 2))
    def write(self, key: Key, value: int) -> None:
        before = self.server.objects.get(key)
        uid = before.uid if before is not None else f"uid-{self.server.version}"
        self.server.write("MODIFIED" if before else "ADDED", Found(key, uid, value if value >= 0 else None))

    @rule(key=names)
    def delete(self, key: Key) -> None:
        if key in self.server.objects:
            self.server.write("DELETED", self.server.objects[key])

    @rule()
    def compact(self) -> None:
        self.server.oldest = self.server.version

    @rule(forget=st.booleans())
    def cut(self, forget: bool) -> None:
        """Cut the stream. The server may forget what the copy would resume from."""
        self.connection = None
        self.state.interrupted()
        if forget:
            self.server.version += 1
            self.server.oldest = self.server.version

    @rule(times=st.integers(1, 4), key=names)
    def break_a_list(self, times: int, key: Key) -> None:
        """Have a list break off, and delete an object that may have been in it."""
        self.cut(forget=True)
        self.deliver(1 + times)
        self.cut(forget=False)
        self.delete(key)

    @rule(times=st.integers(1, 4))
    def deliver(self, times: int) -> None:
        for _ in range(times):
            self.step()

    def step(self) -> bool:
        """Deliver the next thing that the server sends. Returns false if there is nothing, in a watch."""
        if self.connection is None:
            self.connection = self._connect()
        step = next(self.connection, None)
        if step is None:
            self.connection = None
            return True
        changes = step()
        for change in changes:
            assert self.told.get(change.key) == change.before
            assert change.before != change.after
            if change.after is None:
                del self.told[change.key]
            else:
                self.told[change.key] = change.after
        if step is _nothing:
            kept = {key: one.kept for key, one in self.server.objects.items() if one.kept is not None}
            assert self.told == kept, "the watch is up to date, and the copy is not"
            assert self.state.synced
        return step is not _nothing

    def _connect(self) -> Iterator[Callable[[], Changes]]:
        match self.state.request:
            case StreamingList():
                return self._stream() if self.supported else iter([_calling(self.state.rejected)])
            case PagedList(whole):
                return self._pages(100 if whole else 2)
            case WatchFrom(version):
                return self._watch(int(version))

    def _stream(self) -> Iterator[Callable[[], Changes]]:
        version = self.server.version
        for found in list(self.server.objects.values()):
            yield lambda found=found: self.state.put(found, str(version))
        yield lambda: self.state.bookmark(str(version), initial_end=True)
        yield from self._watch(version)

    def _pages(self, size: int) -> Iterator[Callable[[], Changes]]:
        version, found = self.server.version, sorted(self.server.objects.values(), key=lambda one: one.key)
        for start in range(0, max(len(found), 1), size):
            if start and version < self.server.oldest:
                yield _calling(self.state.gone)
                return
            last = start + size >= len(found)
            yield lambda start=start, last=last: self.state.page(
                found[start : start + size], str(version), last=last
            )

    def _watch(self, version: int) -> Iterator[Callable[[], Changes]]:
        while True:
            if version < self.server.oldest:
                yield _calling(self.state.gone)
                return
            event = self.server.after(version)
            if event is None:
                yield _nothing
                continue
            version, type_, found = event
            if type_ == "DELETED":
                yield lambda found=found, version=version: self.state.deleted(found.key, str(version))
            else:
                yield lambda found=found, version=version: self.state.put(found, str(version))

    @invariant()
    def what_was_told_is_what_is_held(self) -> None:
        assert dict(self.state.items) == self.told

    def teardown(self) -> None:
        while self.step():
            pass


def _nothing() -> Changes:
    return []


def _calling(report: Callable[[], None]) -> Callable[[], Changes]:
    def step() -> Changes:
        report()
        return []

    return step


Following.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestFollowing = Following.TestCase
