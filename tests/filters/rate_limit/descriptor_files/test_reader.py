"""envoyproxy/ratelimit's YAML: what is found for a descriptor, and every mistake with its place."""

from __future__ import annotations

import pytest

from filters.rate_limit.descriptor_files.reader import Domain, read, read_all

GOOD = """
domain: mongo_cps
descriptors:
  - key: database
    value: users
    rate_limit: {unit: second, requests_per_unit: 500}
  - key: database
    value: "report*"
    rate_limit: {unit: MINUTE, requests_per_unit: 7}
  - key: database
    rate_limit: {unit: day, requests_per_unit: 9}
  - key: team
    value: "blue*"
    share_threshold: true
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 0, name: blue, replaces: [{name: any-team}]}
  - key: path
    value: /a
    detailed_metric: true
    descriptors:
      - key: user
        rate_limit: {unit: month, requests_per_unit: 4294967295}
      - key: user
        value: root
        rate_limit: {unlimited: true}
"""


def domain(text: str = GOOD) -> Domain:
    found, problems = read("f.yaml", text.encode())
    assert not problems
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("entries", "amount", "per", "key"),
    [
        ([("database", "users")], 500, "second", "database=users"),
        ([("database", "reports")], 7, "minute", "database=reports"),
        ([("database", "other")], 9, "day", "database=other"),
        ([("database", "")], 9, "day", "database="),
        ([("team", "blue-1")], 0, "hour", "team=blue*"),
        ([("path", "/a"), ("user", "me")], 4294967295, "month", "path=/a|user=me"),
        ([("database", "a|database=b%")], 9, "day", "database=a%7Cdatabase%3Db%25"),
    ],
)
def test_the_very_value_then_a_wildcard_then_any_value(
    entries: list[tuple[str, str]], amount: int, per: str, key: str
) -> None:
    found = domain().find(entries)
    assert found is not None
    assert found[0].limit is not None
    assert (found[0].limit.amount, found[0].limit.per, found[1]) == (amount, per, key)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [("unknown", "x")],
        [("team", "red")],
        [("path", "/a")],
        [("user", "me")],
        [("database", "users"), ("more", "x")],
        [("path", "/a"), ("user", "me"), ("more", "x")],
    ],
)
def test_a_descriptor_that_is_not_there_as_a_whole_counts_nothing(entries: list[tuple[str, str]]) -> None:
    assert domain().find(entries) is None


def test_unlimited_shadow_and_replaces_are_read() -> None:
    unlimited = domain().find([("path", "/a"), ("user", "root")])
    assert unlimited is not None
    assert unlimited[0].limit is None
    blue = domain().find([("team", "blue")])
    assert blue is not None
    assert blue[0].limit is not None
    assert blue[0].limit.shadow
    assert (blue[0].name, blue[0].replaces) == ("blue", {"any-team"})


BAD = {
    "empty": ("", "f.yaml:1:1: error: the file is empty"),
    "not YAML": ("domain: [", "f.yaml:1:10: error: not YAML: "),
    "a list": ("- a", "f.yaml:1:1: error: not a mapping of domain, descriptors"),
    "no domain": ("descriptors: []", "f.yaml:1:1: error: the domain is missing"),
    "our domain": ("domain: xds", "f.yaml:1:9: error: domain: 'xds' is the domain of the gateways"),
    "unknown key": ("domain: d\ndescriptor: []", "f.yaml:2:1: error: there is no key 'descriptor' here"),
    "key twice": (
        "domain: d\ndomain: e",
        "f.yaml:2:1: error: the key 'domain' is given twice, the first time at f.yaml:1:1",
    ),
    "no list": ("domain: d\ndescriptors: {}", "f.yaml:2:14: error: descriptors: not a list"),
    "a text for a descriptor": (
        "domain: d\ndescriptors:\n- k",
        "f.yaml:3:3: error: descriptors[0]: not a mapping of key, value, rate_limit",
    ),
    "a text for a limit": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: 5/day",
        "f.yaml:4:15: error: descriptors[0].rate_limit: not a mapping of unit, requests_per_unit",
    ),
    "no key": (
        "domain: d\ndescriptors:\n- value: x",
        "f.yaml:3:3: error: descriptors[0]: the key is missing",
    ),
    "list as value": (
        "domain: d\ndescriptors:\n- key: k\n  value: []",
        "f.yaml:4:10: error: descriptors[0].value: not a text",
    ),
    "duplicate": (
        "domain: d\ndescriptors:\n- key: k\n  value: x\n- {key: k, value: x}",
        "f.yaml:5:3: error: descriptors[1]: the descriptor k=x is given twice, the first time at f.yaml:3:3",
    ),
    "unknown unit": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: minuet, requests_per_unit: 1}",
        "f.yaml:4:22: error: descriptors[0].rate_limit.unit: there is no unit 'minuet'; did you mean 'minute'?",
    ),
    "no unit": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {requests_per_unit: 1}",
        "f.yaml:4:15: error: descriptors[0].rate_limit: the unit is missing",
    ),
    "no amount": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day}",
        "f.yaml:4:15: error: descriptors[0].rate_limit: requests_per_unit is missing",
    ),
    "negative": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: -1}",
        "f.yaml:4:46: error: descriptors[0].rate_limit.requests_per_unit: not a whole number from 0 to 4294967295",
    ),
    "beyond 32 bits": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 4294967296}",
        "f.yaml:4:46: error: descriptors[0].rate_limit.requests_per_unit: not a whole number",
    ),
    "octal, or not": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 010}",
        "f.yaml:4:46: error: descriptors[0].rate_limit.requests_per_unit: not a whole number",
    ),
    "a number in quotes": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: '5'}",
        (
            "f.yaml:4:46: error: descriptors[0].rate_limit.requests_per_unit: not a whole number from 0 to 4294967295 "
            "(found '5'); write 5 without quotes"
        ),
    ),
    "a negative number": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: -1}",
        "not a whole number from 0 to 4294967295 (found -1); write a number such as 100",
    ),
    "a fraction": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1.5}",
        "not a whole number from 0 to 4294967295 (found 1.5); write a number such as 100",
    ),
    "no number at all": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: []}",
        "not a whole number from 0 to 4294967295; write a number such as 100",
    ),
    "no value and an empty one": (
        "domain: d\ndescriptors:\n- {key: k, value: ''}\n- key: k",
        "f.yaml:4:3: error: descriptors[1]: the descriptor k is given twice, the first time at f.yaml:3:3",
    ),
    "two documents": (
        "domain: d\n---\ndomain: e",
        "f.yaml:2:1: error: not YAML: but found another document; remove the line ---, or write each domain",
    ),
    "an object": ("- !!python/object/apply:os.system [id]", "f.yaml:1:1: error: not a mapping of domain"),
    "no such alias": ("domain: *x", "f.yaml:1:9: error: not YAML: found undefined alias"),
    "NUL": ("domain: d\0", "f.yaml:1:1: error: not YAML: unacceptable character"),
    "brackets without end": ("[" * 20_000, "f.yaml:1:1: error: not YAML: maximum recursion depth exceeded"),
    "unit of another version": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: year, requests_per_unit: 1}",
        "f.yaml:4:22: error: descriptors[0].rate_limit.unit: there is no unit 'year'",
    ),
    "unlimited with a unit": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unlimited: true, unit: day}",
        "f.yaml:4:39: error: descriptors[0].rate_limit.unit: an unlimited descriptor has none",
    ),
    "no flag": (
        "domain: d\ndescriptors:\n- key: k\n  shadow_mode: maybe",
        "f.yaml:4:16: error: descriptors[0].shadow_mode: not true or false",
    ),
    "replaces itself": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1, name: n, replaces: [{name: n}]}",
        "f.yaml:4:69: error: descriptors[0].rate_limit.replaces[0]: a limit cannot replace itself",
    ),
    "replaces nothing": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1, replaces: [{}]}",
        "f.yaml:4:60: error: descriptors[0].rate_limit.replaces[0]: the name of the limit is missing",
    ),
    "a name that breaks a header": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1, name: 'a\"b'}",
        "f.yaml:4:55: error: descriptors[0].rate_limit.name: the name cannot be part of a response header",
    ),
    "a name of two lines": (
        'domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1, name: "a\\nb"}',
        "f.yaml:4:55: error: descriptors[0].rate_limit.name: the name cannot be part of a response header",
    ),
    "shadow inside a limit": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 1, shadow_mode: true}",
        "f.yaml:4:49: error: descriptors[0].rate_limit: 'shadow_mode' has no effect here; write it next to 'key'",
    ),
    "metadata that is no mapping": (
        "domain: d\ndescriptors:\n- {key: k, metadata: 5}",
        "f.yaml:3:22: error: descriptors[0].metadata: not a mapping",
    ),
    "a text that is merged": (
        "domain: d\n<<: x",
        "f.yaml:2:5: error: not a mapping of domain, descriptors, which << merges (found 'x'); write <<: *ANCHOR",
    ),
    "merged without end": (
        "&a\ndomain: d\n<<: *a",
        "f.yaml:1:1: error: mappings are merged more than 32 deep: an alias contains itself; write out",
    ),
    "a limit that is merged into itself": (
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: &a {unit: day, requests_per_unit: 1, <<: [*a]}",
        "merged more than 32 deep: an alias contains itself",
    ),
    "shared without a wildcard": (
        "domain: d\ndescriptors:\n- key: k\n  value: x\n  share_threshold: true",
        "f.yaml:5:20: error: descriptors[0]: share_threshold is for wildcard values",
    ),
    "endless": (
        "domain: d\ndescriptors: &a\n- key: k\n  descriptors: *a",
        "nested more than 32 deep: an alias contains itself; write out",
    ),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD.keys())
def test_a_mistake_is_told_with_its_place(text: str, said: str) -> None:
    found, problems = read("f.yaml", text.encode())
    assert found is None
    assert len(problems) == 1
    assert said in str(problems[0])


def test_values_are_their_text_and_the_first_wildcard_wins() -> None:
    """YAML takes some of these values for numbers, booleans or times."""
    text = """
domain: 5
descriptors:
  - {key: k, value: 404, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: k, value: yes, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: k, value: "a*", rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: k, value: "ab*", rate_limit: {unit: day, requests_per_unit: 4}}
  - {key: k, value: "*", rate_limit: {unit: day, requests_per_unit: 5}}
"""
    for value, amount in {"404": 1, "yes": 2, "abc": 3, "ab*": 4, "other": 5, "": 5}.items():
        found = domain(text).find([("k", value)])
        assert found is not None
        assert found[0].limit is not None
        assert (found[0].limit.amount, value) == (amount, value)


WILD = """
domain: d
descriptors:
  - {key: path, value: "/api/*/orders", rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: path, value: "/v*/*/items/*", rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: path, value: "*.png", rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: path, value: "aa*aa", rate_limit: {unit: day, requests_per_unit: 4}}
  - {key: "pre*", rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: shared, value: "t*prod", share_threshold: true, descriptors: [{key: r, value: "a*z", share_threshold: true, rate_limit: {unit: day, requests_per_unit: 6}}]}
  - {key: "any*", share_threshold: true, rate_limit: {unit: day, requests_per_unit: 7}}
"""


@pytest.mark.parametrize(
    ("entries", "amount", "key"),
    [
        ([("path", "/api/1/orders")], 1, "path=/api/1/orders"),
        ([("path", "/api/1/2/orders")], 1, "path=/api/1/2/orders"),
        ([("path", "/api//orders")], 1, "path=/api//orders"),
        ([("path", "/api/orders")], None, ""),
        ([("path", "/api/1/orders/5")], None, ""),
        ([("path", "/v1/x/items/")], 2, "path=/v1/x/items/"),
        ([("path", "/v1/items/")], None, ""),
        ([("path", "/a/b.png")], 3, "path=/a/b.png"),
        ([("path", "aaa")], None, ""),
        ([("path", "aaaa")], 4, "path=aaaa"),
        ([("prefix", "x")], 5, "prefix=x"),
        ([("pre", "")], 5, "pre="),
        ([("pr", "x")], None, ""),
        ([("shared", "t1prod"), ("r", "abcz")], 6, "shared=t*prod|r=a*z"),
        ([("shared", "t1test"), ("r", "abcz")], None, ""),
        ([("anyone", "x")], 7, "anyone=any*"),
    ],
)
def test_a_star_stands_for_anything_wherever_it_is(
    entries: list[tuple[str, str]], amount: int | None, key: str
) -> None:
    found = domain(WILD).find(entries)
    if amount is None:
        assert found is None
    else:
        assert found is not None
        assert found[0].limit is not None
        assert (found[0].limit.amount, found[1]) == (amount, key)


def test_merge_keys_quotas_metadata_and_empty_limits_are_read() -> None:
    text = """
domain: d
descriptors:
  - key: a
    rate_limit: &day {unit: day, requests_per_unit: 1}
    metadata: {service: {name: [any, 5, null]}}
  - key: b
    quota_mode: false
    rate_limit: {<<: *day, requests_per_unit: 2}
  - &c
    key: c
    quota_mode: true
    rate_limit: {<<: [{unit: hour}, *day]}
  - <<: *c
    value: x
  - {key: d, rate_limit: , descriptors: }
"""
    read_domain = domain(text)
    found = [read_domain.find([one]) for one in (("a", ""), ("b", ""), ("c", ""), ("c", "x"))]
    limits = [one[0].limit for one in found if one is not None]
    assert [(one.per, one.amount) for one in limits if one] == [
        ("day", 1),
        ("day", 2),
        ("hour", 1),
        ("hour", 1),
    ]
    assert [one[0].quota for one in found if one is not None] == [False, False, True, True]
    assert read_domain.find([("d", "")]) is None


def test_bytes_that_are_no_text_are_told() -> None:
    assert "not UTF-8" in str(read("f.yaml", b"\xff\xfe\xff")[1][0])


def test_a_small_file_that_means_a_billion_is_refused() -> None:
    levels = "\n".join(
        f"x{n}: &x{n} [{', '.join(f'{{key: k{m}, descriptors: *x{n - 1}}}' for m in range(9))}]"
        for n in range(1, 12)
    )
    text = f"domain: d\nx0: &x0 [{{key: k}}]\n{levels}\ndescriptors: *x11"
    assert any("more than 100000 descriptors" in str(one) for one in read("f.yaml", text.encode())[1])


def test_all_mistakes_of_all_files_are_told_and_a_domain_stands_in_one_file() -> None:
    files = {"a.yaml": b"domain: d", "b.yaml": b"domain: d", "c.yaml": b"domain: e\nx: 1\ny: 2"}
    assert [str(one.place) for one in read_all(files)[1]] == ["b.yaml:1:9", "c.yaml:2:1", "c.yaml:3:1"]
    assert "the first time at a.yaml:1:9" in str(read_all(files)[1][0])
