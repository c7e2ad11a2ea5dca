"""What protects an operation of a document protects its route too, or nobody may call it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.small_imports import Small, small

OK = {"responses": {"200": {"description": "ok"}}}
KEYS = {name: {"type": "apiKey", "in": "header", "name": f"X-{name}"} for name in ("id", "key")}


def document(paths: dict[str, Any], version: str = "3.1.0", **more: Any) -> str:
    values = {
        "openapi": version,
        "info": {"title": "t", "version": "1"},
        "servers": [{"url": "http://10.0.0.1:8080"}],
        "components": {"securitySchemes": KEYS},
        "paths": paths,
        **more,
    }
    return json.dumps(values)


def api(paths: dict[str, Any], **more: Any) -> Small:
    return small("openapi", document(paths, **more))


def test_two_keys_that_are_both_needed_close_the_route() -> None:
    found = api(
        {
            "/both": {"get": {**OK, "operationId": "both", "security": [{"id": [], "key": []}]}},
            "/any": {"get": {**OK, "operationId": "any", "security": [{"id": []}, {"key": []}]}},
        }
    )
    assert found.closed("both")
    assert found.route("any")["policies"]["api_key"] == {"header": "X-key"}
    assert any("no longer from X-id" in one for one in found.warnings)


def test_paths_and_schemes_by_reference_are_imported() -> None:
    found = api(
        {
            "/r": {"$ref": "#/components/pathItems/R"},
            "/far": {"$ref": "other.json#/x"},
            "/{wide}": {"x-amazon-apigateway-any-method": {**OK, "operationId": "wide"}},
        },
        components={
            "pathItems": {"R": {"get": {**OK, "operationId": "r", "security": [{"alias": []}]}}},
            "securitySchemes": {**KEYS, "alias": {"$ref": "#/components/securitySchemes/key"}},
        },
    )
    assert found.route("r")["path"] == "/r"
    assert found.route("r")["policies"]["api_key"] == {"header": "X-key"}
    assert found.route("far") == {"path": "/far", "respond": {"status": 501}}
    assert len(found.errors) == 1


def test_other_methods_of_version_3_2() -> None:
    found = api(
        {
            "/a": {
                "query": {**OK, "operationId": "q"},
                "additionalOperations": {"COPY": {**OK, "operationId": "c"}},
            }
        },
        version="3.2.0",
    )
    assert found.route("c")["methods"] == ["COPY"]
    assert found.route("query-a") == {"path": "/a", "respond": {"status": 501}}
    assert "no method QUERY" in found.errors[0]


@pytest.mark.parametrize(
    "more",
    [
        {
            "x-amazon-apigateway-policy": {
                "Statement": [{"Effect": "Deny", "Principal": "*", "Condition": {"a": "b"}}]
            }
        },
        {"x-amazon-apigateway-policy": {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:x"}}]}},
        {"x-amazon-apigateway-endpoint-configuration": {"types": ["PRIVATE"]}},
    ],
)
def test_a_protected_api_of_amazon_is_closed(more: dict[str, Any]) -> None:
    found = api({"/a": {"get": {**OK, "operationId": "a"}}}, **more)
    assert found.closed("a")
    assert found.errors


def test_an_api_that_everybody_may_call_is_open() -> None:
    policy = {"x-amazon-apigateway-policy": {"Statement": [{"Effect": "Allow", "Principal": "*"}]}}
    found = api({"/a": {"get": {**OK, "operationId": "a"}}}, **policy)
    assert not found.closed("a")
    assert not found.errors


def test_signatures_of_amazon_close_the_route() -> None:
    auth = {"x-amazon-apigateway-auth": {"type": "AWS_IAM"}}
    found = api({"/a": {"get": {**OK, **auth, "operationId": "a"}, "post": {**OK, "operationId": "b"}}})
    assert found.closed("a")
    assert not found.closed("b")


def test_integrations_of_amazon() -> None:
    post = {"type": "http_proxy", "httpMethod": "POST", "uri": "http://10.0.0.1/k"}
    mock = {
        "type": "mock",
        "responses": {
            "default": {"statusCode": "403", "responseParameters": {"method.response.header.X-A": "'b%'"}}
        },
    }
    found = api(
        {
            "/k": {"get": {**OK, "operationId": "k", "x-amazon-apigateway-integration": post}},
            "/m": {"get": {**OK, "operationId": "m", "x-amazon-apigateway-integration": mock}},
        }
    )
    assert any("method of the client" in one for one in found.warnings)
    assert found.route("m")["respond"] == {"status": 403, "headers": {"x-a": "b%"}}


def test_extensions_of_google() -> None:
    found = small(
        "openapi",
        json.dumps(
            {
                "swagger": "2.0",
                "info": {"title": "s", "version": "1"},
                "host": "api.example.com",
                "x-google-endpoints": [{"name": "x", "allowCors": True}],
                "securityDefinitions": {
                    "g": {
                        "type": "oauth2",
                        "x-google-issuer": "https://i.example.com",
                        "x-google-jwks_uri": "https://i.example.com/keys",
                        "x-google-jwt-locations": [{"header": "X-T", "value_prefix": "J "}, {"query": "t"}],
                    }
                },
                "paths": {"/f/{p=**}": {"get": {**OK, "operationId": "f", "security": [{"g": []}]}}},
            }
        ),
    )
    assert found.route("f")["path"] == "/f/*"
    provider = found.sections["identity"]["g"]
    assert (provider["from_headers"], provider["from_query"]) == (["X-T"], ["t"])
    assert {True} == {any(text in one for one in found.warnings) for text in ("allowCors", "prefix")}


def test_documents_with_one_name_stay_apart() -> None:
    one, other = (document({path: {"get": {**OK, "operationId": path[1:]}}}) for path in ("/a", "/b"))
    from xds_server.imports.kinds import import_files

    found = import_files("openapi", {"a/api.json": one.encode(), "b/api.json": other.encode()})
    assert {name: content for name, content in found.files.items() if name.startswith("specs/")} == {
        "specs/api.json": one.encode(),
        "specs/api-2.json": other.encode(),
    }
    assert b"openapi: specs/api-2.json" in found.files["gateway.yaml"]


def test_a_route_without_an_upstream_has_no_limit() -> None:
    lambda_ = {"type": "aws_proxy", "uri": "arn:x"}
    found = api(
        {"/l": {"get": {**OK, "operationId": "l", "x-amazon-apigateway-integration": lambda_}}},
        **{"x-kong-plugin-rate-limiting": {"config": {"minute": 3}}},
    )
    assert found.route("l") == {"path": "/l", "methods": ["GET"], "respond": {"status": 501}}
    assert any("the gateway itself answers" in one for one in found.warnings)


def test_a_second_server_is_reported() -> None:
    found = api(
        {"/a": {"get": {**OK, "operationId": "a"}}},
        servers=[{"url": "http://10.0.0.1"}, {"url": "http://10.0.0.2"}],
    )
    assert any("only the first server" in one for one in found.warnings)
