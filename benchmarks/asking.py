"""The cost for Envoy of a call to the policy server, by socket and by the number of headers that it sends.

It measures the processor time of Envoy and of the policy server for one request. All variants take turns in one run,
and the minimum of several rounds is printed, because other work only adds to it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import get, measure
from benchmarks.unary_server import KEY, POLICY
from tests.support.policy_server import Stack
from tests.support.wait import wait_for

ROUNDS, SECONDS = 4, 1.0
FEW = {"x_api_key": KEY, "user_agent": "benchmark", "accept": "*/*"}
BROWSER = {
    **FEW,
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "accept_language": "en-US,en;q=0.5",
    "accept_encoding": "gzip, deflate, br, zstd",
    "referer": "https://shop.example.com/products/42?variant=blue",
    "cookie": "session=0123456789abcdef0123456789abcdef; theme=dark; consent=1; _ga=GA1.2.123456789.1234567890",
    "sec_fetch_dest": "document",
    "sec_fetch_mode": "navigate",
    "sec_fetch_site": "same-origin",
    "sec_ch_ua": '"Chromium";v="140"',
    "sec_ch_ua_platform": "Linux",
    "upgrade_insecure_requests": "1",
    "priority": "u=0, i",
    "cache_control": "no-cache",
}
ROUTES = {
    "no call": "",
    "all headers": 'ext_authz: {python: "p.py:check", timeout: 1s}',
    "headers: [x-api-key]": 'ext_authz: {python: "p.py:check", timeout: 1s, headers: [x-api-key]}',
}
SOCKETS = {"TCP": True, "Unix socket": False}
Case = tuple[str, str, str]


def _gateway(port: int) -> str:
    routes = "".join(
        f"  r{number}: {{path: /r{number}, respond: {{body: ok}}, policies: {{{settings}}}}}\n"
        for number, settings in enumerate(ROUTES.values())
    )
    return f"listeners: {{http: {{port: {port}}}}}\nroutes:\n{routes}"


def _stack(around: ExitStack, tcp: bool) -> Stack:
    folder = Path(around.enter_context(tempfile.TemporaryDirectory()))
    (folder / "p.py").write_text(POLICY)
    stack = Stack(folder, tcp=tcp)
    (folder / "gateway.yaml").write_text(_gateway(stack.listener))
    around.enter_context(stack)
    for path in ("/r1", "/r2"):
        wait_for(lambda path=path: stack.get(path, headers={"x-api-key": KEY}).status_code == 200, path)
    return stack


def _turn(socket: str, stack: Stack) -> Iterator[tuple[Case, tuple[float, float]]]:
    assert stack.envoy.process is not None
    assert stack.policy_server.process is not None
    for number, route in enumerate(ROUTES):
        for name, sent in {"3": FEW, "16": BROWSER}.items():
            requests = [get(f"/r{number}", **sent)]
            spent = [
                measure(stack.listener, requests, process.pid, seconds=SECONDS).cpu_microseconds
                for process in (stack.envoy.process, stack.policy_server.process)
            ]
            yield (socket, name, route), (spent[0], spent[1])


def main() -> None:
    """Print a Markdown table."""
    least: dict[Case, tuple[float, float]] = {}
    with ExitStack() as around:
        stacks = {name: _stack(around, tcp) for name, tcp in SOCKETS.items()}
        for _ in range(ROUNDS):
            for name, stack in stacks.items():
                for case, spent in _turn(name, stack):
                    before = least.get(case, spent)
                    least[case] = min(before[0], spent[0]), min(before[1], spent[1])
    print(
        "| | headers of the request | what the policy server gets | CPU of Envoy each | CPU of the policy server each |"
    )
    print("|---|---|---|---|---|")
    for (socket, count, route), (envoy, server) in sorted(least.items()):
        print(f"| {socket} | {count} | {route} | {envoy:.0f} µs | {server:.0f} µs |")


if __name__ == "__main__":
    main()
