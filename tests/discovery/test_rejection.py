"""Whom a rejection is about, in the words of the real Envoy."""

from __future__ import annotations

from xds_server.discovery.rejection import blamed


def test_the_name_in_the_message_is_to_blame() -> None:
    message = "Error adding/updating listener(s) bad2: Proto constraint validation failed"
    assert blamed(message, ["good", "bad2"]) == {"bad2"}


def test_several_names_may_be_to_blame() -> None:
    assert blamed("Error adding/updating listener(s) a: x\nb: y\n", ["a", "b", "c"]) == {"a", "b"}


def test_a_name_inside_of_a_longer_one_is_not() -> None:
    assert blamed("cluster users-v2 is wrong", ["users", "users-v2", "v2"]) == {"users-v2"}
    assert blamed("cluster upstream/users/ca is wrong", ["users", "upstream/users/ca"]) == {
        "upstream/users/ca"
    }


def test_the_end_of_a_sentence_is_not_part_of_a_name() -> None:
    assert blamed("unknown cluster users.", ["users", "other"]) == {"users"}


def test_the_only_resource_is_to_blame_whatever_the_message_says() -> None:
    assert blamed("no", ["a"]) == {"a"}


def test_nobody_is_to_blame_when_nobody_is_named() -> None:
    assert blamed("no", ["a", "b"]) == frozenset()
