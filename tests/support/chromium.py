"""Chromium for tests: one page at a time, driven by the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.support.wait import wait_for

BINARY = shutil.which("chromium") or shutil.which("chromium-browser")
"""None if there is no Chromium; `make setup` installs Debian's."""


class Chromium:
    """A browser without a window. Use as a context manager."""

    def __init__(self, width: int = 1400, height: int = 900, *, dark: bool = False) -> None:
        assert BINARY is not None
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        dark_flags = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0") if dark else ()
        self._command = [
            *(BINARY, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"),
            *("--remote-allow-origins=*", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage"),
            *(
                f"--window-size={width},{height}",
                f"--user-data-dir={self._folder.name}",
                *dark_flags,
                "about:blank",
            ),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: ClientConnection | None = None
        self._number = 0
        self._open = ExitStack()
        self.faults: list[str] = []
        """Errors of the page's scripts, and requests that failed."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = Path(self._folder.name) / "DevToolsActivePort"
        wait_for(
            lambda: "\n" in port_file.read_text(), "Chromium's port"
        )  # Chromium creates it, then writes it.
        port = port_file.read_text().splitlines()[0]
        pages = wait_for(
            lambda: [
                one for one in httpx.get(f"http://127.0.0.1:{port}/json").json() if one["type"] == "page"
            ],
            "a page",
        )
        self._socket = self._open.enter_context(connect(pages[0]["webSocketDebuggerUrl"], max_size=None))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        self._folder.cleanup()

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol. Raises AssertionError if it fails."""
        assert self._socket is not None
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._notice(message)

    def _notice(self, event: Any) -> None:
        if event["method"] == "Runtime.exceptionThrown":
            self.faults.append(event["params"]["exceptionDetails"]["text"])
        elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.faults.append(event["params"]["entry"]["text"])

    def open(self, url: str) -> None:
        """Go to an address and wait until its page is complete."""
        self.call("Page.navigate", url=url)
        wait_for(
            lambda: (
                self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank"
            ),
            url,
        )

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self.call("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        """Save what the window shows, as PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))
