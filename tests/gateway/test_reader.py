"""Reading a folder: all problems at once, policies of three levels, and nothing read twice that did not change."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.certificates import authority
from tests.support.reading import load, read
from xds_server.gateway.reader import Reader
from xds_server.translate.translator import Translator

LEVELS = """
listeners: {http: {port: 8080}}
policies:
  request_id: true
  response_headers: {set: {level: everywhere}}
policy_sets:
  one: {response_headers: {set: {level: one}}, compression: true}
  two: {response_headers: {set: {level: two}}, request_id: off}
routes:
  plain: {path: /plain, respond: {}}
  one: {path: /one, respond: {}, use: [one]}
  both: {path: /both, respond: {}, use: [one, two]}
  back: {path: /back, respond: {}, use: [two], policies: {request_id: true}}
  own: {path: /own, respond: {}, use: [one], policies: {compression: off, response_headers: {set: {level: own}}}}
  key: {path: /key, respond: {}, use: [one], response_headers: {set: {level: key}}}
  none: {path: /none, respond: {}, policies: {request_id: off, response_headers: off}}
"""


def test_every_problem_of_a_folder_is_reported_at_once_with_its_place() -> None:
    reading = read({
        "a.yaml": "routes:\n  one:\n    path: /x\n    upstrem: users\n",
        "b.yaml": "upstreams:\n  users:\n    endpoints: [127.0.0.1]\n",
    })  # fmt: skip
    assert reading.gateway is None
    assert [str(problem.place) for problem in reading.errors] == ["a.yaml:4:5", "b.yaml:3:17"]


def test_no_problem_shows_what_a_variable_holds() -> None:
    text = (
        "listeners: {http: {port: '${PORT}'}}\n"
        "upstreams: {users: {endpoints: ['${SECRET}']}}\n"
        "routes: {one: {path: /x, upstream: 'a${SECRET}'}}\n"
        "secrets: {a: {certificate: {fiel: '${SECRET}'}}}\n"
    )
    reading = read({"a.yaml": text}, {"SECRET": "hunter2!" * 10, "PORT": "1000000"})
    told = "\n".join(map(str, reading.errors))
    assert "hunter2" not in told
    assert "1000000" not in told
    assert [one.value for one in reading.errors if one.path[-1] == "port"] == ["'${PORT}'"]
    assert "a${SECRET}" in told


@pytest.mark.parametrize(
    ("route", "keys", "level"),
    [
        ("plain", ["request_id", "response_headers"], "everywhere"),
        ("one", ["compression", "request_id", "response_headers"], "one"),
        ("both", ["compression", "response_headers"], "two"),
        ("back", ["request_id", "response_headers"], "two"),
        ("own", ["request_id", "response_headers"], "own"),
        ("key", ["compression", "request_id", "response_headers"], "key"),
        ("none", [], None),
    ],
)
def test_the_nearest_level_wins_key_by_key_and_off_takes_away(
    route: str, keys: list[str], level: str | None
) -> None:
    gateway = read(LEVELS).gateway
    assert gateway is not None
    effective = gateway.policies[route]
    assert list(effective) == keys
    headers = effective.get("response_headers")
    assert (headers.set["level"] if headers else None) == level


def test_a_set_that_others_use_may_stand_in_another_file() -> None:
    reading = read({
        "a.yaml": "listeners: {http: {port: 1}}\nroutes: {one: {respond: {}, use: [shared]}}\n",
        "b.yaml": "policy_sets: {shared: {request_id: true}}\n",
    })  # fmt: skip
    assert reading.gateway is not None
    assert list(reading.gateway.policies["one"]) == ["request_id"]


FILES = {
    "gateway.yaml": b"listeners: {http: {port: 8080}}\npolicies: {request_id: true}\n",
    "users.yaml": b"upstreams: {users: {endpoints: ['127.0.0.1:1']}}\nroutes: {users: {path: /u/*, upstream: users}}\n",
    "orders.yaml": b"upstreams: {orders: {endpoints: ['127.0.0.1:2']}}\nroutes: {orders: {path: /o, upstream: orders}}\n",
}


def test_only_the_file_that_changed_is_decoded_again() -> None:
    reader = Reader()
    before = reader.read(FILES, load, {}).gateway
    changed = {**FILES, "users.yaml": FILES["users.yaml"].replace(b"/u/*", b"/v/*")}
    after = reader.read(changed, load, {}).gateway
    assert before is not None
    assert after is not None
    assert after.sections.routes["users"] is not before.sections.routes["users"]
    assert after.sections.routes["orders"] is before.sections.routes["orders"]
    assert after.policies["orders"] is before.policies["orders"]
    assert after.sections.routes["users"].path == "/v/*"


def test_objects_that_stay_the_same_in_a_changed_file_stay_the_same_objects() -> None:
    text = """
    upstreams: {users: {endpoints: ["127.0.0.1:1"]}}
    routes:
      a: {path: /a, upstream: users, policies: {response_headers: {set: {a: b, c: d}}}}
      b: {path: /b, respond: {body: x}, response_headers: {set: {a: b, c: d}}}
    """
    reader = Reader()
    before = reader.read({"a.yaml": text.encode()}, load, {}).gateway
    other = text.replace("body: x", "body: y")
    after = reader.read({"a.yaml": other.encode()}, load, {}).gateway
    turned = reader.read({"a.yaml": other.replace("{a: b, c: d}", "{c: d, a: b}").encode()}, load, {}).gateway
    assert before is not None
    assert after is not None
    assert turned is not None
    assert after.sections.upstreams is before.sections.upstreams
    assert after.context is before.context
    assert after.ranked["a"] is before.ranked["a"]
    assert after.sections.routes["b"] is not before.sections.routes["b"]
    assert turned.sections.routes["a"] is not after.sections.routes["a"], "another order of keys is a change"
    assert turned.sections.routes["b"] is not after.sections.routes["b"]


def test_a_changed_variable_reads_again_the_files_that_use_it() -> None:
    files = {**FILES, "users.yaml": FILES["users.yaml"].replace(b"127.0.0.1:1", b"127.0.0.1:${PORT}")}
    reader = Reader()
    before = reader.read(files, load, {"PORT": "1", "OTHER": "1"}).gateway
    gateway = reader.read(files, load, {"PORT": "7", "OTHER": "2"}).gateway
    assert gateway is not None
    assert before is not None
    assert gateway.sections.upstreams["users"].endpoints[0].address == "127.0.0.1:7"
    assert gateway.sections.upstreams is not before.sections.upstreams
    assert gateway.sections.routes["orders"] is before.sections.routes["orders"]


def test_a_changed_content_of_a_file_beside_is_seen() -> None:
    text = "secrets: {tls: {certificate: {file: a.crt}, private_key: {file: a.key}}}\n"
    text += "listeners: {https: {port: 8443, tls: {certificates: [tls]}}}\n"
    (one, key), (two, other) = (authority().issue(name) for name in ("one.test", "two.test"))
    reader, found = Reader(), {"a.crt": one, "a.key": key}
    first = reader.read({"a.yaml": text.encode()}, found.__getitem__, {}).gateway
    found |= {"a.crt": two, "a.key": other}
    second = reader.read({"a.yaml": text.encode()}, found.__getitem__, {}).gateway
    assert first is not None
    assert second is not None
    assert set(first.contents.values()) == {one, key}
    assert set(second.contents.values()) == {two, other}


LINES = {
    "listeners": ["  http: {port: 8080}", "  inner: {port: 8081}"],
    "upstreams": ["  users: {endpoints: ['127.0.0.1:1']}", "  users: {endpoints: ['127.0.0.1:3']}", ""],
    "policies": ["  request_id: true", "  response_headers: {set: {a: b}}", ""],
    "policy_sets": ["  some: {compression: true}", "  some: {request_id: off}", ""],
    "routes": [
        "  a: {path: /a, respond: {}}",
        "  a: {path: /a, methods: [GET], respond: {}, use: [some]}",
        "  a: {path: /a, methods: [GET], upstream: users}\n  b: {path: /a, methods: [PUT], respond: {}}",
        "  a: {path: '/{x}', hosts: [a.example], respond: {}}\n  b: {hosts: ['*.example'], upstream: users}",
        "  a: {path: /*, listeners: [inner], respond: {}, response_headers: {remove: [server]}}",
        "",
    ],
}


@st.composite
def folders(draw: st.DrawFn) -> dict[str, bytes]:
    """A gateway with one file for each section, not always without mistakes."""
    return {
        f"{section}.yaml": f"{section}:\n{draw(st.sampled_from(choices))}\n".encode()
        for section, choices in LINES.items()
    }


@given(st.lists(folders(), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_reading_again_and_again_gives_what_reading_once_gives(steps: list[dict[str, bytes]]) -> None:
    reader, translator = Reader(), Translator()
    for files in steps:
        again, once = reader.read(files, load, {}), Reader().read(files, load, {})
        assert again.problems == once.problems
        if again.gateway is not None and once.gateway is not None:
            assert again.gateway.policies == once.gateway.policies
            kept = translator.translate(again.gateway)
            assert kept.versions == Translator().translate(once.gateway).versions


def test_a_variable_in_quotes_is_read_as_what_the_key_asks_for() -> None:
    text = """
    listeners: {http: {port: "${PORT}", http3: "${FALSE}"}}
    upstreams: {users: {endpoints: ["127.0.0.1:${PORT}"], connect_timeout: "${TIME}"}}
    routes:
      users:
        upstream: "${NAME}"
        timeout: "${TIME}"
        methods: ["${METHOD}"]
        request_headers: {set: {x-debug: "${TRUE}", x-port: "${PORT}"}}
    """
    environment = {
        "PORT": "8080",
        "FALSE": "false",
        "TRUE": "true",
        "TIME": "5s",
        "NAME": "users",
        "METHOD": "GET",
    }
    reading = Reader().read({"a.yaml": text.encode()}, load, environment)
    assert reading.gateway is not None, reading.problems
    sections = reading.gateway.sections
    assert (sections.listeners["http"].port, sections.listeners["http"].http3) == (8080, False)
    assert sections.routes["users"].timeout == timedelta(seconds=5)
    headers = sections.routes["users"].request_headers
    assert headers is not None
    assert dict(headers.set) == {"x-debug": "true", "x-port": "8080"}


@pytest.mark.parametrize(
    ("more", "receives"),
    [
        ("", False),
        (", protocol: http1", False),
        (", protocol: http2", True),
        (", protocol: grpc", True),
        (", protocol: auto, tls: {}", True),
        (", envoy: {alt_stat_name: other}", True),
    ],
)
def test_the_policies_know_whether_an_upstream_may_receive_trailers(more: str, receives: bool) -> None:
    text = f"listeners: {{http: {{port: 8080}}}}\nupstreams: {{a: {{endpoints: ['127.0.0.1:1']{more}}}}}\n"
    text += "routes: {a: {path: /, upstream: a}}\n"
    reading = read(text)
    assert reading.gateway is not None, reading.errors
    assert reading.gateway.context.trailers is receives
