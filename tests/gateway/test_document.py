"""One YAML file: what its scalars mean, what it reads from the environment, and where things stand in it."""

from __future__ import annotations

from typing import Any

import pytest

from filters.language import Place
from xds_server.gateway.document import DEEPEST, Document, Positions, parse


def _parse(text: str | bytes, **environment: str) -> Document:
    return parse("a.yaml", text if isinstance(text, bytes) else text.encode(), environment)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1), ("-7", -7), ("+5", 5), ("0x1F", 31), ("0o17", 15), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("off", "off"), ("on", "on"), ("yes", "yes"), ("no", "no"), ("10s", "10s"), ("1_000", "1_000"),
        ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("1.2.3.4", "1.2.3.4"), ("'1'", "1"), ('"true"', "true"),
        ("!!str 1", "1"), ("[]", []), ("{}", {}), ("-", [None]), ("9" * 50, "9" * 50),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(written: str, value: Any) -> None:
    document = _parse(f"a: {written}" if written != "-" else "a:\n  -")
    assert document.problems == []
    assert document.values == {"a": value}
    assert isinstance(document.values["a"], bool) is isinstance(value, bool)


@pytest.mark.parametrize("written", ["007", "1.10", "1e3", "0x1F", "+5"])
def test_a_number_read_as_text_is_what_was_written(written: str) -> None:
    assert str(_parse(f"a: {written}").values["a"]) == written


def test_anchors_and_merges_are_followed_and_own_keys_win() -> None:
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: {<<: [*b, {z: 4}]}\n"
    values = _parse(text).values
    assert values["one"] == {"x": 1, "y": 3}
    assert values["two"] == {"x": 1, "y": 2, "z": 4}


def test_variables_are_read_and_remembered() -> None:
    document = _parse("a: ${HOST}:${PORT:-80}\nb: '$${HOST}'\nc: ${N}\nd: ${E:-}\n", HOST="h", N="5")
    assert document.values == {"a": "h:80", "b": "${HOST}", "c": "5", "d": None}
    assert document.values["c"].plain == 5
    assert document.variables == {"HOST": "h", "PORT": None, "N": "5", "E": None}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("x${A:-${B:-z}}y", "xzy"),
        ("x${A:-${B:-${C}}}y", "xcy"),
        ("${A:-a${C}b${B:-d}}", "acbd"),
        ("x${EMPTY:-d}", "xd"),
        ("x${EMPTY}", "x"),
        ("x${EMPTY:-${EMPTY:-${C}}}", "xc"),
        ("x$${A}${C}", "x${A}c"),
        ("x${C:-{a}}", "xc}"),
        ("x${A:-$${C}}", "x${C}"),
    ],
)
def test_a_default_may_hold_variables_and_counts_for_an_empty_one_as_in_shells(
    written: str, value: str
) -> None:
    document = _parse(f"a: '{written}'", C="c", EMPTY="")
    assert (document.values["a"], document.problems) == (value, [])


@pytest.mark.parametrize("written", ["${A:-${B}", "${A:?no}", "${A", "${1}", "${}", "${A:-${B!}}"])
def test_what_is_no_variable_is_told(written: str) -> None:
    (problem,) = _parse(f"a: 'x {written}'").problems
    assert problem.message == "not a variable"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\n\u00a0b: 2\n", "a.yaml:2:1", "a non-breaking space (U+00A0) is not allowed here"),
        ("a: x\u200b\n", "a.yaml:1:4", "a zero-width space (U+200B) is not allowed here"),
        ("a: [b, c\u202f]\n", "a.yaml:1:8", "a narrow non-breaking space (U+202F) is not allowed here"),
    ],
)
def test_a_character_that_looks_like_nothing_is_told_where_no_quotes_are(
    text: str, place: str, message: str
) -> None:
    (problem,) = _parse(text).problems
    assert (str(problem.place), problem.message) == (place, message)


def test_in_quotes_such_a_character_is_meant() -> None:
    document = _parse('a: "x\u00a0y"\nb: |\n  x\u00a0y\n')
    assert document.problems == []
    assert document.values["a"] == "x\u00a0y"


def test_a_variable_without_braces_is_text_with_a_warning() -> None:
    document = _parse("a: $PORT\nb: http://$HOST:80/x\nc: ~^/$V\nd: costs $US or so\ne: a$\nf: ${X}\n", X="1")
    assert document.values["a"] == "$PORT"
    assert [(one.severity, one.message, one.remedy) for one in document.problems] == [
        ("warning", "'$PORT' is plain text here", "write ${PORT} for the environment variable"),
        ("warning", "'$HOST' is plain text here", "write ${HOST} for the environment variable"),
    ]


def test_a_variable_that_is_not_set_is_a_problem_at_its_place() -> None:
    (problem,) = _parse("a:\n  b: x${NOPE}\n").problems
    assert problem.place == Place("a.yaml", 2, 6)
    assert problem.message == "the environment variable NOPE is not set"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (b"a: 1\nb: \xff\n", "a.yaml:2:4", "the file is not UTF-8"),
        ("a:\n\tb: 1\n", "a.yaml:2:1", "a tab cannot indent"),
        ("a: [1\nb: 2\n", "a.yaml:2:2", "not YAML: did not find expected ',' or ']'"),
        ("a:\n  hosts: [*.example.com]\n", "a.yaml:2:12", "a * without quotes refers to an anchor"),
        ("a: *.example.com\n", "a.yaml:1:5", "a * without quotes refers to an anchor"),
        ("a:\n- */*\n", "a.yaml:2:4", "a * without quotes refers to an anchor"),
        ("a: {port: ${PORT}}\n", "a.yaml:1:12", "a variable between { } or [ ] needs quotes"),
        ("- a\n", "a.yaml:1:1", "a gateway file is a mapping of sections"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1", "a file must have only one document"),
        ("? [a]\n: 1\n", "a.yaml:1:3", "a key must be text"),
        ("a: !!python/object:os.system x\n", "a.yaml:1:4", "unknown tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: !custom {}\n", "a.yaml:1:4", "unknown tag '!custom'"),
        ("a: *nowhere\n", "a.yaml:1:4", "not YAML: found undefined alias"),
        ("a: &x [*x]\n", "a.yaml:1:4", "nested too deeply, or an alias within itself"),
        ("a: {<<: 1}\n", "a.yaml:1:9", "<< merges mappings"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_where_and_why(text: str | bytes, place: str, message: str) -> None:
    document = _parse(text)
    assert [(str(one.place), one.message) for one in document.problems] == [(place, message)]
    assert not document.whole


@pytest.mark.parametrize("levels", [DEEPEST + 2, 100_000])
def test_a_file_nested_too_deeply_is_refused(levels: int) -> None:
    (problem,) = _parse("a: " + "[" * levels + "]" * levels).problems
    assert "nested too deeply" in problem.message


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (problem,) = _parse("\n".join(lines)).problems
    assert "alias" in problem.message


def test_a_key_given_twice_shows_both_places() -> None:
    (problem,) = _parse("a:\n  x: 1\n  x: 2\n").problems
    assert (str(problem.place), str(problem.also)) == ("a.yaml:3:3", "a.yaml:2:3")


def test_positions_are_those_of_the_value_or_of_the_key() -> None:
    positions = Positions("a.yaml", b"routes:\n  one:\n    methods: [GET, PUT]\n")
    assert str(positions.of(("routes", "one", "methods", 1))) == "a.yaml:3:20"
    assert str(positions.of(("routes", "one"), at_key=True)) == "a.yaml:2:3"
    assert str(positions.of(("routes", "one", "missing"))) == "a.yaml:2:3"
    assert str(Positions("a.yaml", b"\t").of(("routes",))) == "a.yaml:1:1"
