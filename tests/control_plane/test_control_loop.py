"""Whatever goes wrong while a change is read, what is served goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.wait import eventually
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.control_plane.control_loop import ControlLoop
from xds_server.sources.directory import Directory
from xds_server.sources.folder import Folder

GOOD = "listeners: {http: {port: 8080}}\nroutes: {ping: {path: /ping, respond: {body: pong}}}\n"


class Faulty(Compiler):
    """A compiler with a fault that some gateways show."""

    def compile(self, folder: Folder) -> Compiled:
        if b"fault" in folder.files["gateway.yaml"]:
            raise RuntimeError("nobody foresaw this")
        return super().compile(folder)


async def test_a_fault_of_ours_is_reported_and_changes_are_followed_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD)
    published: asyncio.Queue[Compiled] = asyncio.Queue()
    control = ControlLoop(Directory(tmp_path), Faulty({}), published.put)
    following = asyncio.create_task(control.run())
    try:
        async with asyncio.timeout(30):
            await published.get()
            file.write_text(GOOD + "# fault\n")
            await eventually(lambda: control.serving.unreadable, "the report")
            assert "nobody foresaw this" in control.serving.unreadable
            assert control.serving.something
            assert "this is a fault of xds, please report it" in caplog.text
            file.write_text(GOOD.replace("pong", "again"))
            await published.get()
            assert control.serving.healthy
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
