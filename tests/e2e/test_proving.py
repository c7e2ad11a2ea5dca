"""Proved before pushed: what Envoy refuses is told with its line, and no Envoy of the fleet is ever sent it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.envoy import Envoy
from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server import app
from xds_server.cli.main import main
from xds_server.proxy.bootstrap import bootstrap
from xds_server.translate.readable import plain

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  one: {endpoints: ["127.0.0.1:1"], health_check: {path: /health}}
  two: {endpoints: ["nowhere.invalid:1"]}
routes:
  version: {path: /version, respond: {body: "$version"}}
"""
BAD = "upstreams:\n  odd: {endpoints: [], envoy: {connect_timeout: $timeout}}\n"


class Proved:
    """`xds run --no-proxy --prove`, and an Envoy of the fleet."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.running = Running(folder, logs, "--no-proxy", "--prove")
        fleet = bootstrap(xds_address=self.running.xds_address, node_id="fleet")
        self.envoy = Envoy(plain(fleet), logs)

    def write(self, version: str, timeout: str | None = None) -> None:
        more = {} if timeout is None else {"more": filled(BAD, timeout=timeout)}
        write(self.folder, **more, gateway=filled(YAML, port=self.port, version=version))

    def write_routes(self, version: str, odd: str) -> None:
        """One more route, with Envoy's fields given in its own words."""
        routes = f"  odd: {{path: /odd, upstream: one, envoy: {odd}}}\n"
        write(self.folder, gateway=filled(YAML, port=self.port, version=version) + routes)

    def answers(self, version: str) -> bool:
        return httpx.get(f"http://127.0.0.1:{self.port}/version").text == version

    def until(self, version: str) -> None:
        wait_for(lambda: self.answers(version), lambda: f"{version}; the log:\n{self.running.log[-3000:]}")

    def rejections(self) -> int:
        return sum(self.envoy.stats("update_rejected").values())

    def prover(self) -> dict[str, bool]:
        found: dict[str, bool] = self.running.status()["prover"]
        return found


@pytest.fixture
def proved(tmp_path: Path) -> Iterator[Proved]:
    proved = Proved(tmp_path / "gateway", tmp_path)
    proved.write("1", timeout="-1s")
    with proved.running, proved.envoy:
        proved.until("1")
        yield proved


def test_what_the_prover_rejects_is_told_with_its_line_and_reaches_nobody(
    proved: Proved, capsys: pytest.CaptureFixture[str]
) -> None:
    running = proved.running
    assert proved.prover() == {"connected": True, "proved": True}
    (held,) = running.status()["held"]
    assert (held["type"], held["name"], held["rejected_by"]) == ("cluster", "odd", "prover")
    assert held["place"].endswith("more.yaml:2:3")
    running.says("this is the proving Envoy, and no other was sent it")
    assert main(["status", "--admin", running.admin]) == 1
    out = capsys.readouterr().out
    assert "HELD BACK, left out: cluster odd" in out
    assert "rejected by prover" in out
    assert [one["node"] for one in running.status()["envoys"]] == ["fleet"]

    proved.write("2", timeout="1s")
    proved.until("2")
    wait_for(lambda: not running.status()["held"], "the mended upstream")
    assert main(["status", "--admin", running.admin]) == 0
    proved.write("3", timeout="-2s")
    proved.until("3")
    (held,) = wait_for(lambda: running.status()["held"], "the new rejection")
    assert held["served_instead"]
    assert "unproved" not in running.log
    assert proved.rejections() == 0


def test_a_bad_route_answers_503_alone_and_all_others_go_on_and_change(proved: Proved) -> None:
    running, good = proved.running, "{route: {timeout: 3s}}"

    def held_routes() -> list[dict[str, Any]]:
        return [one for one in running.status()["held"] if one["type"] == "route"]

    proved.write_routes("2", good)
    proved.until("2")
    for version in ("3", "4"):
        proved.write_routes(version, "{route: {hash_policy: [{}]}}")
        proved.until(version)
        (held,) = held_routes()
        assert (held["name"], held["answers_503"]) == ("odd", True)
        assert held["place"].endswith("gateway.yaml:8:3")
        answer = httpx.get(f"http://127.0.0.1:{proved.port}/odd")
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "route_rejected")
    running.says("route 'odd' was rejected by node=prover and answers 503")
    proved.write_routes("5", good)
    proved.until("5")
    assert held_routes() == []
    assert proved.rejections() == 0


def test_many_bad_routes_at_a_fresh_start_answer_503(
    tmp_path: Path,
) -> None:
    """Each of them is reported with its line."""
    proved = Proved(tmp_path / "gateway", tmp_path)
    bad = {
        7: "{route: {hash_policy: [{}]}}",
        40: '{route: {timeout: "-1s"}}',
        99: '{match: {safe_regex: {regex: "("}}}',
    }
    more = "".join(
        f"  r{number}: {{path: /r{number}, upstream: one, methods: [GET], envoy: {bad.get(number, '{}')}}}\n"
        for number in range(100)
    )
    write(proved.folder, gateway=filled(YAML, port=proved.port, version="1"), more="routes:\n" + more)
    with proved.running, proved.envoy:
        proved.until("1")
        held = proved.running.status()["held"]
        places = {one["name"]: one["place"].rpartition("/")[2] for one in held}
        assert places == {f"r{number}": f"more.yaml:{number + 2}:3" for number in bad}
        assert [one["name"] for one in held if not one["answers_503"]] == [
            "r99"
        ]  # its condition is what is bad
        with httpx.Client(base_url=f"http://127.0.0.1:{proved.port}") as client:
            reasons = {
                number: client.get(f"/r{number}").headers["x-gateway-reason"] for number in (6, 7, 8, 40)
            }
        assert reasons == {
            6: "upstream_unreachable",
            7: "route_rejected",
            8: "upstream_unreachable",
            40: "route_rejected",
        }
        assert proved.rejections() == 0


def test_very_many_routes_with_one_bad_part_are_found_at_once(tmp_path: Path) -> None:
    proved = Proved(tmp_path / "gateway", tmp_path)
    bad = "{route: {regex_rewrite: {pattern: {regex: '('}, substitution: x}}}"
    routes = "".join(
        f"  r{number}: {{path: /r{number}, upstream: one, envoy: {bad if number % 2 else '{}'}}}\n"
        for number in range(600)
    )
    write(proved.folder, gateway=filled(YAML, port=proved.port, version="1"), more="routes:\n" + routes)
    with proved.running, proved.envoy:
        proved.until("1")
        held = [one for one in proved.running.status()["held"] if one["type"] == "route"]
        assert {one["name"] for one in held} == {f"r{number}" for number in range(1, 600, 2)}
        with httpx.Client(base_url=f"http://127.0.0.1:{proved.port}") as client:
            reasons = [client.get(f"/r{number}").headers["x-gateway-reason"] for number in (0, 1, 598, 599)]
        assert reasons == ["upstream_unreachable", "route_rejected"] * 2


def test_a_prover_that_is_killed_comes_back_and_changes_go_on(proved: Proved) -> None:
    os.kill(proved.running.envoy(proving=True), signal.SIGKILL)
    proved.running.says("the proving Envoy ended; it is started again")
    proved.write("2")
    proved.until("2")
    wait_for(lambda: proved.prover() == {"connected": True, "proved": True}, "the prover")
    proved.write("3", timeout="-1s")
    proved.until("3")
    assert proved.rejections() == 0


async def test_without_an_envoy_binary_serving_goes_on_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proved = Proved(tmp_path / "gateway", tmp_path)
    proved.write("1")
    options = app.Options(
        folder=proved.folder,
        envoy=None,
        proxy=False,
        prove=True,
        xds=proved.running.xds_address,
        admin=proved.running.admin,
    )
    serving = asyncio.create_task(app.serve(options))
    try:
        with proved.envoy:
            await asyncio.to_thread(wait_for, lambda: proved.answers("1"), "an answer")
            assert await asyncio.to_thread(proved.prover) == {"connected": False, "proved": False}
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert "there is no Envoy binary to prove with" in caplog.text
