"""Documents of GraphQL routes: persisted ones of a folder, on disk and in a commit, and what OpenAPI documents lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.git import WorkingTree
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.gateway.graphql_schemas import persisted_texts
from xds_server.sources.folder import read_folder
from xds_server.sources.git_repository import LocalRepository
from xds_server.sources.source import SourceState

GATEWAY = """
listeners: {http: {port: 8080}}
upstreams: {users: {endpoints: ['127.0.0.1:9001']}}
routes: {app: {path: /app, graphql: {schema: schema.graphql, persisted: {files: [PATTERN]}}}}
"""
SDL = 'type Query { a: Int @rest(upstream: "users", path: "/a") b: Int @rest(upstream: "users", path: "/b") }'


def _write(folder: Path, pattern: str = "queries/*.graphql", **documents: str) -> Path:
    (folder / "queries").mkdir(parents=True)
    (folder / "gateway.yaml").write_text(GATEWAY.replace("PATTERN", pattern))
    (folder / "schema.graphql").write_text(SDL)
    for name, text in documents.items():
        (folder / "queries" / f"{name}.graphql").write_text(text)
    return folder


def _documents(state: SourceState) -> tuple[str, ...]:
    gateway = Compiler({}).compile(state).gateway
    graphql = gateway.sections.routes["app"].graphql
    assert graphql is not None
    return persisted_texts(graphql, gateway.contents)


def _errors(folder: Path) -> list[str]:
    with pytest.raises(InvalidGateway) as raised:
        Compiler({}).compile(read_folder(folder))
    return [str(one) for one in raised.value.problems]


def test_a_pattern_stands_for_the_files_of_a_folder(tmp_path: Path) -> None:
    folder = _write(tmp_path / "gateway", b="{ b }", a="{ a }", _draft="{ nothing }")
    (folder / "queries" / "README.md").write_text("no document")
    (folder / "queries" / "folder.graphql").mkdir()
    assert _documents(read_folder(folder)) == ("{ a }", "{ b }")


def test_a_pattern_is_that_of_the_commit(tmp_path: Path) -> None:
    tree = WorkingTree(tmp_path / "tree")
    _write(tree.path / "gateway", a="{ a }", _draft="{ nothing }")
    tree.commit("First")
    (tree.path / "gateway" / "queries" / "b.graphql").write_text("{ b }")
    repository = LocalRepository(str(tree.path), "gateway", "main")
    try:
        first = repository.fetch()
        assert _documents(first.tree.folder(first.version, allow_empty=False)) == ("{ a }",)
        tree.commit("Second")
        second = repository.fetch()
        assert _documents(second.tree.folder(second.version, allow_empty=False)) == ("{ a }", "{ b }")
    finally:
        repository.close()


def test_a_document_of_a_pattern_is_checked(tmp_path: Path) -> None:
    folder = _write(tmp_path, a="{ a }", wrong="{\n  c\n}")
    assert _errors(folder) == [
        (
            "queries/wrong.graphql:2:3: error: routes.app.graphql.persisted.files[0]: "
            "Cannot query field 'c' on type 'Query'; correct the document, or raise the limit"
        )
    ]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("queries/*.gql", "the file cannot be read: no file has such a name (found 'queries/*.gql')"),
        (
            "nothing/*.graphql",
            "the file cannot be read: No such file or directory (found 'nothing/*.graphql')",
        ),
        ("*/a.graphql", "only the last part of a path may be a pattern"),
    ],
)
def test_a_pattern_without_files_is_an_error(tmp_path: Path, pattern: str, reason: str) -> None:
    (error,) = _errors(_write(tmp_path, f'"{pattern}"', a="{ a }"))
    assert reason in error
    assert error.startswith("gateway.yaml:4:")


def test_a_document_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = _write(tmp_path, a="{ a }", b="{ b }"), Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "b.graphql":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    (error,) = _errors(folder)
    assert "the file queries/b.graphql cannot be read" in error


OPENAPI = """\
openapi: 3.1.0
info: {title: files, version: "1"}
paths:
  /files/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get:
      operationId: file
      responses: {"200": {description: "", content: {application/json: {schema: {type: object}}}}}
    options: {responses: {"204": {description: ""}}}
    put:
      requestBody: {required: true, content: {image/png: {}}}
      responses: {"204": {description: ""}}
"""


def test_an_operation_without_a_field_is_a_warning_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "files.yml").write_text(OPENAPI)
    (tmp_path / "gateway.yaml").write_text(
        GATEWAY.partition("routes:")[0]
        + "routes: {app: {path: /app, graphql: {from_openapi: [{file: files.yml, upstream: users}]}}}\n"
    )
    (warning,) = Compiler({}).compile(read_folder(tmp_path)).warnings
    assert str(warning) == (
        "files.yml:10:5: warning: routes.app.graphql.from_openapi[0]: paths[/files/{id}].put: the schema has no field "
        "for this operation, because its body is not JSON; give it a route of its own"
    )
