"""Clients in Python and TypeScript from the page of an API: one that calls a real server, and documents of which none can be made."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import npm
from tests.support.backend import Backend
from tests.support.market import Market
from tests.support.shop_portal import ShopPortal, shop_portal
from tests.support.wait import wait_for
from xds_server.catalog.entries import Document
from xds_server.errors import WrongUsage
from xds_server.marketplace.errors import Conflict
from xds_server.portal.generated_clients import FAILED, ClientsBusy, GeneratedClients, can_be_made, installed

OLD = Document(
    kind="openapi", name="x.yaml", content=b"swagger: '2.0'\ninfo: {title: x, version: '1'}\npaths: {}\n"
)
BROKEN = Document(kind="openapi", name="x.yaml", content=b"openapi: 3.1.0\ninfo: {title: x\n")
CALL = """
import sys
from orders_client import Client
from orders_client.api.default import get_order

client = Client(base_url=sys.argv[1], headers={"x-api-key": "k"}, raise_on_unexpected_status=True)
print(get_order.sync_detailed("7", client=client).status_code)
"""


def test_a_client_that_was_downloaded_calls_the_api(portal: ShopPortal, tmp_path: Path) -> None:
    assert "/apis/orders/client/python.zip" in portal.as_(None).get("/apis/orders").text
    answer = portal.as_(None).get("/apis/orders/client/python.zip")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    with Backend() as backend:
        backend.body = b'{"id": "7"}'
        command = [sys.executable, "-c", CALL, f"http://{backend.address}"]
        folder = tmp_path / "orders-client"
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("200\n", "")
    assert [one["path"] for one in backend.seen] == ["/orders/7"]
    assert portal.as_(None).get("/apis/secret/client/python.zip").status_code == 404
    assert portal.as_("eve").get("/apis/secret/client/python.zip").status_code == 404  # it has no document


TYPESCRIPT = """
import { Api } from "./client.js";
const api = new Api({ baseUrl: process.argv[2], baseApiParams: { headers: { "x-api-key": "k" } } });
const answer = await api.orders.getOrder("7");
console.log(answer.status, answer.data.id);
"""
NPM_PACKAGE = "swagger-typescript-api@13.13.0"


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of the programs of the npm package."""
    return npm.installed(NPM_PACKAGE) / "node_modules" / ".bin"


def test_a_client_in_typescript_calls_the_api(market: Market, programs: Path, tmp_path: Path) -> None:
    program = str(programs / "swagger-typescript-api")
    with shop_portal(market, tmp_path / "gateway", typescript=program) as portal:
        assert "/apis/orders/client/typescript.zip" in portal.as_(None).get("/apis/orders").text
        answer = portal.as_(None).get("/apis/orders/client/typescript.zip")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "orders-client"
    (folder / "call.mjs").write_text(TYPESCRIPT)
    (folder / "package.json").write_text('{"type": "module"}')
    compile_ = [programs / "tsc", "client.ts", "--target", "es2022", "--module", "es2022"]
    subprocess.run(compile_, cwd=folder, check=True, timeout=120)
    with Backend() as backend:
        backend.body, backend.headers = b'{"id": "7"}', {"content-type": "application/json"}
        command = ["node", "call.mjs", f"http://{backend.address}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("200 7\n", "")
    assert [one["path"] for one in backend.seen] == ["/orders/7"]
    with pytest.raises(Conflict, match="no client can be made"):
        GeneratedClients(installed(program)).zipped("typescript", "x", BROKEN)


def test_languages_without_a_generator_are_not_offered(portal: ShopPortal) -> None:
    assert "typescript" not in portal.as_(None).get("/apis/orders").text
    for language in ("typescript", "rust"):
        assert portal.as_(None).get(f"/apis/orders/client/{language}.zip").status_code == 404


def test_a_generator_that_is_not_there_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="npm install swagger-typescript-api"):
        installed("/nowhere/swagger-typescript-api")


def test_a_document_of_which_no_client_can_be_made_is_reported() -> None:
    with pytest.raises(Conflict, match="no client can be made"):
        GeneratedClients(installed()).zipped("python", "x", OLD)


class _Slow:
    """A generator that goes on when the file `go` is there, and notes how often it has begun in `begun`."""

    title = "Slow"
    _PROGRAM = "import os, sys, time\nopen(sys.argv[1] + '/begun', 'a').write('x')\nwhile not os.path.exists(sys.argv[1] + '/go'): time.sleep(0.02)\nif sys.argv[2]: os.mkdir(sys.argv[2])"

    def __init__(self, folder: Path, *, fails: bool = False) -> None:
        self._folder, self._fails = folder, fails

    def command(self, document: str, project: str) -> Sequence[str]:
        return (sys.executable, "-c", self._PROGRAM, str(self._folder), "" if self._fails else project)

    def environment(self) -> dict[str, str]:
        return {}

    @property
    def begun(self) -> int:
        file = self._folder / "begun"
        return len(file.read_text()) if file.exists() else 0


def _document(number: int) -> Document:
    return Document(kind="openapi", name="x.yaml", content=b"openapi: 3.1.0 # %d" % number)


def test_a_client_is_made_once_and_nobody_waits_for_it(tmp_path: Path) -> None:
    slow = _Slow(tmp_path)
    clients = GeneratedClients({"slow": slow})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(clients.zipped, "slow", "x", _document(1))
        wait_for(lambda: slow.begun == 1, "the first client")
        with pytest.raises(ClientsBusy):
            clients.zipped("slow", "x", _document(1))
        second = pool.submit(clients.zipped, "slow", "x", _document(2))
        wait_for(lambda: slow.begun == 2, "the second client")
        with pytest.raises(ClientsBusy):
            clients.zipped("slow", "x", _document(3))
        (tmp_path / "go").touch()
        assert first.result(60) != b""
        assert second.result(60) != b""
    assert clients.zipped("slow", "x", _document(1)) == first.result()
    assert slow.begun == 2


def test_a_failure_is_kept_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    slow, clock = _Slow(tmp_path, fails=True), [0.0]
    clients = GeneratedClients({"slow": slow}, lambda: clock[0])
    for _ in range(3):
        with pytest.raises(Conflict, match="no client can be made of this document in Slow; download"):
            clients.zipped("slow", "x", _document(1))
    assert slow.begun == 1
    clock[0] = FAILED
    with pytest.raises(Conflict):
        clients.zipped("slow", "x", _document(1))
    assert slow.begun == 2


def test_a_client_that_is_being_made_is_announced(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> bytes:
        raise ClientsBusy(10)

    monkeypatch.setattr(GeneratedClients, "zipped", busy)
    with shop_portal(market, tmp_path / "gateway") as portal:
        answer = portal.as_(None, "ko").get("/apis/orders/client/python.zip")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert "클라이언트를 만들고 있습니다" in answer.text


NEWER = b"""
openapi: 3.2.0
$self: https://example.com/x
info: {title: x, version: '1'}
tags: [{name: a, kind: nav, summary: A}]
paths:
  /orders/{id}:
    %s:
      operationId: getOrder
      tags: [a]
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
      responses: {'200': {content: {application/json: {schema: {type: object, properties: {id: {type: string}}}}}}}
"""


def test_a_client_is_made_of_what_openapi_3_1_can_say_too() -> None:
    document = Document(kind="openapi", name="x.yaml", content=NEWER % b"get")
    assert can_be_made(document)
    with zipfile.ZipFile(
        io.BytesIO(GeneratedClients(installed()).zipped("python", "x", document))
    ) as archive:
        assert "x-client/x_client/api/a/get_order.py" in archive.namelist()


def test_no_client_is_offered_of_what_only_openapi_3_2_can_say(market: Market, tmp_path: Path) -> None:
    with shop_portal(
        market, tmp_path / "gateway", files={"orders.yaml": (NEWER % b"query").decode()}
    ) as portal:
        page = portal.as_(None).get("/apis/orders").text
        assert "QUERY" in page
        assert "python.zip" not in page
        assert portal.as_(None).get("/apis/orders/client/python.zip").status_code == 404
