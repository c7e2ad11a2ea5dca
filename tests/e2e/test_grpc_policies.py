"""Policies in Python that decide on the messages of transcoded routes: they get what the service gets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.grpc_shop import DESCRIPTORS, PROTO, Book, BookRequest, Shop
from tests.support.policy_server import Stack, Stacks
from xds_server.errors import InvalidGateway

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1, escaped_slashes: keep}}
upstreams: {shop: {endpoints: ["127.0.0.1:$shop"], protocol: grpc}}
policies: {grpc_web: true}
routes:
  told:
    path: /v1/*
    upstream: shop
    policies:
      ext_authz: &told {python: "p.py:told", body: true, timeout: 20s}
      grpc_transcoding: {protos: [shop.proto], for_policies: true}
  calls:
    path: /shop.v1.Shop/*
    upstream: shop
    policies:
      ext_authz: {python: "p.py:told", body: true, timeout: 20s, headers: [x-none]}
      grpc_transcoding: {protos: [shop.proto], rpc_paths: true, for_policies: true}
  set:
    path: /set/*
    upstream: shop
    policies:
      ext_authz: *told
      grpc_transcoding:
        descriptors: shop.pb
        prefix: /set
        ignore_query: [key]
        colons_in_ids: true
        unknown_fields: ignore
        for_policies: true
        methods: {shop.v1.Shop/Plain: [{get: "/plain/{name}"}, {put: "/plain/{name}", body: book}]}
  other: {path: /other/*, upstream: shop, policies: {ext_authz: *told, grpc_transcoding: {protos: [shop.proto], prefix: /other}}}
"""
POLICY = """
import json
from filters.ext_authz import Decision, Request, allow, deny

async def told(request: Request) -> Decision:
    call = request.grpc
    if call is None:
        return allow(headers={"x-method": "none"})
    if call.message is None:
        return allow(headers={"x-method": call.method})
    if call.message.get("shelf_id") == "secret":
        return deny(403)
    text = json.dumps(call.message, default=lambda one: one.decode("latin1"))
    return allow(headers={"x-method": call.method, "x-message": text})
"""
BOOK = "/v1/shelves/1/books/2"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop().running() as running:
        yield running


@pytest.fixture(scope="module")
def stack(stacks: Stacks, shop: Shop) -> Stack:
    files = {"shop.proto": PROTO.read_text(), "shop.pb": DESCRIPTORS, "p.py": POLICY}
    return stacks.start(YAML, files=files, shop=shop.port)


def told(shop: Shop, kind: Any = BookRequest) -> tuple[str, Any]:
    """The method and the message that the policy got at the last call, as protobuf's JSON."""
    metadata = shop.calls[-1][2]
    found = json_format.ParseDict(json.loads(metadata["x-message"]), kind())
    return metadata["x-method"], json_format.MessageToDict(found)


@pytest.mark.parametrize(
    ("method", "path", "body", "called"),
    [
        ("GET", BOOK, None, "GetBook"),
        ("GET", f"{BOOK}?view=a+b%2B&book.title=x", None, "GetBook"),
        ("GET", f"{BOOK}?book.tags=a&book.tags=b&book.authorName=%c3%a9&book.kind=KIND_PAPER", None, "GetBook"),
        ("GET", f"{BOOK}?book.pages=9007199254740993&book.price=1e3&count=-7&book.kind=1", None, "GetBook"),
        ("GET", "/v1/any/a%2Fb/c%20d+e", None, "GetBook"),
        ("GET", "/v1/any/a%2fb/c%2Bd", None, "GetBook"),
        ("GET", "/v1/any", None, "GetBook"),
        ("GET", "/v1/books/a%2Fb%3Fc%3Ad", None, "GetBook"),
        ("GET", "/v1/shelves/7/first?name=x", None, "GetBook"),
        ("PATCH", BOOK, b'{"title":"x"}', "UpdateBook"),
        ("PATCH", BOOK, b'{"name":"shelves/1/books/2"}', "UpdateBook"),
        ("PATCH", BOOK, b'{"pages":"9007199254740993","labels":{"a_b":"1","aB":"2"},"price":1.5}', "UpdateBook"),
        ("PATCH", f"{BOOK}?view=x", b"", "UpdateBook"),
        ("POST", "/v1/shelves/7/books", b'{"name":"n","book":{"authorName":"\\u00e9","kind":1}}', "CreateBook"),
        ("POST", "/v1/shelves/7/books", b'{"shelfId":"8"}', "CreateBook"),
        ("POST", "/v1/shelves/7/books", b"", "CreateBook"),
        ("POST", f"{BOOK}:check", b" {} ", "CheckBook"),
        ("DELETE", BOOK, None, "DeleteBook"),
        ("PUT", "/v1/import/n", b"\x31\x32", "Import"),
        ("POST", "/shop.v1.Shop/Plain", b'{"name":"p"}', "Plain"),
        ("PUT", "/set/plain/n", b'{"title":"x","no":1}', "Plain"),
        ("GET", "/set/plain/urn:isbn:1?key=k", None, "Plain"),
        ("POST", "/set/v1/shelves/1/books/2:check", b"{}", "CheckBook"),
        ("GET", "/v1/shelves/1/books?count=1", None, "ListBooks"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2])
def test_a_policy_gets_the_message_of_the_service(
    stack: Stack, shop: Shop, method: str, path: str, body: bytes | None, called: str, version: int
) -> None:
    kind = "text/x" if called == "Import" else "application/json"
    with httpx.Client(base_url=stack.url, timeout=30, http1=version == 1, http2=version == 2) as client:
        answer = client.request(method, path, content=body, headers={"content-type": kind} if body else {})
    assert answer.status_code == 200, answer.text
    assert shop.calls[-1][0] == called
    if called == "Import":
        assert json.loads(shop.calls[-1][2]["x-message"])["file"] == {
            "content_type": "text/x",
            "data": "12",
            "extensions": [],
        }
        return
    assert told(shop) == (f"shop.v1.Shop/{called}", shop.calls[-1][1])


def test_fields_that_are_not_set_have_their_default(stack: Stack, shop: Shop) -> None:
    assert stack.get(f"{BOOK}?book.title=t").status_code == 200
    assert json.loads(shop.calls[-1][2]["x-message"]) == {
        "name": "shelves/1/books/2",
        "view": "",
        "book": {
            "name": "",
            "title": "t",
            "pages": 0,
            "price": 0.0,
            "labels": {},
            "tags": [],
            "kind": "KIND_UNSPECIFIED",
            "author_name": "",
        },
        "shelf_id": "",
        "count": 0,
    }
    assert stack.get(BOOK).status_code == 200
    assert json.loads(shop.calls[-1][2]["x-message"])["book"] is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/shelves/secret/first", None),
        ("GET", "/v1/shelves/sec%72et/first", None),
        ("GET", f"{BOOK}?shelf_id=secret", None),
        ("GET", f"{BOOK}?shelfId=secret", None),
        ("GET", f"{BOOK}?sh%65lfId=secre%74", None),
        ("DELETE", f"{BOOK}?shelfId=secret", None),
        ("POST", "/v1/shelves/secret/books", b"{}"),
        ("POST", f"{BOOK}:check", b'{"shelf_id":"secret"}'),
        ("POST", f"{BOOK}:check", b'{"shelfId":"secret"}'),
        ("POST", f"{BOOK}:check?shelfId=secret", b"{}"),
        ("POST", f"{BOOK}:check", b'{"sh\\u0065lfId":"s\\u0065cret"}'),
        ("POST", "/shop.v1.Shop/Plain", b'{"shelfId":"secret"}'),
        ("GET", "/set/plain/n?shelf_id=secret", None),
        ("PUT", "/set/plain/n?shelf_id=secret", b"{}"),
    ],
)
def test_a_policy_denies_a_value_wherever_it_is(
    stack: Stack, shop: Shop, method: str, path: str, body: bytes | None
) -> None:
    shop.calls.clear()
    answer = stack.request(method, path, content=body, headers=JSON if body else {})
    assert (answer.status_code, answer.json()["reason"]) == (403, "ext_authz_denied")
    assert not shop.calls


def frame(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4, "big") + text


def test_calls_of_grpc_clients_are_decided_by_the_same_policy(stack: Stack, shop: Shop) -> None:
    request = BookRequest(name="n", shelf_id="1", book=Book(title="t", pages=2**60))
    with grpc.insecure_channel(f"127.0.0.1:{stack.listener}") as channel:
        call = channel.unary_unary("/shop.v1.Shop/Plain")
        call(request.SerializeToString(), timeout=30)
        assert told(shop) == ("shop.v1.Shop/Plain", shop.calls[-1][1])
        with pytest.raises(grpc.RpcError) as failed:
            call(BookRequest(shelf_id="secret").SerializeToString(), timeout=30)
        assert failed.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as failed:
            call(b"\xff", timeout=30)
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        streams = channel.stream_unary("/shop.v1.Shop/AddBooks")
        assert Book.FromString(streams(iter([Book(name="a").SerializeToString()]), timeout=30)).name == "a"


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text"])
def test_calls_of_grpc_web_too(stack: Stack, shop: Shop, kind: str) -> None:
    def call(request: Any) -> httpx.Response:
        body = frame(request.SerializeToString())
        content = base64.b64encode(body) if kind.endswith("-text") else body
        return stack.request(
            "POST", "/shop.v1.Shop/Plain", content=content, headers={"content-type": kind, "accept": kind}
        )

    assert "grpc-status" not in call(BookRequest(name="n")).headers
    assert told(shop) == ("shop.v1.Shop/Plain", {"name": "n"})
    assert call(BookRequest(shelf_id="secret")).headers["grpc-status"] == "7"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{BOOK}?no=1", None),
        ("GET", f"{BOOK}?count=x", None),
        ("GET", f"{BOOK}?count=99999999999", None),
        ("GET", f"{BOOK}?view=%ff", None),
        ("GET", BOOK, b'{"view":"x"}'),
        ("PATCH", BOOK, b'{"no":1}'),
        ("PATCH", BOOK, b'{"title":1,"title":2}'),
        ("PATCH", BOOK, b"[" * 5_000),
        ("PATCH", BOOK, b"\xff"),
        ("PATCH", BOOK, b'{"author_name":"a","authorName":"b"}'),
    ],
)
def test_what_is_no_message_is_400(
    stack: Stack, shop: Shop, method: str, path: str, body: bytes | None
) -> None:
    shop.calls.clear()
    answer = stack.request(method, path, content=body, headers=JSON if body else {})
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid_message")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"]
    assert answer.json()["detail"]
    assert not shop.calls


def test_other_routes_and_requests_have_no_call(stack: Stack, shop: Shop) -> None:
    assert stack.get(f"/other{BOOK}").status_code == 200
    assert shop.calls[-1][2]["x-method"] == "none"
    assert stack.get("/v1/nothing").status_code == 404


TEXT = st.text(alphabet='ab1 +%/"\\é\x00', max_size=5)
PARAMETER = st.sampled_from(
    ["name", "view", "shelf_id", "shelfId", "count", "book.title", "book.author_name", "book.authorName", "book.pages", "book.tags", "book.kind", "no"]
)  # fmt: skip
VALUE = st.one_of(
    TEXT, st.integers(-3, 3).map(str), st.sampled_from(["KIND_PAPER", "1e2", "1.0", " 1", "0x1", "true", ""])
)
JSON_VALUE = st.one_of(TEXT, st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(), st.sampled_from(["1", "KIND_PAPER", [], {}, ["a"]]))  # fmt: skip
BODY = st.dictionaries(
    st.sampled_from(["name", "view", "shelf_id", "shelfId", "count", "no"]), JSON_VALUE, max_size=3
).flatmap(
    lambda outer: st.dictionaries(
        st.sampled_from(["title", "authorName", "author_name", "pages", "price", "kind", "tags", "labels", "no"]), JSON_VALUE, max_size=3
    ).map(lambda book: {**outer, "book": book})
)  # fmt: skip


@given(
    path=st.sampled_from(
        [("GET", "/v1/books/{}"), ("GET", "/v1/any/{}/x"), ("GET", "/v1/shelves/{}/first"), ("POST", "/v1/shelves/{}/books")]
    ),
    value=TEXT,
    query=st.lists(st.tuples(PARAMETER, VALUE), max_size=3),
    body=BODY,
)  # fmt: skip
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_request_has_another_message_for_the_policy_than_for_the_service(
    stack: Stack, shop: Shop, path: tuple[str, str], value: str, query: list[tuple[str, str]], body: Any
) -> None:
    method, template = path
    url = (
        template.format(quote(value, safe="")) + "?" + "&".join(f"{name}={quote(one)}" for name, one in query)
    )
    shop.calls.clear()
    options = {"content": json.dumps(body).encode(), "headers": JSON} if method == "POST" else {}
    answer = stack.request(method, url, **options)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code == 200:
        assert told(shop) == (f"shop.v1.Shop/{shop.calls[-1][0]}", shop.calls[-1][1])


@pytest.mark.parametrize("body", ["", "body: {partial: true},"])
def test_a_policy_needs_the_whole_body(stacks: Stacks, shop: Shop, body: str) -> None:
    text = f"""
    listeners: {{http: {{port: $port}}}}
    upstreams: {{shop: {{endpoints: ["127.0.0.1:$shop"], protocol: grpc}}}}
    routes:
      told:
        path: /v1/*
        upstream: shop
        policies:
          ext_authz: {{{body} python: "p.py:told"}}
          grpc_transcoding: {{protos: [shop.proto], for_policies: true}}
    """
    with pytest.raises(InvalidGateway, match=r"the policy needs the whole body, .*; write body: true"):
        stacks.start(text, files={"shop.proto": PROTO.read_text(), "p.py": POLICY}, shop=shop.port)


TEMPLATES = (
    "/p/{id=**}",
    "/p/{id}",
    "/p/a",
    "/p/a/{id}",
    "/p/{id}/b",
    "/p/a/b",
    "/p/{id=a/*}/c",
    "/p/a/{id=**}",
    "/p/{id=*/b/**}",
    "/p/{id=*/*}/c",
    "/p/b/{id}/c/d",
    "/p/{id}:run",
    "/p/a:run",
    "/p/{id=**}:run",
    "/p/a/{id=**}:stop",
    "/p/{id=*/b}:stop",
    "/q/{id}",
    "/q/*/c",
    "/q/{id}/**",
)
OVERLAPPING = "\n".join(
    [
        'syntax = "proto3";',
        "package o.v1;",
        'import "google/api/annotations.proto";',
        "message M { string id = 1; }",
        "service S {",
        *(
            f'  rpc M{number}(M) returns (M) {{ option (google.api.http) = {{ get: "{template}" }}; }}'
            for number, template in enumerate(TEMPLATES)
        ),
        "}",
    ]
)


class Named(grpc.GenericRpcHandler):
    """A service that keeps for each call its method, its message, and what the policy has told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, dict[str, Any]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        metadata = dict(details.invocation_metadata)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append((details.method[1:], request, metadata))
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(scope="module")
def named() -> Iterator[tuple[Named, int]]:
    handler = Named()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=(handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield handler, port
        server.stop(None).wait()


@pytest.fixture(scope="module")
def overlapping(stacks: Stacks, named: tuple[Named, int]) -> Stack:
    text = """
    listeners: {http: {port: $port, address: 127.0.0.1, escaped_slashes: keep}}
    upstreams: {named: {endpoints: ["127.0.0.1:$named"], protocol: grpc}}
    routes:
      verbs:
        path: /*
        upstream: named
        policies:
          ext_authz: &told {python: "p.py:told", body: true, timeout: 20s}
          grpc_transcoding: {protos: [o.proto], for_policies: true}
      ids:
        path: /ids/*
        upstream: named
        policies: {ext_authz: *told, grpc_transcoding: {protos: [o.proto], for_policies: true, colons_in_ids: true, prefix: /ids}}
    """
    return stacks.start(text, files={"o.proto": OVERLAPPING, "p.py": POLICY}, named=named[1])


SEGMENT = st.sampled_from(
    [
        "a",
        "b",
        "c",
        "d",
        "x",
        "%61",
        "%2F",
        "a%2Fb",
        "a:run",
        "b:stop",
        "x:run",
        "x:y",
        ":run",
        "run",
        "stop",
        "a%3Arun",
        "",
        ".",
    ]
)


@given(
    prefix=st.sampled_from(["", "/ids"]),
    root=st.sampled_from(["p", "p", "p", "q", "p:run"]),
    segments=st.lists(SEGMENT, max_size=4),
)
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_path_leads_to_another_method_than_the_policy_gets(
    overlapping: Stack, named: tuple[Named, int], prefix: str, root: str, segments: list[str]
) -> None:
    calls = named[0].calls
    calls.clear()
    answer = overlapping.get("/".join((prefix, root, *segments)))
    assert answer.status_code in (200, 301, 307, 400, 404), answer.text
    assert len(calls) == (answer.status_code == 200)
    for method, request, metadata in calls:
        assert metadata["x-method"] == method
        assert frame(request)[7:].decode() == json.loads(metadata["x-message"])["id"]
