"""Gateways that were imported, through a real Envoy: requests are routed, changed and rejected as their sources say."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import crossplane
import httpx

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from xds_server.imports.kinds import FILE, NGINX, import_files

KONG = """
_format_version: "3.0"
services:
  - name: orders
    url: http://$echo/v2
    routes:
      - {name: orders, paths: [/orders], methods: [GET]}
      - {name: kept, paths: [/kept], strip_path: false, preserve_host: true, hosts: [kept.example.com]}
      - {name: regex, paths: ["~/things/\\\\d+$"], strip_path: false}
      - name: staff
        paths: [/staff]
        plugins: [{name: acl, config: {allow: [staff]}}]
      - name: two-ways
        paths: [/two-ways]
        plugins: [{name: basic-auth}]
      - name: tokens
        paths: [/tokens]
        plugins: [{name: oauth2}]
    plugins: [{name: key-auth, config: {hide_credentials: true}}]
  - name: open
    url: http://$echo
    routes:
      - name: limited
        paths: [/limited]
        plugins:
          - {name: rate-limiting, config: {hour: 2, limit_by: ip}}
          - {name: request-transformer, config: {add: {headers: ["x-added:50%"]}, remove: {headers: [x-secret]}}}
      - {name: stopped, paths: [/stopped], plugins: [{name: request-termination, config: {status_code: 410, message: gone}}]}
consumers:
  - {username: alice, keyauth_credentials: [{key: key-of-alice}], acls: [{group: staff}]}
  - {username: bob, keyauth_credentials: [{key: key-of-bob}],
     basicauth_credentials: [{username: bob, password: a-password-that-was-generated}]}
"""
TRAEFIK = """
http:
  routers:
    api: {rule: "PathPrefix(`/api`) && Method(`GET`, `POST`)", service: app, middlewares: [strip]}
    both: {rule: "Host(`a.example.com`) || (Path(`/exact`) && !Header(`x-off`, `1`))", service: app, middlewares: [added]}
    secure: {rule: "Path(`/secure`)", service: app, middlewares: [to-https]}
    guarded: {rule: "Path(`/guarded`)", service: app, middlewares: [forward]}
  services: {app: {loadBalancer: {servers: [{url: "http://$echo"}]}}}
  middlewares:
    strip: {stripPrefix: {prefixes: [/api]}}
    added: {addPrefix: {prefix: /base}}
    to-https: {redirectScheme: {scheme: https, permanent: true}}
    forward: {forwardAuth: {address: "http://127.0.0.1:1/auth"}}
"""
OPENAPI = """
openapi: 3.1.0
info: {title: Orders, version: "1"}
servers: [{url: "http://$echo/v1"}]
paths:
  /orders/{order-id}:
    parameters: [{name: order-id, in: path, required: true, schema: {type: integer}}]
    get: {operationId: read, responses: {"200": {description: one}}}
    put:
      operationId: write
      security: [{key: []}]
      requestBody: {required: true, content: {application/json: {schema: {type: object, required: [sku]}}}}
      responses: {"200": {description: one}}
components: {securitySchemes: {key: {type: apiKey, in: header, name: x-key}}}
"""
APISIX = """
routes:
  - {id: posts, uris: [/posts, "/posts/*", "/authors/:name"], methods: [GET], upstream_id: blog, plugins: {key-auth: {header: X-Key}},
     vars: [["arg_page", "~~", "^[0-9]+$"]]}
  - {id: fixed, uri: /raw*, upstream_id: blog, plugins: {proxy-rewrite: {uri: /index.html, headers: {set: {X-From: apisix}}}}}
  - {id: closed, uri: /private, upstream_id: blog, plugins: {jwt-auth: {}}}
  - {id: limited, uris: [/a, /b], upstream_id: blog, plugins: {limit-count: {count: 2, time_window: 3600, policy: redis}}}
upstreams: [{id: blog, nodes: {"$echo": 1}}]
consumers: [{username: jane, plugins: {key-auth: {key: key-of-jane}}}]
"""
NGINX_CONF = """
events {}
http {
    upstream shop { server $echo; }
    server {
        listen 8080;
        location / { proxy_pass http://shop; proxy_set_header Host $host; }
        location /api/ { proxy_pass http://shop/v1/; proxy_set_header X-Real-IP $remote_addr; add_header X-Served yes; }
        location /slow/2/ { limit_req zone=few; proxy_pass http://shop; }
        location = /ping { return 200 "pong"; }
        location ~ ^/items/[0-9]+$ { return 302 https://items.example.com$request_uri; }
        location /inner/ { allow 192.0.2.0/24; deny all; proxy_pass http://shop; }
        location /odd/ { if ($http_x_old) { return 403; } proxy_pass http://shop; }
        location /from-within/ { internal; proxy_pass http://shop; }
        location /outer/ { auth_request /auth; location /outer/nested/ { proxy_pass http://shop; } }
        location /slow/ { limit_req zone=few; proxy_pass http://shop; }
    }
    limit_req_zone $binary_remote_addr zone=few:1m rate=2r/m;
}
"""


def started(stacks: Stacks, backend: Backend, kind: str, text: str, folder: Path = Path()) -> Stack:
    content = text.replace("$echo", backend.address).encode()
    if kind == NGINX:
        (folder / "nginx.conf").write_bytes(content)
        content = json.dumps(crossplane.parse(str(folder / "nginx.conf"), combine=True)).encode()
    files = import_files(kind, {"source.yaml": content}).files
    gateway = re.sub(
        r"port: \d+\}", "port: $port, address: 127.0.0.1}", files[FILE].decode().replace("$", "$$"), count=1
    )
    return stacks.start(gateway, files={name: one.decode() for name, one in files.items() if name != FILE})


def test_a_gateway_of_kong(stacks: Stacks, backend: Backend) -> None:
    stack = started(stacks, backend, "kong", KONG)

    def get(path: str, key: str = "", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return stack.get(path, headers={**named, **({"apikey": key} if key else {})})

    alice, bob = "key-of-alice", "key-of-bob"
    answer = get("/orders/7", alice)
    assert (answer.status_code, answer.json()["path"]) == (200, "/v2/7")
    assert answer.json()["headers"]["host"] == backend.address
    assert "apikey" not in answer.json()["headers"]
    forged = get("/orders/7", alice, x_consumer_username="admin").json()["headers"]
    assert "x-consumer-username" not in forged
    assert [
        get("/orders").status_code,
        get("/orders", "wrong").status_code,
        get("/ordersx").status_code,  # Kong's prefix has this path too
        get("/ordersx", alice).status_code,
    ] == [401, 401, 401, 200]
    kept = get("/kept/x", bob, host="kept.example.com").json()
    assert (kept["path"], kept["headers"]["host"]) == ("/v2/kept/x", "kept.example.com")
    assert get("/things/12", bob).json()["path"] == "/v2/things/12"
    assert get("/things/x", bob).status_code == 404
    assert [get("/staff", alice).status_code, get("/staff", bob).status_code] == [200, 403]
    password = {"authorization": "Basic " + base64.b64encode(b"bob:a-password-that-was-generated").decode()}
    assert [
        get("/two-ways", bob, **password).status_code,
        get("/two-ways", bob).status_code,
        get("/two-ways", **password).status_code,
    ] == [200, 401, 401]
    assert [get("/tokens", alice).status_code, get("/tokens").status_code] == [403, 403]
    limited = get("/limited", x_secret="1").json()["headers"]
    assert limited["x-added"] == "50%"
    assert "x-secret" not in limited
    assert [get("/limited").status_code for _ in range(2)] == [200, 429]
    stopped = get("/stopped")
    assert (stopped.status_code, stopped.json()) == (410, {"message": "gone"})


def test_a_gateway_of_traefik(stacks: Stacks, backend: Backend) -> None:
    stack = started(stacks, backend, "traefik", TRAEFIK)
    assert stack.get("/api/users").json()["path"] == "/users"
    assert stack.get("/anything", headers={"host": "a.example.com"}).json()["path"] == "/base/anything"
    assert stack.get("/exact").json()["path"] == "/base/exact"
    assert stack.get("/exact", headers={"x-off": "1"}).status_code == 404
    secure = stack.get("/secure", headers={"host": "s.example.com"})
    assert (secure.status_code, secure.headers["location"]) == (301, "https://s.example.com/secure")
    assert stack.get("/guarded").status_code == 403


def test_a_gateway_of_an_openapi_document(stacks: Stacks, backend: Backend) -> None:
    stack = started(stacks, backend, "openapi", OPENAPI)
    assert stack.get("/v1/orders/7").json()["path"] == "/v1/orders/7"
    assert stack.get("/v1/orders/x").status_code == 400
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        assert client.put("/v1/orders/7", json={"sku": "a"}).status_code == 401
        assert client.post("/v1/orders/7", json={}).status_code == 405


def test_a_gateway_of_apisix(stacks: Stacks, backend: Backend) -> None:
    stack = started(stacks, backend, "apisix", APISIX)
    key = {"x-key": "key-of-jane"}
    for path in ("/posts?page=1", "/posts/7?page=1", "/authors/ann?page=1"):
        assert stack.get(path, headers=key).json()["path"] == path
    assert [stack.get("/posts?page=1").status_code, stack.get("/posts?page=x", headers=key).status_code] == [
        401,
        404,
    ]
    fixed = stack.get("/rawest").json()
    assert (fixed["path"], fixed["headers"]["x-from"]) == ("/index.html", "apisix")
    assert stack.get("/private", headers=key).status_code == 403
    assert [stack.get(path).status_code for path in ("/a", "/b", "/a", "/b")] == [200, 200, 429, 429]


def test_a_gateway_of_nginx(stacks: Stacks, backend: Backend, tmp_path: Path) -> None:
    stack = started(stacks, backend, NGINX, NGINX_CONF, tmp_path)
    assert stack.get("/x", headers={"host": "a.example.com"}).json()["headers"]["host"] == "a.example.com"
    api = stack.get("/api/users")
    assert (api.json()["path"], api.headers["x-served"]) == ("/v1/users", "yes")
    assert api.json()["headers"]["x-real-ip"] == "127.0.0.1"
    assert api.json()["headers"]["host"] == "shop"
    assert stack.get("/ping").text == "pong"
    items = stack.get("/items/7?a=1")
    assert (items.status_code, items.headers["location"]) == (302, "https://items.example.com/items/7?a=1")
    assert [stack.get("/inner/x").status_code, stack.get("/odd/x").status_code] == [403, 403]
    assert [stack.get(f"/{path}/x").status_code for path in ("from-within", "outer", "outer/nested")] == [
        404,
        403,
        403,
    ]
    assert [stack.get(path).status_code for path in ("/slow/x", "/slow/2/x", "/slow/x")] == [200, 200, 429]


PREFERRED_BY_KONG = """
_format_version: "3.0"
services:
  - name: s
    url: http://$echo
    routes:
      - {name: a, paths: [/a], strip_path: false, plugins: [{name: ip-restriction, config: {allow: [127.0.0.0/8]}}]}
      - {name: ab, paths: [/ab], strip_path: false, plugins: [{name: key-auth}]}
      - {name: long, paths: [/m/long]}
      - {name: shut, paths: [/m], methods: [POST], plugins: [{name: key-auth}]}
      - {name: narrow, paths: [/h/n]}
      - {name: with-host, hosts: [a.example.com], paths: [/h], plugins: [{name: key-auth}]}
"""
PREFERRED_BY_NGINX = """
events {}
http {
    server {
        listen 8080;
        location ~ ^/z/ { deny all; proxy_pass http://$echo; }
        location ~ ^/z/longer { proxy_pass http://$echo; }
        location ^~ /files/ { deny all; proxy_pass http://$echo; }
        location ~ \\.png$ { proxy_pass http://$echo; }
        location / { proxy_pass http://$echo; }
    }
}
"""


def test_the_route_that_kong_prefers_has_the_request(stacks: Stacks, backend: Backend) -> None:
    stack = started(stacks, backend, "kong", PREFERRED_BY_KONG)
    found = [stack.get(path).status_code for path in ("/a/x", "/ax", "/ab/x", "/abx", "/m/long", "/h/n")]
    assert found == [200, 200, 401, 401, 200, 200]
    assert stack.get("/h/n", headers={"host": "a.example.com"}).status_code == 401
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        assert client.post("/m/long").status_code == 401


def test_the_location_that_nginx_prefers_has_the_request(
    stacks: Stacks, backend: Backend, tmp_path: Path
) -> None:
    stack = started(stacks, backend, NGINX, PREFERRED_BY_NGINX, tmp_path)
    paths = ("/z/x", "/z/longer/x", "/files/x.png", "/files/x", "/x.png", "/x")
    assert [stack.get(path).status_code for path in paths] == [403, 403, 403, 403, 200, 200]
