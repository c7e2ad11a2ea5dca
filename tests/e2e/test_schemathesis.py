"""schemathesis against a route that an OpenAPI document validates: it finds nothing.

The upstream answers every request as the document says, so each finding would be one of the gateway: a request that fits the
document and is rejected, one that does not fit and passes, or a rejection that the document does not describe.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks

PROBLEM = "{content: {application/problem+json: {schema: {$ref: '#/components/schemas/Problem'}}}, description: rejected}"
REJECTED = f"'400': {PROBLEM}, '404': {PROBLEM}, '405': {PROBLEM}, '413': {PROBLEM}, '415': {PROBLEM}"
ANSWERS = f"{{'200': {{$ref: '#/components/responses/Done'}}, {REJECTED}}}"
OPENAPI = f"""
openapi: 3.1.1
info: {{title: shop, version: "1"}}
servers: [{{url: /api}}]
paths:
  /users/{{id}}:
    parameters: [{{name: id, in: path, required: true, schema: {{type: integer, minimum: 1, maximum: 99999}}}}]
    get:
      parameters:
        - {{name: limit, in: query, schema: {{type: integer, minimum: 1, maximum: 10}}}}
        - {{name: fields, in: query, style: form, explode: false, schema: {{type: array, maxItems: 3, items: {{enum: [a, b, c]}}}}}}
        - {{name: tag, in: query, schema: {{type: array, maxItems: 3, items: {{type: string, pattern: "^[a-z]{{1,5}}$"}}}}}}
        - {{name: x-level, in: header, required: true, schema: {{enum: [low, high]}}}}
        - {{name: theme, in: cookie, schema: {{enum: [dark, light]}}}}
      responses: {ANSWERS}
    put:
      requestBody: {{required: true, content: {{application/json: {{schema: {{$ref: "#/components/schemas/User"}}}}}}}}
      responses: {ANSWERS}
    delete:
      responses: {ANSWERS}
  /users:
    post:
      requestBody: {{required: true, content: {{application/json: {{schema: {{type: array, maxItems: 3, items: {{$ref: "#/components/schemas/User"}}}}}}}}}}
      responses: {ANSWERS}
  /colors/{{color}}/{{size}}:
    get:
      parameters:
        - {{name: color, in: path, required: true, schema: {{enum: [red, "light blue", "50%"]}}}}
        - {{name: size, in: path, required: true, schema: {{type: number, minimum: 0, maximum: 10}}}}
      responses: {ANSWERS}
components:
  responses:
    Done: {{description: done, content: {{application/json: {{schema: {{type: object, required: [done], properties: {{done: {{const: true}}}}}}}}}}}}
  schemas:
    Problem:
      type: object
      required: [type, title, status, reason, request_id]
      properties: {{status: {{type: integer}}, errors: {{type: array, maxItems: 20}}}}
    User:
      type: object
      required: [name, kind]
      additionalProperties: false
      properties:
        name: {{type: string, minLength: 1, maxLength: 20}}
        kind: {{enum: [person, company]}}
        age: {{type: [integer, "null"], minimum: 0, maximum: 150}}
        price: {{type: number, multipleOf: 0.25, minimum: 0, maximum: 1000}}
        tags: {{type: array, maxItems: 4, uniqueItems: true, items: {{type: string, maxLength: 5}}}}
        address: {{oneOf: [{{type: object, required: [city], properties: {{city: {{type: string}}}}}}, {{type: boolean}}]}}
"""
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  api: {path: /api/*, upstream: echo, policies: {validate: {openapi: openapi.yaml, responses: enforce}}}
"""


OPTIONS = (
    "--mode all --max-examples 25 --seed 12 --generation-deterministic --suppress-health-check all "
    "--exclude-checks unsupported_method --workers 1 --request-timeout 60 --no-color --continue-on-failure --warnings off"
)
"""Without the check that other methods get 405: it tries QUERY, which Envoy's parser of HTTP/1 rejects as malformed."""


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    backend.body = b'{"done": true}'
    return stacks.start(YAML, files={"openapi.yaml": OPENAPI}, echo=backend.address)


@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing"])
def test_schemathesis_finds_nothing(stack: Stack, backend: Backend, tmp_path: Path, phases: str) -> None:
    backend.seen.clear()
    options = f"--url {stack.url}/api --phases {phases} {OPTIONS}".split()
    document = str(stack.folder / "openapi.yaml")
    command = [sys.executable, "-m", "schemathesis.cli", "run", document, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert backend.seen  # requests that fit the document have passed
