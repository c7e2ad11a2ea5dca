"""Code samples of an operation: curl, Python and TypeScript; grpcurl for gRPC. The key is a placeholder in a header."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from filters.api_documents.example_values import of_schema
from filters.api_documents.reference import ABSENT, ApiReference, Operation
from xds_server.catalog.credentials import Credential
from xds_server.catalog.sample_requests import FORM, MULTIPART, SampleRequest, host_of, sample_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A sample. `language` names it in URLs and classes, `label` for people."""

    language: str
    label: str
    code: str


def samples(
    operation: Operation, reference: ApiReference, base_url: str, credential: Credential | None
) -> tuple[Sample, ...]:
    """Return the samples of an operation. `base_url` is that of its entry."""
    if reference.kind == "grpc":
        code = _grpcurl(operation, reference, base_url, credential)
        return (Sample(language="grpcurl", label="grpcurl", code=code),)
    request = sample_request(operation, reference, base_url, credential)
    return (
        Sample(language="curl", label="curl", code=curl(request)),
        Sample(language="python", label="Python", code=python(request)),
        Sample(language="typescript", label="TypeScript", code=typescript(request)),
    )


def curl(request: SampleRequest) -> str:
    """Return a command of a POSIX shell."""
    lines = [_command(request)]
    lines += [
        f"-H {shlex.quote(f'{name}: {value}' if value else f'{name};')}" for name, value in request.headers
    ]
    lines += list(_curl_body(request))
    return " \\\n  ".join(lines)


def _command(request: SampleRequest) -> str:
    url = shlex.quote(request.url)
    if request.method == "HEAD":
        return f"curl --head {url}"
    if request.method == ("GET" if request.body is ABSENT else "POST"):
        return f"curl {url}"
    return f"curl -X {shlex.quote(request.method)} {url}"


def _curl_body(request: SampleRequest) -> Iterator[str]:
    if request.body is ABSENT:
        return
    if request.content_type in (FORM, MULTIPART) and isinstance(request.body, Mapping):
        flag = "--form-string" if request.content_type == MULTIPART else "--data-urlencode"
        for name, value in request.body.items():
            key = name if request.content_type == MULTIPART else quote(name, safe="")
            yield f"{flag} {shlex.quote(f'{key}={_field(value)}')}"
        return
    text = _json(request.body) if request.is_json else str(request.body)
    yield f"--data-raw {shlex.quote(text)}"


def _field(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def python(request: SampleRequest) -> str:
    """Return a script for Python with httpx."""
    lines = ["import httpx", "", "response = httpx.request("]
    lines += [f"    {_literal(request.method)},", f"    {_literal(request.url)},"]
    if request.headers:
        pairs = "".join(f"        {_literal(name)}: {_literal(value)},\n" for name, value in request.headers)
        lines.append(f"    headers={{\n{pairs}    }},")
    if request.body is not ABSENT:
        lines.append(f"    {_python_body(request)},")
    lines += [")", "response.raise_for_status()", "print(response.text)"]
    return "\n".join(lines)


def _python_body(request: SampleRequest) -> str:
    if request.is_json:
        return f"json={_literal(request.body, 1)}"
    if isinstance(request.body, Mapping):
        fields = {name: _field(value) for name, value in request.body.items()}
        if request.content_type == MULTIPART:
            parts = "".join(
                f"        {_literal(name)}: (None, {_literal(value)}),\n" for name, value in fields.items()
            )
            return f"files={{\n{parts}    }}"
        return f"data={_literal(fields, 1)}"
    return f"content={_literal(str(request.body))}"


def _literal(value: Any, depth: int = 0) -> str:
    """Return a value of JSON as Python writes it, with an item on each line."""
    indent = "    " * (depth + 1)
    if isinstance(value, Mapping) and value:
        items = "".join(
            f"{indent}{_literal(str(name))}: {_literal(one, depth + 1)},\n" for name, one in value.items()
        )
        return "{\n" + items + "    " * depth + "}"
    if isinstance(value, list | tuple) and value:
        items = "".join(f"{indent}{_literal(one, depth + 1)},\n" for one in value)
        return "[\n" + items + "    " * depth + "]"
    if isinstance(value, str):
        # without control characters, JSON's escapes are Python's too
        return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)
    return repr(value)


def typescript(request: SampleRequest) -> str:
    """Return a script for TypeScript with fetch."""
    options = [f"  method: {_js(request.method)},"]
    if request.headers:
        pairs = "".join(f"    {_js(name)}: {_js(value)},\n" for name, value in request.headers)
        options.append(f"  headers: {{\n{pairs}  }},")
    before = ""
    if request.body is not ABSENT:
        if isinstance(request.body, Mapping) and request.content_type == MULTIPART:
            before = "const form = new FormData();\n" + "".join(
                f"form.append({_js(name)}, {_js(_field(value))});\n" for name, value in request.body.items()
            )
            options.append("  body: form,")
        elif isinstance(request.body, Mapping) and request.content_type == FORM:
            fields = {name: _field(value) for name, value in request.body.items()}
            options.append(f"  body: new URLSearchParams({_indented(fields)}),")
        elif request.is_json:
            options.append(f"  body: JSON.stringify({_indented(request.body)}),")
        else:
            options.append(f"  body: {_js(str(request.body))},")
    return "\n".join(
        [
            f"{before}const response = await fetch({_js(request.url)}, {{",
            *options,
            "});",
            "if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);",
            "console.log(await response.text());",
        ]
    )


def _js(value: str) -> str:
    return json.dumps(value, ensure_ascii=not value.isprintable())


def _indented(value: Any) -> str:
    text = (
        json.dumps(value, indent=2, ensure_ascii=False)
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
    return text.replace("\n", "\n  ")


def _grpcurl(
    operation: Operation, reference: ApiReference, base_url: str, credential: Credential | None
) -> str:
    host, plain = host_of(base_url)
    body = operation.body.content[0].schema if operation.body is not None else None
    message = of_schema(body, reference, "request") if body is not None else {}
    lines = ["grpcurl" + (" -plaintext" if plain else "")]
    if credential is not None and credential.header:
        lines.append(f"-H {shlex.quote(f'{credential.header}: {credential.value}')}")
    lines.append(f"-d {shlex.quote(_json({} if message is ABSENT else message))}")
    lines.append(f"{shlex.quote(host)} {shlex.quote(operation.path.lstrip('/'))}")
    return " \\\n  ".join(lines)
