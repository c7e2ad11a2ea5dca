"""Whom a rejection is about, in the words of the real Envoy."""

from __future__ import annotations

from xds_server.discovery.rejection import blamed, essence


def test_the_name_in_the_message_is_to_blame() -> None:
    message = "Error adding/updating listener(s) bad2: Proto constraint validation failed"
    assert blamed(message, ["good", "bad2"]) == {"bad2"}


def test_several_names_may_be_to_blame() -> None:
    assert blamed("Error adding/updating listener(s) a: x\nb: y\n", ["a", "b", "c"]) == {"a", "b"}


def test_a_name_inside_of_a_longer_one_is_not() -> None:
    assert blamed("cluster v-2-beta is wrong", ["v-2", "v-2-beta", "2"]) == {"v-2-beta"}
    assert blamed("cluster upstream/v1/ca is wrong", ["v1", "upstream/v1/ca"]) == {"upstream/v1/ca"}


def test_the_end_of_a_sentence_is_not_part_of_a_name() -> None:
    assert blamed("unknown cluster users_1.", ["users_1", "other"]) == {"users_1"}


def test_the_only_resource_is_to_blame_whatever_the_message_says() -> None:
    assert blamed("no", ["a"]) == {"a"}


def test_nobody_is_to_blame_when_nobody_is_named() -> None:
    assert blamed("no", ["a", "b"]) == frozenset()


def test_words_of_the_message_are_no_names() -> None:
    words = ["Error", "adding", "cluster", "listener", "s", "an", "EDS", "config", "users-2"]
    message = "Error adding/updating cluster(s) users-2: cannot create an EDS cluster without an EDS config"
    assert blamed(message, words) == {"users-2"}
    message = "malformed IP address: not-an-ip. Consider setting resolver_name or setting cluster type"
    assert blamed(message, ["address", "cluster", "type", "setting"]) == frozenset()


def test_a_word_that_is_rejected_itself_is_found() -> None:
    names = ["value", "eds", "error", "cluster", "other"]
    message = "Error adding/updating cluster(s) cluster: no config, eds: no config, value: no config"
    assert blamed(message, names) == {"cluster", "eds", "value"}
    message = "xDS response validation errors: [resource index 1: other: errors validating Cluster]"
    assert blamed(message, names) == {"other"}
    assert blamed("free: no number; plan: no name", ["free", "plan", "name"]) == {"free", "plan"}
    assert blamed("unknown cluster \"value\" and 'other'", names) == {"value", "other"}


def test_names_may_be_anything() -> None:
    names = [".*", "with space", 'quo"te', "x: y, z: w", "a,b", "(", "a|b", "ünï", "fine"]
    message = "Error adding/updating cluster(s) " + ", ".join(f"{name}: no config" for name in names[:-1])
    assert blamed(message, names) == set(names[:-1])


def test_a_printed_resource_is_to_blame_and_nothing_that_it_refers_to() -> None:
    message = (
        'goo.gle/debugproto  \ncluster_name: "value"\nendpoints {\n  named_endpoints {\n    key: "other"\n  }\n}\n'
        ": Proto constraint validation failed (ClusterLoadAssignmentValidationError.Policy: value must be less)"
    )
    assert blamed(message, ["value", "other", "must", "endpoints"]) == {"value"}
    assert blamed(message, ["other", "must", "endpoints"]) == frozenset()


def test_names_beyond_the_end_of_a_message_that_was_cut_are_not_known() -> None:
    names = [f"upstream-{number}" for number in range(9)]
    message = "Error adding/updating cluster(s) upstream-0: no config, upstream-1: no conf...(truncated)"
    assert blamed(message, names) == {"upstream-0", "upstream-1"}


def test_the_essence_of_a_message_is_its_innermost_cause() -> None:
    """The resource that Envoy prints is no part of it."""
    message = (
        'goo.gle/debugproto   \nname: "http"\nroutes {\n  name: ": x"\n}\n: Proto constraint validation failed '
        "(AValidationError.B: embedded message failed validation | caused by BValidationError.C: value does not match "
        'regex pattern "^[^\\x00\\n\\r]*$")'
    )
    assert essence(message) == ('BValidationError.C: value does not match regex pattern "^[^\\x00\\n\\r]*$"')


def test_the_essence_of_a_plain_message_is_itself_in_one_line() -> None:
    assert essence("Provider 'a' has\n invalid jwks (see b)") == "Provider 'a' has invalid jwks (see b)"
