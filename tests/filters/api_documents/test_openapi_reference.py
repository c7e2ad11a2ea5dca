"""OpenAPI documents as references: what pages show of each version, and what is wrong with a document."""

from __future__ import annotations

import gc
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.api_documents import openapi
from filters.api_documents.faults import LARGEST, DocumentFaults, Fault
from filters.api_documents.reference import ABSENT, ApiReference, Operation
from filters.validation.documents import parsed

DOCUMENT = """
openapi: 3.1.1
info: {title: Orders, version: 2.10, summary: All orders, description: "**Orders**"}
servers: [{url: "https://{host}/v2/", variables: {host: {default: api.example.com}}, description: here}]
tags: [{name: orders, description: What was ordered}]
security: [{key: []}, {}]
paths:
  /orders:
    parameters: [{$ref: "#/components/parameters/page"}]
    get:
      operationId: list orders
      summary: List
      tags: [orders]
      parameters:
        - {name: state, in: query, style: pipeDelimited, schema: {type: array, items: {type: string}}, example: [open]}
        - {name: Authorization, in: header, schema: {type: string}}
        - {name: filter, in: query, content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}
      responses:
        200:
          description: Some
          headers: {x-total: {schema: {type: integer}}, content-type: {schema: {type: string}}}
          content:
            application/json:
              schema: {type: array, items: {$ref: "#/components/schemas/Order"}}
              examples: {one: {$ref: "#/components/examples/one"}, far: {externalValue: "https://example.com/x"}}
        4XX: {$ref: "#/components/responses/problem"}
    post:
      summary: Place
      deprecated: true
      security: [{login: [write]}]
      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Order"}, example: {id: a}}}}
      responses: {201: {description: Placed}}
  /orders/{id}:
    get:
      parameters: [{name: id, in: path, schema: {type: string, format: uuid}}]
      responses: {default: {description: Any}}
    additionalOperations: {COPY: {responses: {204: {description: Copied}}, parameters: [{name: id, in: path}]}}
  x-note: none
components:
  parameters: {page: {name: page, in: query, description: Which, deprecated: true, schema: {type: integer, minimum: 1, default: 1}}}
  examples: {one: {summary: One, value: [{id: a}]}}
  responses: {problem: {description: Problem, content: {application/problem+json: {schema: {$ref: "#/components/schemas/Problem"}}}}}
  schemas:
    Order:
      type: object
      required: [id]
      properties:
        id: {type: string, readOnly: true, description: The id}
        next: {$ref: "#/components/schemas/Order", description: The next one}
        lines: {type: array, items: {$ref: "#/components/schemas/Order/$defs/Line"}}
        state: {enum: [open, paid]}
        note: {type: [string, "null"], maxLength: 10}
        any: true
        no: false
      additionalProperties: {type: number}
      $defs: {Line: {type: object, properties: {sku: {const: x}}}}
    Problem: {anyOf: [{type: string}, {$ref: "#/components/schemas/Order"}]}
  securitySchemes:
    key: {type: apiKey, in: header, name: x-api-key}
    login: {type: oauth2, flows: {}}
"""


@pytest.fixture(scope="module")
def reference() -> ApiReference:
    return openapi.read(DOCUMENT.encode())


def _operation(reference: ApiReference, method: str, path: str) -> Operation:
    return next(one for one in reference.operations if (one.method, one.path) == (method, path))


def test_what_the_document_says_of_itself(reference: ApiReference) -> None:
    assert (reference.title, reference.version, reference.summary) == ("Orders", "2.1", "All orders")
    assert (reference.base_path, reference.servers[0].url) == ("/v2", "https://api.example.com/v2/")
    assert [(tag.name, [one.title for one in some]) for tag, some in reference.groups()] == [
        ("orders", ["List"]),
        ("", ["Place", "GET /orders/{id}", "COPY /orders/{id}"]),
    ]
    assert openapi.read(DOCUMENT.encode(), "/api").base_path == "/api"


def test_operations_have_anchors(reference: ApiReference) -> None:
    assert [one.id for one in reference.operations] == [
        "list-orders",
        "POST-orders",
        "GET-orders-id",
        "COPY-orders-id",
    ]


def test_parameters_are_those_of_path_and_operation(reference: ApiReference) -> None:
    page, state, json_filter = _operation(reference, "GET", "/orders").parameters
    assert (page.name, page.description, page.deprecated, page.schema.limits) == (
        "page",
        "Which",
        True,
        (("minimum", 1),),
    )
    assert (state.style, state.explode, state.examples[0].value) == ("pipeDelimited", False, ["open"])
    assert (json_filter.json, json_filter.schema.ref) == (True, "Order")
    assert _operation(reference, "GET", "/orders/{id}").parameters[0].required


def test_bodies_have_schemas_and_examples(reference: ApiReference) -> None:
    some, problem = _operation(reference, "GET", "/orders").responses
    assert (some.status, [one.name for one in some.headers]) == ("200", ["x-total"])
    assert some.content[0].schema.label == "list of Order"
    assert [(one.name, one.summary, one.value, one.url) for one in some.content[0].examples] == [
        ("one", "One", [{"id": "a"}], ""),
        ("far", "", ABSENT, "https://example.com/x"),
    ]
    assert (problem.status, problem.content[0].name) == ("4XX", "application/problem+json")
    body = _operation(reference, "POST", "/orders").body
    assert body is not None
    assert (body.required, body.content[0].examples[0].value) == (True, {"id": "a"})


def test_schemas_refer_to_others_by_name(reference: ApiReference) -> None:
    assert list(reference.schemas) == ["Order", "Problem", "components/schemas/Order/$defs/Line"]
    order = reference.schemas["Order"]
    assert [(one.name, one.schema.label, one.required) for one in order.properties] == [
        ("id", "string", True),
        ("next", "Order", False),
        ("lines", "list of components/schemas/Order/$defs/Line", False),
        ("state", "any", False),
        ("note", "string or null", False),
        ("any", "any", False),
        ("no", "never", False),
    ]
    assert order.properties[1].schema.description == "The next one"
    assert order.additional is not None
    assert order.additional.label == "number"
    assert reference.schemas["Problem"].label == "string or Order"
    assert reference.resolved(order.properties[1].schema) is order


def test_security_is_that_of_the_operation(reference: ApiReference) -> None:
    needs = [[one.scheme for one in some] for some in _operation(reference, "GET", "/orders").security]
    assert needs == [["key"], []]
    assert _operation(reference, "POST", "/orders").security[0][0].scopes == ("write",)
    assert (reference.security["key"].where, reference.security["key"].parameter) == ("header", "x-api-key")
    assert _operation(reference, "POST", "/orders").deprecated


def test_openapi_3_0_has_its_own_schemas() -> None:
    document = DOCUMENT.replace("3.1.1", "3.0.4").replace(
        'note: {type: [string, "null"], maxLength: 10}',
        "note: {type: string, nullable: true}\n        count: {type: integer, minimum: 0, exclusiveMinimum: true}",
    )
    order = openapi.read(document.encode()).schemas["Order"]
    by_name = {one.name: one.schema for one in order.properties}
    assert by_name["note"].label == "string or null"
    assert by_name["count"].limits == (("exclusiveMinimum", 0),)
    assert by_name["next"].description == "", "3.0 ignores what stands beside a reference"


def test_openapi_3_2_has_sequences_and_queries() -> None:
    reference = openapi.read(b"""
openapi: 3.2.0
info: {title: a, version: "1"}
paths:
  /feed:
    query:
      responses:
        200: {description: Some, content: {text/event-stream: {itemSchema: {type: string}}}}
""")
    (operation,) = reference.operations
    assert operation.method == "QUERY"
    assert operation.responses[0].content[0].schema.label == "list of string"


HEAD = "openapi: 3.1.0\ninfo: {title: a, version: '1'}\n"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("openapi: 3.1.0", [((("info",)), "'title' is missing"), (("info",), "'version' is missing")]),
        ("swagger: '2.0'", [(("swagger",), "this is no OpenAPI document of version 3.0, 3.1 or 3.2")]),
        ("[]", [((("openapi",)), "this is no OpenAPI document of version 3.0, 3.1 or 3.2")]),
        (HEAD + "paths: []", [(("paths",), "'paths' is a mapping")]),
        (HEAD + "paths: {a: {}}", [(("paths", "a"), "the path 'a' does not begin with a slash")]),
        (
            HEAD + "paths: {/a/{id}: {get: {}}}".replace("/a/{id}", "'/a/{id}'"),
            [(("paths", "/a/{id}", "get"), "the parameter 'id' of the path is not described")],
        ),
        (HEAD + "paths: {/a: {get: [], put: {responses: {2: {}}}}}", [
            (("paths", "/a", "get"), "an operation is a mapping"),
            (("paths", "/a", "put", "responses", "2"), "'2' is no status"),
        ]),
        (HEAD + "paths: {/a: {get: {parameters: [{in: query}, {name: a}, 3]}}}", [
            (("paths", "/a", "get", "parameters", 0), "a parameter has no name"),
            (("paths", "/a", "get", "parameters", 1), "expected one of path, query, querystring, header, cookie"),
            (("paths", "/a", "get", "parameters", 2), "an item of 'parameters' is a mapping"),
        ]),
        (HEAD + "paths: {/a: {$ref: 'other.yaml#/a'}}", [
            (("paths", "/a", "$ref"),
             "the reference 'other.yaml#/a' leaves the document, and no other document is read"),
        ]),
        (HEAD + "components: {schemas: {A: {$ref: 'https://example.com/a.json'}}}", [
            (("components", "schemas", "A", "$ref"),
             "the reference 'https://example.com/a.json' leaves the document, and no other document is read"),
        ]),
        (HEAD + "components: {schemas: {A: {properties: {b: {$ref: '#/components/schemas/B'}}}}}", [
            (("components", "schemas", "A", "properties", "b", "$ref"), "#/components/schemas/B does not exist"),
        ]),
        (HEAD + "paths: {/a: {get: {responses: {200: {$ref: '#/components/responses/a'}}}}}\n"
         "components: {responses: {a: {$ref: '#/components/responses/b'}, b: {$ref: '#/components/responses/a'}}}", [
            (("paths", "/a", "get", "responses", "200", "$ref"), "the reference leads in a circle"),
        ]),
        (HEAD + "components: {schemas: {A: {type: 3, enum: a, required: b, properties: [], allOf: {}}, B: 3}}", [
            (("components", "schemas", "B"), "a schema is a mapping"),
            (("components", "schemas", "A", "type"), "a type is a text or a list of texts"),
            (("components", "schemas", "A", "enum"), "an enum is a list of values"),
            (("components", "schemas", "A", "properties"), "properties are a mapping"),
            (("components", "schemas", "A", "allOf"), "allOf is a list of schemas"),
        ]),
    ],
)  # fmt: skip
def test_faults_have_a_path(document: str, expected: list[tuple[object, str]]) -> None:
    with pytest.raises(DocumentFaults) as caught:
        openapi.read(document.encode())
    assert [(one.path, one.message) for one in caught.value.faults] == expected
    assert all(one.remedy for one in caught.value.faults)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"openapi: 3.1.0\ninfo: {title: a\npaths: {}\n", 3),
        (b"openapi: 3.1.0\ninfo: {title: a, title: b}\n", 2),
        (b'{"openapi": "3.1.0",\n"info": {"a": 1, "a": 2}}', 2),
        (b"\xff\xfe\x00", 1),
        (b"a: " + b"[" * 300 + b"]" * 300, 1),
        (b"a: " + b"[" * 100_000, 1),
        (b'{"a": ' + b"[" * 100_000, 1),
    ],
)
def test_what_is_no_document_has_a_line(content: bytes, line: int) -> None:
    with pytest.raises(DocumentFaults) as caught:
        openapi.read(content)
    assert caught.value.faults[0].line == line


def test_a_document_that_is_too_large_is_not_read() -> None:
    with pytest.raises(DocumentFaults, match=r"5\.0 MB, and at most 5 MB"):
        openapi.read(b" " * (LARGEST + 1))


def test_faults_are_few() -> None:
    paths = "".join(f"  a{number}: {{}}\n" for number in range(100))
    with pytest.raises(DocumentFaults) as caught:
        openapi.read((HEAD + "paths:\n" + paths).encode())
    assert len(caught.value.faults) == 20
    assert isinstance(caught.value.faults[0], Fault)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def _damaged(draw: st.DrawFn) -> Any:
    """The document with another value at one place."""
    document: Any = json.loads(json.dumps(parsed(DOCUMENT.encode())))
    owner = document
    while True:
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        key = draw(st.sampled_from(keys))
        inner = owner[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            owner[key] = draw(_JSON)
            return document
        owner = inner


@given(_damaged())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_damaged_document_is_read_or_has_faults(document: Any) -> None:
    with suppress(DocumentFaults):
        openapi.read(json.dumps(document).encode())


def test_a_document_is_gone_without_the_garbage_collector() -> None:
    """A compilation reads thousands of documents while the collector is off."""
    content = b'{"openapi": "3.1.0", "info": {"title": "a", "version": "1"}, "paths": {}, "components": {"schemas": {"A": {"type": "object"}}}}'
    openapi.read(content)
    gc.collect()
    gc.disable()
    try:
        openapi.read(content)
        assert gc.collect() == 0
    finally:
        gc.enable()
