"""Requests and responses compared with OpenAPI documents of each version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from filters.validation.documents import DocumentError, parsed
from filters.validation.messages import Described, Head, Rejection
from filters.validation.openapi import OpenApi

USER = """
type: object
required: [id, name]
properties:
  id: {type: integer, readOnly: true}
  password: {type: string, writeOnly: true}
  name: {NULLABLE, maxLength: 5}
  friends: {type: array, items: {$ref: '#/components/schemas/User'}}
"""


def document(version: str = "3.1.0", parameters: str = "[]", **paths: Any) -> dict[str, Any]:
    """A document with users, and one operation with these parameters."""
    nullable = "type: string, nullable: true" if version.startswith("3.0") else "type: [string, 'null']"
    user = yaml.safe_load(USER.replace("NULLABLE", nullable))
    json = {"application/json": {"schema": {"$ref": "#/components/schemas/User"}}}
    return {
        "openapi": version,
        "servers": [{"url": "https://{where}.test/v1", "variables": {"where": {"default": "api"}}}],
        "paths": {
            "/users": {
                "post": {
                    "operationId": "createUser",
                    "requestBody": {"$ref": "#/components/requestBodies/User"},
                    "responses": {"201": {"description": "", "content": json}},
                }
            },
            "/users/me": {"get": {"responses": {"2XX": {"description": ""}}}},
            "/users/{id}": {
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "get": {
                    "responses": {
                        "200": {
                            "description": "",
                            "content": json,
                            "headers": {"x-total": {"required": True, "schema": {"type": "integer"}}},
                        },
                        "default": {"description": "", "content": {"application/problem+json": {}}},
                    }
                },
                "delete": {"responses": {"204": {"description": ""}}},
            },
            "/find": {"get": {"parameters": yaml.safe_load(parameters), "responses": {}}},
            **paths,
        },
        "components": {
            "schemas": {"User": user},
            "requestBodies": {"User": {"required": True, "content": json}},
        },
    }


def described(value: dict[str, Any], **options: Any) -> Described:
    api = OpenApi(value, **options)
    assert list(api.check()) == []
    return Described(api)


GET = Head("GET", "/v1/users/7", "", {}, body=False)
POST = Head("POST", "/v1/users", "", {"content-type": "application/json"}, body=True)


def faults(found: Rejection | None) -> list[tuple[str, str]]:
    """The places of the faults, and what is said."""
    if found is None:
        return []
    return [(f"{one.place}:{one.name}{one.pointer}", one.detail) for one in found.faults] or [
        (found.reason, found.detail)
    ]


VERSIONS = ["3.0.4", "3.1.1", "3.2.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_operation_is_found_by_method_and_path(version: str) -> None:
    api = described(document(version))
    assert api.head(GET) is None
    assert api.head(replace(GET, method="HEAD")) is None
    assert api.head(replace(GET, path="/v1/users/me")) is None
    assert faults(api.head(replace(GET, path="/v1/users/x"))) == [
        ("path:id", 'the value is not of type "integer"')
    ]
    unknown = api.head(replace(GET, path="/v1/nothing"))
    assert unknown is not None
    assert (unknown.status, unknown.reason) == (404, "not_found")
    other = api.head(replace(GET, method="PUT"))
    assert other is not None
    assert (other.status, other.headers) == (405, (("allow", "DELETE, GET"),))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_body_is_compared(version: str) -> None:
    api = described(document(version))
    assert api.head(POST) is None
    assert api.body(POST, b'{"name": null, "password": "x"}') is None
    assert faults(api.body(POST, b'{"name": "abcdef", "friends": [{}]}')) == [
        ("body:/name", "the value is longer than 5 characters"),
        ("body:/friends/0", '"name" is a required property'),
    ]
    assert faults(api.head(replace(POST, body=False))) == [("body:", "a body is required")]
    malformed = api.body(POST, b'{"name": 1, "name": 2}')
    assert malformed is not None
    assert (malformed.status, malformed.reason) == (400, "malformed_body")
    kind = api.head(replace(POST, headers={"content-type": "text/plain"}))
    assert kind is not None
    assert (kind.status, kind.headers) == (415, (("accept", "application/json"),))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_response_is_compared(version: str) -> None:
    api = described(document(version))
    headers = {"content-type": "application/json; charset=utf-8", "x-total": "3"}
    assert api.response(GET, 200, headers, b'{"id": 1, "name": "a"}') is None
    assert faults(api.response(GET, 200, headers, b'{"name": "a"}')) == [
        ("body:", '"id" is a required property')
    ]
    assert faults(api.response(GET, 200, {"content-type": "application/json"}, b"{}")) == [
        ("header:x-total", "it is required")
    ]
    assert faults(api.response(GET, 200, headers | {"x-total": "x"}, b"{}")) == [
        ("header:x-total", 'the value is not of type "integer"')
    ]
    assert api.response(GET, 404, {"content-type": "application/problem+json"}, b"anything") is None
    assert faults(api.response(GET, 404, {"content-type": "text/html"}, b"")) == [
        ("body:", "the media type 'text/html' is not described")
    ]
    assert faults(api.response(replace(GET, method="DELETE"), 200, {}, None)) == [
        ("body:", "the status 200 is not described")
    ]
    assert api.response(replace(GET, method="DELETE"), 204, {}, None) is None


P = "{name: p, in: %s, schema: %s%s}"
NUMBERS = "{type: array, items: {type: integer}}"
POINT = "{type: object, required: [x], properties: {x: {type: integer}, y: {type: integer}}}"
QUERIES = [
    (P % ("query", "{type: integer}", ""), "p=1", "!p=x", "!p=1.0"),
    (P % ("query", "{type: number}", ""), "p=1.5e3", "!p=0x1"),
    (P % ("query", "{type: boolean}", ""), "p=true", "!p=1", "!p=True"),
    (P % ("query", "{type: string, pattern: '^a+$'}", ""), "p=aa", "p=%61", "x=1", "!p=b", "!p=a&p=b"),
    (P % ("query", "{type: string}", ", required: true"), "p=", "!", "!q=1"),
    (P % ("query", "{type: [integer, string], maxLength: 3}", ""), "p=12345", "p=abc", "!p=abcd"),
    (P % ("query", "{type: ['null', integer]}", ""), "p=", "p=null", "p=1", "!p=x"),
    (P % ("query", "{anyOf: [{type: integer}, {enum: [a]}]}", ""), "p=1", "p=a", "!p=b"),
    (P % ("query", NUMBERS, ""), "p=1&p=2", "p=1", "!p=1,2", "!p=1&p=x"),
    (P % ("query", NUMBERS, ", explode: false"), "p=1,2", "p=", "!p=1,x"),
    (P % ("query", NUMBERS, ", style: spaceDelimited, explode: false"), "p=1%202", "p=1+2", "!p=1%20x"),
    (P % ("query", NUMBERS, ", style: pipeDelimited, explode: false"), "p=1|2", "p=1%7C2", "!p=1|x"),
    (P % ("query", POINT, ""), "x=1&y=2&z=3", "z=1", "!y=2", "!x=a"),
    (P % ("query", POINT, ", explode: false"), "p=x,1,y,2", "!p=y,1"),
    (P % ("query", POINT, ", style: deepObject"), "p[x]=1", "p%5Bx%5D=1&p[y]=2", "!p[y]=2", "!p[x]=a"),
    (
        f"{{name: p, in: query, content: {{application/json: {{schema: {POINT}}}}}}}",
        'p={"x":1}',
        "!p={",
        '!p={"y":1}',
    ),
    (
        "{name: p, in: query, schema: {$ref: '#/components/schemas/User/properties/name'}}",
        "p=abc",
        "!p=abcdef",
    ),
]


@pytest.mark.parametrize("case", QUERIES, ids=lambda case: case[0])
def test_parameters_of_the_query(case: tuple[str, ...]) -> None:
    api = described(document(parameters=f"[{case[0]}]"))
    good = [one for one in case[1:] if not one.startswith("!")]
    bad = [one.removeprefix("!") for one in case[1:] if one.startswith("!")]
    head = replace(GET, path="/v1/find")
    for query in good:
        assert faults(api.head(replace(head, query=query))) == [], query
    for query in bad:
        assert faults(api.head(replace(head, query=query))) != [], query


PATHS = [
    ("simple", "{type: integer}", False, "7", "x"),
    ("simple", NUMBERS, False, "1,2", "1,x"),
    ("simple", POINT, False, "x,1,y,2", "y,2"),
    ("simple", POINT, True, "x=1,y=2", "x=a"),
    ("label", "{type: integer}", False, ".7", "7"),
    ("label", NUMBERS, False, ".1,2", ".1,x"),
    ("label", NUMBERS, True, ".1.2", ".1.x"),
    ("label", POINT, True, ".x=1.y=2", ".y=2"),
    ("matrix", "{type: integer}", False, ";p=7", ";q=7"),
    ("matrix", NUMBERS, False, ";p=1,2", ";p=1,x"),
    ("matrix", NUMBERS, True, ";p=1;p=2", ";p=1;p=x"),
    ("matrix", POINT, False, ";p=x,1", ";p=y,1"),
    ("matrix", POINT, True, ";x=1;y=2", ";y=2"),
    ("simple", "{type: string, enum: [a b]}", False, "a%20b", "a"),
]


@pytest.mark.parametrize(("style", "schema", "explode", "good", "bad"), PATHS)
def test_parameters_of_the_path(style: str, schema: str, explode: bool, good: str, bad: str) -> None:
    written = f"{{name: p, in: path, required: true, style: {style}, explode: {explode}, schema: {schema}}}"
    operation = {"parameters": [yaml.safe_load(written)], "responses": {}}
    api = described(document(**{"/at/{p}": {"get": operation}}))
    assert api.head(replace(GET, path=f"/v1/at/{good}")) is None
    assert api.head(replace(GET, path=f"/v1/at/{bad}")) is not None


@pytest.mark.parametrize(
    ("where", "schema", "good", "bad"),
    [
        ("header", NUMBERS, {"p": "1, 2"}, {"p": "1, x"}),
        ("header", POINT, {"p": "x,1"}, {"p": "y,1"}),
        ("header", "{type: integer}", {}, {"p": ""}),
        ("cookie", "{type: integer}", {"cookie": "a=b; p=7"}, {"cookie": "p=x"}),
        ("cookie", "{type: string, maxLength: 3}", {"cookie": 'p="abc"'}, {"cookie": "p=abcd"}),
    ],
)
def test_parameters_in_headers(where: str, schema: str, good: dict[str, str], bad: dict[str, str]) -> None:
    api = described(document(parameters=f"[{P % (where, schema, '')}]"))
    head = replace(GET, path="/v1/find")
    assert api.head(replace(head, headers=good)) is None
    assert api.head(replace(head, headers=bad)) is not None


def test_forms_are_compared_as_objects() -> None:
    schema = yaml.safe_load(
        "{type: object, required: [n], properties: {n: {type: integer}, tags: {type: array, items: {enum: [a]}}}}"
    )
    form = {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}
    api = described(document(**{"/form": {"post": {"requestBody": form, "responses": {}}}}))
    head = replace(POST, path="/v1/form", headers={"content-type": "application/x-www-form-urlencoded"})
    assert api.body(head, b"n=1&tags=a&tags=a&other=x") is None
    assert faults(api.body(head, b"n=x&tags=b")) == [
        ("body:/n", 'the value is not of type "integer"'),
        ("body:/tags/0", 'the value is not one of "a"'),
    ]


def test_openapi_3_2_has_more_methods_and_whole_queries() -> None:
    parameter = {
        "name": "q",
        "in": "querystring",
        "content": {"application/json": {"schema": {"type": "object", "required": ["a"]}}},
    }
    item = {
        "query": {"responses": {}},
        "get": {"parameters": [parameter], "responses": {}},
        "additionalOperations": {"LINK": {"responses": {}}},
    }
    api = described(document("3.2.0", **{"/x": item}))
    head = replace(GET, path="/v1/x")
    assert api.head(replace(head, method="LINK")) is None
    assert api.head(replace(head, method="QUERY")) is None
    assert api.head(replace(head, query="%7B%22a%22:1%7D")) is None
    assert api.head(replace(head, query="%7B%7D")) is not None


def test_the_base_path_may_be_another() -> None:
    api = described(document(), base="/api")
    assert api.head(replace(GET, path="/api/users/1")) is None
    assert api.head(GET) is not None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"openapi": "2.0"}, "no OpenAPI document of version"),
        ({"paths": {"x": {}}}, "does not begin with a slash"),
        ({"paths": {"/x": {"$ref": "other.yaml#/x"}}}, "refers to 'other.yaml#/x'; only references within"),
        ({"paths": {"/x": {"$ref": "#/paths/~1x"}}}, "leads in a circle"),
        ({"paths": {"/x": {"$ref": "#/nothing"}}}, "/nothing does not exist"),
        ({"servers": True}, "/servers is no list"),
        ({"servers": [{"url": "/x", "variables": ["a"]}]}, "/servers/0/variables is no mapping"),
        ({"paths": {"/x": {"additionalOperations": "COPY"}}}, "/additionalOperations is no mapping"),
    ],
)
def test_a_document_that_cannot_be_used(change: dict[str, Any], what: str) -> None:
    with pytest.raises(DocumentError, match=what):
        OpenApi(document() | change)


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        ("{parameters: [{name: p, in: body}]}", "needs 'name', and 'in'"),
        ("{parameters: [{name: p, in: header, style: form}]}", "in 'header' there is no style 'form'"),
        ("{parameters: [{name: p, in: query, schema: {type: objec}}]}", "/paths/~1x/get/parameters/0/schema"),
        ("{parameters: [{name: p, in: query, schema: {$ref: 'http://x.test/y'}}]}", "nothing is fetched"),
        ("{parameters: [{name: p, in: query, schema: {pattern: '(?=a)'}}]}", "lookaround"),
        ("{requestBody: {$ref: '#/components/none'}}", "/components/none does not exist"),
        ("{parameters: {name: p}}", "/parameters is no list"),
        ("{parameters: [{name: p, in: [query]}]}", "needs 'name', and 'in'"),
        (
            "{parameters: [{name: p, in: query, content: {application/json: text}}]}",
            "/application~1json is no mapping",
        ),
        ("{parameters: [{name: p, in: query, schema: {type: {a: b}}}]}", "/schema"),
        ("{responses: [1]}", "/responses is no mapping"),
        ("{responses: {'200': {headers: [x]}}}", "/headers is no mapping"),
        ("{requestBody: {content: [x]}}", "/content is no mapping"),
    ],
)
def test_an_operation_that_cannot_be_used(operation: str, what: str) -> None:
    api = OpenApi(document(**{"/x": {"get": yaml.safe_load(operation)}}))
    (found,) = api.check()
    assert found.startswith("GET /x: ")
    assert what in found


def test_a_path_needs_its_parameters() -> None:
    api = OpenApi(document(**{"/x/{y}": {"get": {"responses": {}}}}))
    assert list(api.check()) == ["GET /x/{y}: the parameter y of the path is not described"]


def test_documents_are_yaml_1_2() -> None:
    value = parsed(b"200: {on: yes, since: 2020-01-01, n: 0x10, f: 1.5, nothing: ~}")
    assert value == {"200": {"on": "yes", "since": "2020-01-01", "n": 16, "f": 1.5, "nothing": None}}
    with pytest.raises(DocumentError, match="line 2: 'a' is written twice"):
        parsed(b"a: 1\na: 2")
    with pytest.raises(DocumentError, match="line 2: "):
        parsed(b"a: b\nc: d: e")


API = described(
    document(
        parameters=f"[{', '.join(case[0].replace('name: p', f'name: p{number}') for number, case in enumerate(QUERIES))}]"
    )
)
PIECES = st.sampled_from(
    [*(f"p{number}" for number in range(len(QUERIES))), *'=&,|[]{}"%;.x1+', "%20", "%", "é"]
)


@given(st.lists(PIECES, max_size=20).map("".join), st.lists(PIECES, max_size=6).map("".join))
def test_no_request_makes_the_comparison_fail(query: str, path: str) -> None:
    for head in (replace(GET, path="/v1/find", query=query), replace(GET, path=f"/v1/users/{path}")):
        found = API.head(head)
        assert found is None or found.status in (400, 404, 405)
