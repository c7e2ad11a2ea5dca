"""Gateways of any size, written as a company would: one file per team, the same text on every run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROUTES = (
    " {{path: /{team}/{name}/*, hosts: [api.example.com], upstream: {upstream}}}",
    """
    hosts: [api.example.com]
    path: /{team}/{name}/*
    methods: [GET, POST]
    upstream: {upstream}
    rewrite: {{path: /v1/*}}
    timeout: 5s""",
    """
    hosts: [api.example.com]
    path: /{team}/{name}/{{id}}
    upstream: {upstream}
    timeout: 10s
    policies:
      response_headers: {{set: {{x-team: {team}}}}}""",
    """
    hosts: ['{team}.example.com']
    path: /{name}
    methods: [GET]
    upstream: {upstream}
    retry: {{attempts: 2, on: [connect-failure, 5xx], per_try_timeout: 1s}}""",
    """
    hosts: ['{team}.example.com']
    path: /{name}/*
    headers: {{x-version: v{number}}}
    split: {{{upstream}: 90, {other}: 10}}""",
)
"""Five kinds of routes, used in turn."""

_UPSTREAM = """  {name}:
    endpoints: [10.{a}.{b}.1:8080, 10.{a}.{b}.2:8080]
    load_balancing: least_request
    health_check: {{path: /healthz, interval: 5s}}
    circuit_breaker: {{max_connections: 1000, max_requests: 1000}}
"""


def gateway(routes: int, upstreams: int, files: int) -> dict[str, str]:
    """Return texts by file name. `routes` and `upstreams` must be multiples of `files`."""
    texts = {"gateway.yaml": "listeners:\n  http: {port: 8080}\npolicies:\n  request_id: true\n"}
    for number in range(files - 1 if files > 1 else 1):
        texts[f"team-{number:03}.yaml"] = ""
    teams = [name for name in texts if name.startswith("team")]
    for number, name in enumerate(teams):
        team = name.removesuffix(".yaml")
        mine = range(number, upstreams, len(teams))
        names = [f"{team}-{position}" for position, _ in enumerate(mine)]
        text = "upstreams:\n" + "".join(_upstream(one, index) for one, index in zip(names, mine, strict=True))
        count = len(range(number, routes, len(teams)))
        texts[name] = text + "routes:\n" + "".join(_routes(team, names, count))
    return texts


def _upstream(name: str, number: int) -> str:
    return _UPSTREAM.format(name=name, a=number // 250 % 250, b=number % 250)


def _routes(team: str, upstreams: list[str], count: int) -> Iterator[str]:
    for number in range(count):
        name = f"resource-{number}"
        body = _ROUTES[number % len(_ROUTES)].format(
            team=team,
            name=name,
            number=number,
            upstream=upstreams[number % len(upstreams)],
            other=upstreams[(number + 1) % len(upstreams)],
        )
        yield f"  {team}-{name}:{body}\n"


def write(folder: Path, texts: dict[str, str]) -> None:
    """Write the files of a gateway."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
