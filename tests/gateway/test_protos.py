"""Descriptors of gRPC services: .proto files are compiled when the gateway is read, and each mistake has its place."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from filters.grpc_transcoding.sources import ProtoErrors
from tests.support.grpc_shop import DESCRIPTORS
from tests.support.validate import complaint
from xds_server.gateway.reader import Load, Reader, Reading
from xds_server.sources.protoc import ProtoCompiler
from xds_server.translate.static import bootstrap
from xds_server.translate.translator import Translator

COMPILER = ProtoCompiler()
YAML = """
listeners: {http: {port: 8080}}
upstreams: {a: {endpoints: ['127.0.0.1:1'], protocol: grpc}, old: {endpoints: ['127.0.0.1:1']}}
routes:
  r: {path: %s, upstream: %s, policies: {grpc_transcoding: %s}}
"""
HEAD = """syntax = "proto3";
package p.v1;
import "google/api/annotations.proto";
message In { string name = 1; repeated string many = 2; In inner = 3; map<string, string> map = 4; int32 n = 5; }
message Out { string text = 1; }
"""


def _loader(contents: Mapping[str, bytes]) -> Load:
    def load(name: str) -> bytes:
        if name not in contents:
            raise FileNotFoundError(2, "No such file or directory", name)
        return contents[name]

    return load


def read(
    files: Mapping[str, str | bytes],
    settings: str = "{protos: [x.proto]}",
    path: str = "/*",
    upstream: str = "a",
    more: str = "",
) -> Reading:
    contents = {name: one.encode() if isinstance(one, str) else one for name, one in files.items()}
    yaml = (
        (YAML % (path, upstream, settings)).replace("policies:", f"{more} policies:")
        if more
        else YAML % (path, upstream, settings)
    )
    return Reader().read({"g.yaml": yaml.encode()}, _loader(contents), {}, compile_protos=COMPILER)


def service(rules: str, before: str = "") -> str:
    return f"{HEAD}{before}service S {{ rpc M(In) returns (Out) {{ {rules} }} }}\n"


def annotated(rule: str) -> str:
    return service(f"option (google.api.http) = {{ {rule} }};")


def errors(reading: Reading) -> list[str]:
    return [str(problem).replace("routes.r.policies.grpc_transcoding", "…") for problem in reading.errors]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"x.proto": HEAD + "message A { Nothing n = 1; }"}, ['x.proto:6:13: error: ….protos[0]: "Nothing" is not defined. (found \'message A { Nothing n = 1; }\'); mend the .proto file']),
        ({"x.proto": HEAD + "message A {\n  int32 n = 1\n}"}, ["x.proto:8:1: error: ….protos[0]: Expected \";\". (found '}'); mend the .proto file"]),
        ({"x.proto": 'syntax = "proto3";\nimport "y.proto";'}, ['x.proto:2:1: error: ….protos[0]: Import "y.proto" was not found or had errors. (found \'import "y.proto";\'); add it to the gateway\'s folder, or write {file: FILE, import_path: FOLDER}']),
        ({"x.proto": 'syntax = "proto3";\nimport "sub/y.proto";', "sub/y.proto": "message"}, ['sub/y.proto:1:8: error: ….protos[0]: Expected message name. (found \'message\'); mend the .proto file', 'x.proto:2:1: error: ….protos[0]: Import "sub/y.proto" was not found or had errors. (found \'import "sub/y.proto";\'); add it to the gateway\'s folder, or write {file: FILE, import_path: FOLDER}']),
        ({"x.proto": 'syntax = "proto3";\nimport "x.proto";'}, ['x.proto:2:1: error: ….protos[0]: File recursively imports itself: x.proto -> x.proto (found \'import "x.proto";\'); mend the .proto file']),
        ({"x.proto": HEAD}, ["g.yaml:5:68: error: ….protos: no method can be called; annotate methods with google.api.http, or write methods: {package.Service/Method: {get: /v1/{name}}}"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_proto_file_has_its_place(files: dict[str, str], expected: list[str]) -> None:
    assert errors(read(files)) == expected


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "the rule has no path"),
        ('get: "v1/{name}"', "a path template begins with /"),
        ('get: "/v1/{nam}"', "the message p.v1.In has no field 'nam'"),
        ('get: "/v1/{many}"', "the field 'many' is repeated"),
        ('get: "/v1/{inner}"', "the field 'inner' is a message"),
        ('get: "/v1/{name.x}"', "the field 'name' is no message"),
        ('get: "/v1/{inner.many}"', "the field 'inner.many' is repeated"),
        ('get: "/v1/{name}" body: "*"', "a GET request has no body"),
        ('post: "/v1/x" body: "bodi"', "the message p.v1.In has no field 'bodi'"),
        ('get: "/v1/x" response_body: "text"', "Envoy cannot send the field 'text' alone, because it is not a google.api.HttpBody"),
        ('get: "/v1/x" response_body: "tex"', "the message p.v1.Out has no field 'tex'"),
        ('custom { kind: "FETCH" path: "/v1/x" }', "not an HTTP method"),
        ('get: "/v1/**/x"', "** is only allowed at the end of a template"),
        ('get: "/v1/x" additional_bindings { get: "/v1/x" }', "p.v1.S/M and p.v1.S/M have the same requests: GET /v1/x"),
    ],
)  # fmt: skip
def test_a_rule_that_envoy_would_reject_is_an_error(rule: str, message: str) -> None:
    (problem,) = read({"x.proto": annotated(rule)}).errors
    assert message in problem.message
    assert (str(problem.place), problem.path[-1]) == ("g.yaml:5:68", "protos")
    assert problem.remedy
    assert problem.value


@pytest.mark.parametrize(
    "rule",
    [
        'get: "/v1/{name}"',
        'get: "/v1/{name=**}"',
        'get: "/v1/{name=a/*/b/**}:verb"',
        'get: "/v1/*/{inner.inner.name}/**"',
        'post: "/v1/{n}:x" body: "inner"',
        'delete: "/v1/{n}" body: "*"',
        'custom { kind: "HEAD" path: "/v1/x" }',
        'get: "/" additional_bindings { patch: "/x" body: "map" }'.replace('"/"', '"/v1"'),
        'get: "/v1/a%20b/~x.y-z_"',
        'put: "/v1/{name}" body: "many" additional_bindings { post: "/v1/{name}" body: "name" }'.replace('body: "name"', 'body: "n"'),
    ],
)  # fmt: skip
def test_envoy_accepts_every_rule_without_an_error(rule: str) -> None:
    reading = read({"x.proto": annotated(rule)})
    assert errors(reading) == []
    assert reading.gateway is not None
    assert complaint(bootstrap(Translator().translate(reading.gateway))) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{protos: [x.proto], services: [p.v1.Z]}", "the descriptors have no such service (found 'p.v1.Z'); did you mean 'p.v1.S'?"),
        ("{protos: [x.proto], methods: {p.v1.S/N: {get: /x}}}", "the descriptors have no such method (found 'p.v1.S/N'); did you mean 'p.v1.S/M'?"),
        ("{protos: [x.proto], methods: {p.v1.S/M: {get: '/{nam}'}}}", "the message p.v1.In has no field 'nam' (found '/{nam}'); did you mean 'name'?"),
        ("{protos: [x.proto], methods: {p.v1.S/M: [{get: '/a/{x}'}, {get: '/b/{name}'}]}}", "the message p.v1.In has no field 'x'"),
        ("{descriptors: x.pb}", "this is not a descriptor set; write it with protoc"),
        ("{descriptors: alone.pb}", "the descriptor set has no file 'google/api/nothing.proto'"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_settings_names_the_remedy(settings: str, message: str) -> None:
    alone = b"\n\x26\n\x07x.proto\x1a\x1bgoogle/api/nothing.proto"
    alone = (
        b"\n"
        + bytes([len(b"\n\x07x.proto\x1a\x18google/api/nothing.proto")])
        + b"\n\x07x.proto\x1a\x18google/api/nothing.proto"
    )
    files = {"x.proto": annotated('get: "/v1/{name}"'), "x.pb": b"no", "alone.pb": alone}
    assert any(message in one for one in errors(read(files, settings)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"upstream": "old"}, "the upstream 'old' does not use HTTP/2, and gRPC needs it; write protocol: grpc in upstreams.old"),
        ({"path": "/v2/*"}, "the requests of this route have the path of no method (found '/v1/{name}'); write a path of the route that covers them"),
        ({"more": "rewrite: {path: /x},"}, "transcoding sets the path of the request to the method's; remove rewrite.path"),
        ({"more": "websocket: true,"}, "a WebSocket cannot be transcoded; remove 'websocket' from the route"),
    ],
)  # fmt: skip
def test_a_route_that_cannot_be_transcoded_is_an_error(changed: dict[str, str], message: str) -> None:
    found = errors(read({"x.proto": annotated('get: "/v1/{name}"')}, **changed))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("policies", "upstream", "message"),
    [
        ("grpc_bridge: true", "old", "the upstream 'old' does not use HTTP/2, and gRPC needs it"),
        ("grpc_reverse_transcoding: {protos: [x.proto], services: [p.v1.Z]}", "old", "the descriptors have no such service"),
        ("grpc_reverse_transcoding: {descriptors: none.pb}", "old", "the file cannot be read"),
        ("grpc_reverse_bridge: true, grpc_bridge: true", "a", "'grpc_bridge' of this route changes the same messages; keep one"),
    ],
)  # fmt: skip
def test_a_bridge_that_cannot_work_is_an_error(policies: str, upstream: str, message: str) -> None:
    files = {"x.proto": annotated('get: "/v1/{name}"').encode()}
    yaml = YAML.replace("{grpc_transcoding: %s}", "{%s}") % ("/*", upstream, policies)
    reading = Reader().read({"g.yaml": yaml.encode()}, _loader(files), {}, compile_protos=COMPILER)
    assert any(message in str(problem) for problem in reading.errors), reading.errors


def test_a_reverse_route_has_the_paths_of_the_rules_too() -> None:
    files = {"x.proto": annotated('get: "/v1/{name}"').encode()}
    yaml = YAML.replace("{grpc_transcoding: %s}", "{%s}")
    yaml %= ("/p.v1.S/*", "old", "grpc_reverse_transcoding: {protos: [x.proto]}")
    (problem,) = Reader().read({"g.yaml": yaml.encode()}, _loader(files), {}, compile_protos=COMPILER).errors
    assert "the route has to have the paths of the methods and of their rules (found '/v1/x')" in str(problem)


def test_imports_are_found_below_the_folder_that_the_package_names() -> None:
    files = {
        "protos/p/v1/x.proto": HEAD + 'import "p/v1/y.proto";\nimport "google/protobuf/timestamp.proto";\n'
        'service S { rpc M(Y) returns (Out) { option (google.api.http) = { get: "/v1/{id}" }; } }',
        "protos/p/v1/y.proto": 'syntax = "proto3"; package p.v1; /* import "z.proto"; */ message Y { string id = 1; }',
    }
    assert errors(read(files, "{protos: [protos/p/v1/x.proto]}")) == []
    elsewhere = {
        "own/a.proto": files["protos/p/v1/x.proto"],
        "lib/p/v1/y.proto": files["protos/p/v1/y.proto"],
    }
    assert "was not found" in errors(read(elsewhere, "{protos: [own/a.proto]}"))[0]
    assert (
        "is not in the folder"
        in errors(read(elsewhere, "{protos: [{file: own/a.proto, import_path: lib}]}"))[0]
    )
    beside = {
        "own/a.proto": files["protos/p/v1/x.proto"].replace("p/v1/", ""),
        "own/y.proto": files["protos/p/v1/y.proto"],
    }
    assert errors(read(beside, "{protos: [own/a.proto]}")) == []


def test_a_descriptor_set_of_protoc_is_read() -> None:
    assert errors(read({"shop.pb": DESCRIPTORS}, "{descriptors: shop.pb}")) == []


def test_the_same_content_is_compiled_once() -> None:
    compiler = ProtoCompiler()
    good, bad = {"x.proto": annotated('get: "/v1"').encode()}, {"x.proto": b"message"}
    assert compiler(good) is compiler(dict(good))
    with pytest.raises(ProtoErrors) as first:
        compiler(bad)
    with pytest.raises(ProtoErrors) as second:
        compiler(dict(bad))
    assert first.value is second.value
