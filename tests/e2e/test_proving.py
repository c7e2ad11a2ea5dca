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
from tests.support.running import Served
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


class Proved(Served):
    """`xds run --no-proxy --prove`, and an Envoy of the fleet."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, YAML, "--no-proxy", "--prove")
        fleet = bootstrap(xds_address=self.xds_address, node_id="fleet")
        self.envoy_of_the_fleet = Envoy(plain(fleet), root)

    def change(self, version: str, timeout: str) -> None:
        """Write another version, and an upstream that Envoy rejects if its timeout is negative."""
        write(self.folder, more=filled(BAD, timeout=timeout))
        self.write(version)

    def change_route(self, version: str, odd: str) -> None:
        """Write another version, and one more route with Envoy's fields given in its own words."""
        write(self.folder, odd=f"routes:\n  odd: {{path: /odd, upstream: one, envoy: {odd}}}\n")
        self.write(version)

    def rejections(self) -> int:
        return sum(self.envoy_of_the_fleet.stats("update_rejected").values())

    def prover(self) -> dict[str, bool]:
        found: dict[str, bool] = self.status()["prover"]
        return found


@pytest.fixture
def proved(tmp_path: Path) -> Iterator[Proved]:
    proved = Proved(tmp_path)
    proved.change("1", "-1s")
    with proved, proved.envoy_of_the_fleet:
        proved.until("1")
        yield proved


def test_what_the_prover_rejects_is_told_with_its_line_and_reaches_nobody(
    proved: Proved, capsys: pytest.CaptureFixture[str]
) -> None:
    assert proved.prover() == {"connected": True, "proved": True}
    (held,) = proved.status()["held"]
    assert (held["type"], held["name"], held["rejected_by"]) == ("cluster", "odd", "prover")
    assert held["place"].endswith("more.yaml:2:3")
    proved.says("this is the proving Envoy, and no Envoy with traffic was sent this")
    assert main(["status", "--admin", proved.admin]) == 1
    out = capsys.readouterr().out
    assert "HELD BACK, left out: cluster odd" in out
    assert "rejected by prover" in out
    assert [one["node"] for one in proved.status()["envoys"]] == ["fleet"]

    proved.change("2", "1s")
    proved.until("2")
    wait_for(lambda: not proved.status()["held"], "the mended upstream")
    assert main(["status", "--admin", proved.admin]) == 0
    proved.change("3", "-2s")
    proved.until("3")
    (held,) = wait_for(lambda: proved.status()["held"], "the new rejection")
    assert held["served_instead"]
    assert "unproved" not in proved.log
    assert proved.rejections() == 0


def test_a_bad_route_answers_503_alone_and_all_others_go_on_and_change(proved: Proved) -> None:
    good = "{route: {timeout: 3s}}"

    def held_routes() -> list[dict[str, Any]]:
        return [one for one in proved.status()["held"] if one["type"] == "route"]

    proved.change_route("2", good)
    proved.until("2")
    for version in ("3", "4"):
        proved.change_route(version, "{route: {hash_policy: [{}]}}")
        proved.until(version)
        (held,) = held_routes()
        assert (held["name"], held["answers_503"]) == ("odd", True)
        assert held["place"].endswith("odd.yaml:2:3")
        answer = proved.get("/odd")
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "route_rejected")
    proved.says("route 'odd' was rejected and answers 503")
    proved.change_route("5", good)
    proved.until("5")
    assert held_routes() == []
    assert proved.rejections() == 0


def test_many_bad_routes_at_a_fresh_start_answer_503(
    tmp_path: Path,
) -> None:
    """Each of them is reported with its line."""
    proved = Proved(tmp_path)
    bad = {
        7: "{route: {hash_policy: [{}]}}",
        40: '{route: {timeout: "-1s"}}',
        99: '{match: {safe_regex: {regex: "("}}}',
    }
    more = "".join(
        f"  r{number}: {{path: /r{number}, upstream: one, methods: [GET], envoy: {bad.get(number, '{}')}}}\n"
        for number in range(100)
    )
    write(proved.folder, more="routes:\n" + more)
    proved.write("1")
    with proved, proved.envoy_of_the_fleet:
        proved.until("1")
        held = proved.status()["held"]
        places = {one["name"]: one["place"].rpartition("/")[2] for one in held}
        assert places == {f"r{number}": f"more.yaml:{number + 2}:3" for number in bad}
        assert [one["name"] for one in held if not one["answers_503"]] == [
            "r99"
        ]  # its condition is what is bad
        with httpx.Client(base_url=proved.url) as client:
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
    proved = Proved(tmp_path)
    bad = "{route: {regex_rewrite: {pattern: {regex: '('}, substitution: x}}}"
    routes = "".join(
        f"  r{number}: {{path: /r{number}, upstream: one, envoy: {bad if number % 2 else '{}'}}}\n"
        for number in range(600)
    )
    write(proved.folder, more="routes:\n" + routes)
    proved.write("1")
    with proved, proved.envoy_of_the_fleet:
        proved.until("1")
        held = [one for one in proved.status()["held"] if one["type"] == "route"]
        assert {one["name"] for one in held} == {f"r{number}" for number in range(1, 600, 2)}
        with httpx.Client(base_url=proved.url) as client:
            reasons = [client.get(f"/r{number}").headers["x-gateway-reason"] for number in (0, 1, 598, 599)]
        assert reasons == ["upstream_unreachable", "route_rejected"] * 2


def test_a_prover_that_is_killed_comes_back_and_changes_go_on(proved: Proved) -> None:
    os.kill(proved.envoy(proving=True), signal.SIGKILL)
    proved.says("the proving Envoy ended; it is started again")
    proved.write("2")
    proved.until("2")
    wait_for(lambda: proved.prover() == {"connected": True, "proved": True}, "the prover")
    proved.change("3", "-1s")
    proved.until("3")
    assert proved.rejections() == 0


async def test_without_an_envoy_binary_serving_goes_on_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proved = Proved(tmp_path)
    proved.write("1")
    options = app.RunOptions(
        folder=proved.folder,
        envoy=None,
        proxy=False,
        prove=True,
        xds=proved.xds_address,
        admin=proved.admin,
    )
    serving = asyncio.create_task(app.serve(options))
    try:
        with proved.envoy_of_the_fleet:
            await asyncio.to_thread(proved.until, "1")
            assert await asyncio.to_thread(proved.prover) == {"connected": False, "proved": False}
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert "there is no Envoy binary to prove with" in caplog.text
