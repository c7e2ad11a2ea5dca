"""Samples: right for every value, run by a real shell and a real Python, and without a key in a URL."""

from __future__ import annotations

import ast
import itertools
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.api_documents import graphql_sdl, grpc_descriptors, openapi
from filters.api_documents.reference import ApiReference
from tests.support.backend import Backend
from xds_server.catalog.credentials import Credential, credential_of
from xds_server.catalog.sample_requests import SampleRequest, sample_request
from xds_server.catalog.samples import curl, python, samples, typescript
from xds_server.sources.protoc import ProtoCompiler

KEY = Credential(kind="api_key", header="x-api-key")
_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
_ONE_LINE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_REQUESTS = st.builds(
    SampleRequest,
    method=st.sampled_from(["POST", "PUT", "PATCH"]),
    url=st.builds(lambda path: f"https://api.test/{path}", st.text("abc%'&?=2F", max_size=10)),
    headers=st.lists(st.tuples(st.sampled_from(["x-a", "x-b"]), _ONE_LINE), max_size=2).map(tuple),
    content_type=st.just("application/json"),
    body=_VALUES,
)  # fmt: skip


@given(_REQUESTS)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_shell_reads_what_curl_is_to_send(request: SampleRequest) -> None:
    arguments = shlex.split(_joined(curl(request)))
    options = dict(itertools.pairwise(arguments))
    assert arguments[0] == "curl"
    assert request.url in arguments
    sent = [arguments[at + 1] for at, one in enumerate(arguments) if one == "-H"]
    assert sent == [f"{name}: {value}" if value else f"{name};" for name, value in request.headers]
    assert json.loads(options["--data-raw"]) == request.body


def _joined(command: str) -> str:
    """The command in one line, as a shell reads it: a backslash at the end of a line continues it."""
    return command.replace(" \\\n  -", " -")


@given(_REQUESTS)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_python_reads_the_same_values(request: SampleRequest) -> None:
    call = next(one for one in ast.walk(ast.parse(python(request))) if isinstance(one, ast.Call))
    method, url = map(ast.literal_eval, call.args)
    values = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    assert (method, url) == (request.method, request.url)
    assert values.get("headers", {}) == dict(request.headers)
    assert values["json"] == request.body


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(
    "body",
    [None, "a'b\"c`${d}</script>\u2028\n\\", {"날씨 ' ": [1.5, True, {"a": None}]}, "\x7f\x01\U0001f600"],
)
def test_javascript_reads_the_same_values(body: Any) -> None:
    request = SampleRequest(
        method="POST",
        url="https://api.test/a?b='c'",
        headers=(("x-a", "\"'`"),),
        content_type="application/json",
        body=body,
    )
    script = "globalThis.fetch = (url, options) => { console.error(JSON.stringify([url, options])); process.exit(); };\n"
    command = ["node", "--input-type=module", "--eval", script + typescript(request)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    url, options = json.loads(done.stderr)
    assert (url, options["method"], options["headers"]) == (request.url, "POST", {"x-a": "\"'`"})
    assert json.loads(options["body"]) == body


DOCUMENT = """
openapi: 3.1.0
info: {title: a, version: "1"}
paths:
  /orders/{id}/{path}:
    post:
      parameters:
        - {name: id, in: path, required: true, schema: {type: string}, example: "a/b c?"}
        - {name: path, in: path, required: true, schema: {type: array}, style: matrix, explode: true, example: [1, 2]}
        - {name: api_key, in: query, required: true, schema: {type: string}, example: secret}
        - {name: filter, in: query, style: deepObject, schema: {type: object}, example: {a b: "c&d"}}
        - {name: tags, in: query, schema: {type: array}, example: [x, "y z"]}
        - {name: piped, in: query, style: pipeDelimited, schema: {type: array}, example: [x, y]}
        - {name: asked, in: query, required: true, schema: {type: integer, minimum: 3}}
        - {name: unasked, in: query, schema: {type: integer}}
        - {name: x-note, in: header, required: true, schema: {type: string}, example: "it's"}
        - {name: X-API-Key, in: header, required: true, schema: {type: string}}
        - {name: session, in: cookie, required: true, schema: {type: string}, example: abc}
      requestBody: {content: {text/plain: {}, application/json: {schema: {type: object}, example: {name: "O'Neil \\"x\\""}}}}
      responses: {200: {description: x, content: {text/csv: {}}}}
  /form:
    post:
      requestBody: {content: {application/x-www-form-urlencoded: {example: {a b: "c&d=e", list: [1]}}}}
      responses: {}
  /upload:
    post:
      requestBody: {content: {multipart/form-data: {example: {name: "@/etc/passwd", size: 3}}}}
      responses: {}
  /text:
    put:
      requestBody: {content: {text/plain: {example: "@/etc/passwd\\nline"}}}
      responses: {}
  /get: {get: {responses: {}}}
components: {securitySchemes: {key: {type: apiKey, in: query, name: api_key}}}
"""


@pytest.fixture(scope="module")
def reference() -> ApiReference:
    return openapi.read(DOCUMENT.encode())


def test_a_request_has_the_examples_of_the_document(reference: ApiReference) -> None:
    request = sample_request(reference.operations[0], reference, "https://api.test/v1", KEY)
    parts = urlsplit(request.url)
    assert parts.path == "/v1/orders/a%2Fb%20c%3F/;path=1;path=2"
    assert parse_qsl(parts.query) == [
        ("filter[a b]", "c&d"),
        ("tags", "x"),
        ("tags", "y z"),
        ("piped", "x|y"),
        ("asked", "3"),
    ]
    assert request.headers == (
        ("x-api-key", "YOUR_API_KEY"),
        ("x-note", "it's"),
        ("cookie", "session=abc"),
        ("content-type", "application/json"),
        ("accept", "text/csv"),
    )
    assert request.body == {"name": 'O\'Neil "x"'}


def test_no_key_is_in_a_url(reference: ApiReference) -> None:
    for operation in reference.operations:
        for sample in samples(operation, reference, "https://api.test", KEY):
            assert "secret" not in sample.code
            assert sample.code.count("YOUR_API_KEY") == 1
            assert "YOUR_API_KEY" not in sample_request(operation, reference, "https://api.test", KEY).url


def _arrived(backend: Backend, path: str) -> tuple[str, str, str, str | None]:
    (seen,) = [one for one in backend.seen if one["path"].startswith(path)]
    headers = seen["headers"]
    return (
        seen["method"],
        headers.get("content-type", "").partition(";")[0],
        seen["body"],
        headers.get("x-api-key"),
    )


@pytest.mark.parametrize(
    ("path", "method", "content_type", "body"),
    [
        ("/orders/", "POST", "application/json", '{"name": "O\'Neil \\"x\\""}'),
        ("/form", "POST", "application/x-www-form-urlencoded", None),
        ("/upload", "POST", "multipart/form-data", None),
        ("/text", "PUT", "text/plain", "@/etc/passwd\nline"),
        ("/get", "GET", "", ""),
    ],
)
def test_curl_and_python_send_it(
    reference: ApiReference, tmp_path: Path, path: str, method: str, content_type: str, body: str | None
) -> None:
    operation = next(one for one in reference.operations if one.path.startswith(path))
    with Backend() as backend:
        found = {
            one.language: one.code for one in samples(operation, reference, f"http://{backend.address}", KEY)
        }
        script = tmp_path / "sample.py"
        script.write_text(found["python"], "utf-8")
        commands = [[sys.executable, str(script)]]
        if shutil.which("curl"):
            commands.append(["sh", "-c", found["curl"]])
        for command in commands:
            backend.seen.clear()
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            arrived = _arrived(backend, path)
            assert arrived[:2] == (method, content_type)
            assert arrived[3] == "YOUR_API_KEY"
            if content_type == "application/json":
                assert json.loads(arrived[2]) == json.loads(body or "")
            elif body is not None:
                assert arrived[2] == body
            elif path == "/form":
                assert parse_qsl(arrived[2]) == [("a b", "c&d=e"), ("list", "[1]")]
            else:
                assert "@/etc/passwd" in arrived[2]


def test_graphql_is_a_post_with_variables() -> None:
    reference = graphql_sdl.read(b"""
type Query { orders(where: Where!, first: Int = 3): [Order!]! now: Date }
input Where { words: [String!]! }
type Order { id: ID! lines(n: Int!): [Line] line: Line found: Found }
type Line { sku: String order: Order }
union Found = Line | Order
scalar Date
""")
    orders, now = (
        sample_request(one, reference, "https://api.test/graphql", None) for one in reference.operations
    )
    assert (orders.method, orders.url) == ("POST", "https://api.test/graphql")
    assert orders.body == {
        "query": "query Orders($where: Where!) {\n  orders(where: $where) {\n    id\n    line {\n      sku\n    }\n"
        "    found {\n      __typename\n    }\n  }\n}",
        "variables": {"where": {"words": ["text"]}},
    }
    assert now.body == {"query": "query Now {\n  now\n}"}


def test_grpc_is_called_by_grpcurl() -> None:
    proto = b'syntax = "proto3"; package a; message M {string name = 1;} service S { rpc Do(M) returns (M); }'
    reference = grpc_descriptors.read([ProtoCompiler()({"a.proto": proto})])
    (sample,) = samples(reference.operations[0], reference, "http://api.test:8080", KEY)
    assert shlex.split(_joined(sample.code).replace("\\\n ", "")) == [
        *("grpcurl", "-plaintext", "-H", "x-api-key: YOUR_API_KEY", "-d", '{\n  "name": "text"\n}'),
        *("api.test:8080", "a.S/Do"),
    ]


def test_the_credential_is_that_of_the_routes() -> None:
    class Rule:
        def __init__(self, **rule: list[str]) -> None:
            self._rule = {"headers": [], "query": [], "cookies": []} | rule

        def rule(self) -> dict[str, list[str]]:
            return self._rule

    assert credential_of([]) is None
    assert credential_of([{"jwt": object()}, {"api_key": Rule(headers=["x-key"])}]) == Credential(
        kind="api_key", header="x-key"
    )
    cookie = credential_of([{"api_key": Rule(cookies=["key"])}])
    assert cookie is not None
    assert (cookie.cookie, cookie.header) == ("key", "")
    assert credential_of([{"api_key": Rule(query=["key"])}]) is None
    token = credential_of([{"jwt": object()}])
    assert token is not None
    assert token.value == "Bearer YOUR_TOKEN"
