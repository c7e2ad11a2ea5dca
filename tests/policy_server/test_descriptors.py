"""Descriptor files on disk: read at once, refused with every mistake, and what the command says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.ratelimit.v3 import rls_pb2

from filters.rate_limit.descriptor_files.reader import Domain
from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.valkey import Valkey
from tests.support.wait import wait_for
from xds_server.cli.main import main
from xds_server.errors import InvalidGateway, UnreadableFolder
from xds_server.policy_server.descriptors import Following, read


def test_a_folder_is_all_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("domain: a")
    (tmp_path / "b.yml").write_text("domain: b")
    (tmp_path / "notes.txt").write_text("domain: c")
    assert set(read(tmp_path)) == {"a", "b"}
    assert set(read(tmp_path / "a.yaml")) == {"a"}


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFolder, match=r"no \.yaml file"):
        read(tmp_path)
    with pytest.raises(UnreadableFolder, match="No such file"):
        read(tmp_path / "absent.yaml")


def test_every_mistake_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("domain: a\nx: 1")
    (tmp_path / "b.yaml").write_text("descriptors: []")
    with pytest.raises(InvalidGateway) as found:
        read(tmp_path)
    assert [one.place.line for one in found.value.problems if one.place is not None] == [2, 1]


def test_changes_are_followed_and_mistakes_and_absence_keep_the_last_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, taken = tmp_path / "a.yaml", list[Mapping[str, Domain]]()
    file.write_text("domain: a")
    following = Following(file, taken.append)
    try:
        assert [set(one) for one in taken] == [{"a"}]
        file.unlink()
        wait_for(lambda: "No such file" in caplog.text, "the absence to be told")
        file.write_text("domain: a\nx: 1")
        wait_for(lambda: f"{file}:2:1: error: there is no key 'x'" in caplog.text, "the mistake to be told")
        assert len(taken) == 1
        new = tmp_path / "new"
        new.write_text("domain: b")
        new.rename(file)
        wait_for(lambda: len(taken) == 2, "the new file to be taken")
        assert set(taken[1]) == {"b"}
    finally:
        following.end()


def test_a_policy_server_does_not_begin_with_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("domain: a\nx: 1")
    assert main(["policy-server", "--workers", "1", "--xds", "none", "--descriptors", str(tmp_path)]) == 1
    assert f"{tmp_path}/a.yaml:2:1: error: there is no key 'x'" in capsys.readouterr().err


def test_a_policy_server_with_nothing_to_serve_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy-server", "--workers", "1", "--xds", "none"]) == 2
    assert "--descriptors" in capsys.readouterr().err


def test_workers_count_together_without_a_control_plane(tmp_path: Path) -> None:
    file, address = tmp_path / "a.yaml", f"127.0.0.1:{free_port()}"
    file.write_text("domain: a\ndescriptors: [{key: k, rate_limit: {unit: month, requests_per_unit: 9}}]")
    with (
        Valkey(tmp_path) as valkey,
        PolicyServerProcess(
            *("none", address, tmp_path, "--descriptors", str(file)),
            *("--workers", "2", "--counters", valkey.url),
        ) as server,
    ):
        wait_for(lambda: all(one["ready"] for one in server.status()["workers"]), "both workers")
        codes = [ask(address) for _ in range(40)]
    assert codes.count(rls_pb2.RateLimitResponse.OK) == 9


async def burst(address: str, calls: int) -> Counter[int]:
    """So many calls at once, on a few connections. Returns how often which code came."""
    request = rls_pb2.RateLimitRequest(domain="a")
    request.descriptors.add().entries.add(key="k", value="burst")
    async with AsyncExitStack() as opened:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await opened.enter_async_context(grpc.aio.insecure_channel(address, options)) for _ in range(8)
        ]
        methods: list[Any] = [
            one.unary_unary(
                "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
                request.SerializeToString,
                rls_pb2.RateLimitResponse.FromString,
            )
            for one in channels
        ]
        called = [methods[number % 8](request, timeout=60, wait_for_ready=True) for number in range(calls)]
        return Counter([int(one.overall_code) for one in await asyncio.gather(*called)])


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("counters", ["redis", "memory"])
def test_ten_thousand_calls_at_once_admit_exactly_the_limit(
    tmp_path: Path, workers: str, counters: str
) -> None:
    file, address = tmp_path / "a.yaml", f"127.0.0.1:{free_port()}"
    file.write_text("domain: a\ndescriptors: [{key: k, rate_limit: {unit: month, requests_per_unit: 10}}]")
    with (
        Valkey(tmp_path) as valkey,
        PolicyServerProcess(
            *("none", address, tmp_path, "--descriptors", str(file), "--workers", workers),
            *(("--counters", valkey.url) if counters == "redis" else ()),
            *("--counters-timeout", "60"),
        ) as server,
    ):
        if workers != "1":
            wait_for(lambda: all(one["ready"] for one in server.status()["workers"]), "both workers")
        assert asyncio.run(burst(address, 10_000)) == Counter({1: 10, 2: 9_990})


def ask(address: str) -> int:
    """One decision on a connection of its own, which the kernel gives to either worker."""
    request = rls_pb2.RateLimitRequest(domain="a")
    request.descriptors.add().entries.add(key="k", value="x")
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: Any = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
            request.SerializeToString,
            rls_pb2.RateLimitResponse.FromString,
        )
        return int(call(request, timeout=30, wait_for_ready=True).overall_code)
