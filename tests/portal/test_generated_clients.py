"""Clients in Python from the page of an API: one that calls a real server, and documents of which none can be made."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.backend import Backend
from tests.support.shop_portal import ShopPortal
from xds_server.catalog.entries import Document
from xds_server.marketplace.errors import Conflict
from xds_server.portal.generated_clients import PythonClients

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


def test_a_document_of_which_no_client_can_be_made_is_reported() -> None:
    document = Document(
        kind="openapi", name="x.yaml", content=b"swagger: '2.0'\ninfo: {title: x, version: '1'}\npaths: {}\n"
    )
    with pytest.raises(Conflict, match="no client can be made"):
        PythonClients().zipped("x", document)
