"""The wildcard rules, as values."""

from __future__ import annotations

from xds_server.discovery.subscription import Subscription


def test_no_name_ever_is_everything_for_a_legacy_type() -> None:
    one = Subscription(legacy=True)
    assert one.replace([]) == ({"*"}, set())
    assert one.wants("anything")
    assert one.purely_wildcard


def test_no_name_is_nothing_for_other_types() -> None:
    one = Subscription(legacy=False)
    assert one.replace([]) == (set(), set())
    assert not one.wants("anything")


def test_no_name_after_a_name_is_nothing() -> None:
    one = Subscription(legacy=True)
    one.replace(["a"])
    assert one.replace([]) == (set(), {"a"})
    assert not one.wants("a")


def test_no_name_after_the_explicit_star_is_nothing() -> None:
    one = Subscription(legacy=True)
    one.replace(["*"])
    assert one.replace([]) == (set(), {"*"})


def test_a_name_after_the_old_wildcard_ends_it() -> None:
    one = Subscription(legacy=True)
    one.replace([])
    assert one.replace(["a"]) == ({"a"}, {"*"})
    assert not one.wants("b")


def test_an_old_list_only_adds() -> None:
    one = Subscription(legacy=False)
    one.replace(["a", "b"])
    assert one.extend(["b", "c"]) == {"c"}
    assert one.extend([]) == set()
    assert one.names == {"a", "b", "c"}


def test_an_old_list_leaves_the_explicit_star() -> None:
    one = Subscription(legacy=True)
    one.replace(["*"])
    one.extend(["a"])
    assert one.wildcard


def test_an_empty_first_change_is_everything_for_a_legacy_type() -> None:
    one = Subscription(legacy=True)
    assert one.change([], []) == ({"*"}, set())
    assert one.change([], []) == (set(), set())
    assert one.wildcard


def test_a_name_subscribed_and_unsubscribed_in_one_change_is_subscribed() -> None:
    one = Subscription(legacy=False)
    assert one.change(["a"], ["a"]) == ({"a"}, set())
    assert one.names == {"a"}


def test_the_star_is_unsubscribed_like_a_name() -> None:
    one = Subscription(legacy=True)
    one.change(["*", "a"], [])
    one.change([], ["*"])
    assert (one.wildcard, one.names) == (False, {"a"})
