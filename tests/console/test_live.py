"""The sampling of Envoy for the console."""

from __future__ import annotations

import socket

import pytest

from xds_server.console.live import PAUSE, Live


def test_a_silent_envoy_is_not_asked_again_for_a_while() -> None:
    now = began = 100.0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        live = Live(silent.getsockname, clock=lambda: now)
        assert live.page("/clusters") is None
        silent.accept()[0].close()
        now = began + PAUSE - 1
        assert live.page("/clusters") is None
        now = began + PAUSE
        assert live.page("/clusters") is None
        silent.accept()[0].close()
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):  # it was asked once more only
            silent.accept()
