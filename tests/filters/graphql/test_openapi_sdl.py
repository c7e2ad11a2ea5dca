"""OpenAPI documents become schemas, with names that do not change when the documents grow."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from graphql import print_schema

from filters.api_documents import openapi
from filters.graphql.openapi_sdl import generate, plain_name
from filters.graphql.operations import Operations
from filters.graphql.request_context import RequestContext
from filters.graphql.schema import BoundSchema, SdlDocument, read
from filters.graphql.settings import GraphqlLimits
from tests.support.graphql_shop import Services, answer
from xds_server.composer.graphql import execution

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "https://shop.example.com/v1"}],
    "paths": {
        "/users/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {
                "operationId": "getUser",
                "summary": "One user",
                "parameters": [
                    {"name": "X-Tenant", "in": "header", "schema": {"type": "string"}},
                    {"name": "X-Envoy-Max-Retries", "in": "header", "schema": {"type": "integer"}},
                    {"name": "id", "in": "query", "schema": {"type": "string"}},
                    {"name": "expand[]", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"name": "csv", "in": "query", "explode": False,
                     "schema": {"type": "array", "items": {"type": "string"}}},
                ],
                "responses": {"200": {"description": "", "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/User"}}}}},
            },
            "delete": {"responses": {"204": {"description": ""}}},
        },
        "/users": {
            "get": {
                "operationId": "list-users",
                "responses": {"200": {"description": "", "content": {"application/json": {"schema": {
                    "type": "object", "properties": {
                        "items": {"type": "array", "items": {"$ref": "#/components/schemas/User"}},
                        "page": {"type": "object", "properties": {"next": {"type": "string"}}}}}}}}},
            },
            "post": {
                "operationId": "addUser",
                "requestBody": {"required": True, "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/User"}}}},
                "responses": {"201": {"description": "", "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/User"}}}}},
            },
        },
        "/files": {"put": {"operationId": "upload", "requestBody": {"required": True, "content": {
            "application/octet-stream": {}}}, "responses": {"204": {"description": ""}}}},
    },
    "components": {"schemas": {
        "User": {"type": "object", "required": ["full-name"], "properties": {
            "id": {"type": "integer", "readOnly": True},
            "full-name": {"type": "string", "description": "First and last"},
            "age": {"type": ["integer", "null"], "format": "int32"},
            "friend": {"$ref": "#/components/schemas/User"},
            "state": {"enum": ["open", "in-work"], "type": "string"},
            "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            "maybe": {"anyOf": [{"$ref": "#/components/schemas/Query"}, {"type": "null"}]},
            "password": {"type": "string", "writeOnly": True}}},
        "Query": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"properties": {"q": {"type": "number"}}}]},
        "Base": {"type": "object", "properties": {"b": {"type": "boolean"}}},
    }},
}  # fmt: skip


def schema(document: dict[str, Any] = DOCUMENT, prefix: str = "") -> BoundSchema:
    """The schema of a document."""
    text = generate(openapi.read(json.dumps(document).encode()), "users", prefix).text
    return execution.bind(read([SdlDocument(name="openapi.json", text=text)], ["users"]))


def test_operations_and_schemas_become_fields_and_types() -> None:
    text = print_schema(schema().types)
    listed = plain_name("list-users")
    renamed = plain_name("full-name")
    assert f"  getUser(id: BigInt!, {plain_name('X-Tenant')}__header: String, id__query: String" in text
    assert f"  {listed}: L{listed[1:]}__answer" in text
    assert (
        f'  """First and last"""\n  {renamed}: String\n  age: Int\n  friend: User\n  state: String\n' in text
    )
    assert "  either: JSON\n" in text
    assert "password" not in text.partition("input User__Input")[0]
    assert "id: " not in text.partition("input User__Input")[2].partition("}")[0]
    assert f"  {renamed}: String!\n" in text.partition("input User__Input")[2]
    assert "  addUser(body: User__Input!): User\n" in text


def test_operations_that_cannot_be_called_are_left_out() -> None:
    found = generate(openapi.read(json.dumps(DOCUMENT).encode()), "users")
    (fault,) = found.left_out
    assert (fault.path, fault.message.partition(", because ")[2]) == (
        ("paths", "/files", "put"),
        "its body is not JSON",
    )


async def test_calls_have_the_arguments_where_the_document_says() -> None:
    services = Services(
        lambda call: answer(
            {"id": 2**40, "full-name": "A", "state": "in-work", **json.loads(call.body or b"{}")}
        )
    )
    operations = Operations(schema(), GraphqlLimits())
    renamed, listed = plain_name("full-name"), plain_name("expand[]")

    async def ask(query: str) -> Any:
        return (
            await execution.run(operations.prepare(query), {}, services, RequestContext(), GraphqlLimits())
        ).value

    query = f'{{ getUser(id: 7, {plain_name("X-Tenant")}__header: "t", {listed}: ["a", "b"], csv: ["c", "d"])'
    assert await ask(f"{query} {{ id {renamed} state }} }}") == {
        "data": {"getUser": {"id": 2**40, renamed: "A", "state": "in-work"}}
    }
    assert services.calls[0].path == "/v1/users/7?expand[]=a&expand[]=b&csv=c,d"
    assert services.calls[0].headers["x-tenant"] == "t"
    query = f'mutation {{ addUser(body: {{{renamed}: "B", password: "p"}}) {{ {renamed} }} }}'
    assert await ask(query) == {"data": {"addUser": {renamed: "B"}}}
    assert json.loads(services.calls[1].body) == {"full-name": "B", "password": "p"}


def test_names_stay_when_the_document_grows() -> None:
    grown = deepcopy(DOCUMENT)
    schemas, paths = grown["components"]["schemas"], grown["paths"]
    more = {"type": "object", "properties": {"x": {"type": "string"}}}
    names = ("A", "User-Input", "User_Input", "full-name", "ListUsers", "list_users", "Query!", "getUser")
    grown["components"]["schemas"] = dict.fromkeys(names, more) | schemas
    schemas["User"]["properties"] = {"full_name": {"type": "string"}, "fullName": more} | schemas["User"][
        "properties"
    ]
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}
    operation = {"responses": {"200": {"description": "", "content": content}}}
    new = {
        f"/{name}": {"get": {"operationId": name, **operation}}
        for name in ("list_users", "listUsers", "list.users")
    }
    grown["paths"] = new | {"/users/id": {"delete": operation}} | paths
    before, after = schema().types, schema(grown).types
    for name, kind in before.type_map.items():
        fields = getattr(kind, "fields", {})
        for field, one in fields.items():
            assert str(after.type_map[name].fields[field].type) == str(one.type)  # type: ignore[attr-defined]


def test_documents_with_the_same_names_have_prefixes() -> None:
    first, second = schema(prefix="a").types, schema(prefix="b").types
    assert not {name for name in first.type_map if "User" in name} & set(second.type_map)
