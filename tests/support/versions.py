"""A gateway in versions, and checks that a response is that of a version which may have been served.

A response is right if it is that of a version that is not older than what was seen before the request began, and not
newer than what was written when it ended.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.identity_cases import sha256

ROUTES, KEYS = 200, 20


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the gateway: the bodies of its routes, and its valid keys."""

    number: int = 0
    bodies: dict[int, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()

    def next(self, chance: random.Random) -> Version:
        """The version after it: routes that come, go or change, and keys that come or go."""
        number, bodies = self.number + 1, dict(self.bodies)
        for at in chance.sample(range(ROUTES), 5):
            if at in bodies and chance.random() < 0.4:
                del bodies[at]
            else:
                bodies[at] = f"{at} of {number}"
        return Version(number, bodies, self.keys ^ {f"key-{chance.randrange(KEYS)}"})

    def write(self, folder: Path) -> None:
        """Write the files that change, each at once."""
        for name, text in self._files():
            replace(folder / name, text)

    def _files(self) -> Iterator[tuple[str, str]]:
        routes = [
            f"  r-{at}: {{path: /r/{at}/*, respond: {{body: {body!r}}}}}" for at, body in self.bodies.items()
        ]
        routes.append(f"  version: {{path: /version, respond: {{body: '{self.number}'}}}}")
        yield "routes.yaml", "routes:\n" + "\n".join(sorted(routes)) + "\n"
        keys = sorted({*self.keys, f"version-{self.number}"})
        listed = ", ".join(f"{{sha256: {sha256(key)}}}" for key in keys)
        yield "consumers.yaml", f"consumers: {{all: {{api_keys: [{listed}]}}}}\n"


def replace(file: Path, text: str) -> None:
    """Give a file another content, of which no reader sees a part."""
    new = file.with_name(f".{file.name}")
    new.write_text(text)
    new.rename(file)


@dataclass(slots=True)
class Observer:
    """Asks one Envoy, which serves `versions` and nothing else, and notes what no version explains.

    `failures` are the reasons for which a request that may reach an upstream may fail.
    """

    url: str
    versions: list[Version]
    failures: frozenset[str] = frozenset()
    seen: int = 0
    """The number of the version that every request sees which begins now."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def sees(self, number: int) -> bool:
        """Whether requests see this version. Raises httpx.TransportError."""
        with self.client() as client:
            key = {"x-api-key": f"version-{number}"}
            return (
                client.get("/version").text == str(number)
                and client.get("/key", headers=key).status_code == 200
            )

    def route(self, client: httpx.Client, chance: random.Random) -> None:
        """Ask for a route that comes, goes and changes."""
        at, first = chance.randrange(ROUTES), self.seen
        found = client.get(f"/r/{at}/x")
        right = {one.bodies.get(at) for one in self.versions[first:]}
        text = found.text if found.status_code == 200 else None
        self._note("route", found, text in right and found.status_code in (200, 404), right)

    def key(self, client: httpx.Client, chance: random.Random) -> None:
        """Ask with a key that comes and goes."""
        key, first = f"key-{chance.randrange(KEYS)}", self.seen
        found = client.get("/key", headers={"x-api-key": key})
        right = {200 if key in one.keys else 401 for one in self.versions[first:]}
        failed = 200 in right and _reason(found) in self.failures
        self._note("key", found, found.status_code in right or failed, right)

    def check(self, kind: str, found: httpx.Response, right: int, reasons: frozenset[str]) -> None:
        """Note a response that must have this status, or fail for one of these reasons."""
        self._note(kind, found, found.status_code == right or _reason(found) in reasons, right)

    def _note(self, kind: str, found: httpx.Response, is_right: bool, right: object) -> None:
        self.statuses[kind, found.status_code] += 1
        if not is_right:
            text = f"{found.status_code} {_reason(found)} {found.text[:200]!r}"
            self.wrong.append(f"{found.request.url}: {text}, right: {right}")


def _reason(found: httpx.Response) -> str:
    """The reason of a response that the gateway itself made, or nothing."""
    return found.headers.get("x-gateway-reason", "")
