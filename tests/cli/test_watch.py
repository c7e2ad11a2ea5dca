"""xds watch against a real server: what it prints, and what the server makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.resources import gateway
from tests.support.wait import wait_for
from tests.support.xds import XdsThread
from xds_server.cli.main import main
from xds_server.serving.events import Connected, Nacked


@pytest.fixture
def xds() -> Iterator[XdsThread]:
    with XdsThread() as server:
        server.publish(gateway(["a", "b"], {"/": "a"}))
        yield server


@pytest.mark.parametrize("delta", [[], ["--delta"]], ids=["sotw", "delta"])
def test_everything_of_a_type_is_shown(
    xds: XdsThread, delta: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", "cds", "--once", "--xds", f"127.0.0.1:{xds.port}", *delta]) == 0
    printed = capsys.readouterr().out
    assert "+ a " in printed
    assert "+ b " in printed


@pytest.mark.parametrize("delta", [[], ["--delta"]], ids=["sotw", "delta"])
def test_named_resources_are_shown_as_json(
    xds: XdsThread, delta: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = ["--xds", f"127.0.0.1:{xds.port}", "--node-id", "me"]
    assert main(["watch", "endpoint", "b", "--once", "--output", "json", *server, *delta]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["resource"]["cluster_name"] for one in found["resources"]] == ["b"]
    assert xds.seen(Connected)[0].node.id == "me"


def test_a_resource_is_shown_with_the_messages_inside(xds: XdsThread) -> None:
    words = ["watch", "listener", "--once", "--output", "json", "--xds", f"127.0.0.1:{xds.port}"]
    # a process of its own, because the tests have imported every type
    command = [sys.executable, "-m", "xds_server", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (found,) = json.loads(done.stdout)["resources"]
    (chain,) = found["resource"]["filter_chains"]
    assert chain["filters"][0]["typed_config"]["rds"]["route_config_name"] == "http"


def test_the_server_is_rejected_where_asked_for(xds: XdsThread) -> None:
    assert main(["watch", "cds", "--nack", "--once", "--xds", f"127.0.0.1:{xds.port}"]) == 0
    rejection = wait_for(lambda: xds.seen(Nacked), "the rejection")[0]
    assert rejection.message == "rejected by xds watch --nack"


def test_an_unknown_type_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "clutser"]) == 2
    assert "known: cluster" in capsys.readouterr().err


def test_no_server_is_a_failed_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "cds", "--xds", "unix:/nonexistent"]) == 3
    assert "UNAVAILABLE" in capsys.readouterr().err
