"""The gateway of the scale benchmark: routes of many teams, with a marker that a client finds in what it is served."""

from __future__ import annotations

from pathlib import Path

TEAMS = 10


def marker(number: int) -> str:
    """Return the text that each Envoy has after change `number`."""
    return f"scale-{number}-end"


def write(folder: Path, number: int, *, routes: int, upstreams: int) -> None:
    """Write the gateway with the marker `number`. Later calls replace only the file with the marker, at once."""
    files = {"version": f"routes:\n  version: {{path: /version, respond: {{body: {marker(number)}}}}}\n"}
    if not folder.exists():
        folder.mkdir()
        files |= {"gateway": _common(), **_teams(routes, upstreams)}
    for name, text in files.items():
        new = folder / f".{name}"
        new.write_text(text)
        new.rename(folder / f"{name}.yaml")


def _common() -> str:
    return (
        "listeners: {http: {port: 8080, address: 127.0.0.1, trusted_proxies: 1}}\n"
        "policies: {cors: {allow_origins: ['https://shop.example.com']}, compression: {}}\n"
    )


def _teams(routes: int, upstreams: int) -> dict[str, str]:
    files = {}
    for team in range(min(TEAMS, upstreams)):
        lines = ["upstreams:"]
        for one in range(team, upstreams, TEAMS):
            hosts = ", ".join(f"'10.{one // 250}.{one % 250}.{host}:8080'" for host in (1, 2, 3))
            lines.append(f"  service-{one}: {{endpoints: [{hosts}]}}")
        lines.append("routes:")
        lines += [
            f"  route-{one}: {{path: '/api/{one}/*', upstream: service-{one % upstreams}, timeout: 5s}}"
            for one in range(routes)
            if one % upstreams % TEAMS == team
        ]
        files[f"team-{team}"] = "\n".join(lines) + "\n"
    return files
