"""What a response may be while anything fails, and the clients that check it.

- Routes and keys are those of a version that may have been served (tests/support/versions.py), on each edge by itself.
- No request reaches the route that the policy forbids, and no token that has ended is accepted.
- The requests that a limit admits are at most the limit. After counters were lost, at most as many more as were admitted
  while they could be lost, which is what docs/reference/limits.md says of a failover.
- What fails has a named reason.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from tests.chaos.fleet import TRIAL_LIMIT
from tests.support.tokens import now, token
from tests.support.versions import Observer, Version

UPSTREAM = frozenset(
    {"no_healthy_upstream", "upstream_overflow", "upstream_reset", "upstream_timeout", "upstream_unreachable"}
)
"""Reasons for which a request that may reach the service may fail."""
POLICY_SERVER = frozenset({"ext_authz_unavailable", "ext_authz_failed"})
LIMITS = frozenset({"rate_limit_unavailable"})
PAUSE = 0.01
"""Seconds between two requests of a client."""
BEFORE, AFTER = 2.0, 5.0
"""Seconds before a fault of the counters in which what was admitted may not be replicated yet, and after it, in which a
policy server may still ask the old primary."""


@dataclass(slots=True)
class Trials:
    """Consumers that ask for more than their limit admits, one after another."""

    current: int = 0
    admitted: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When each request of a consumer was admitted."""
    rejected: Counter[int] = field(default_factory=Counter)
    lost: list[tuple[float, float]] = field(default_factory=list)
    """The times in which counters may have been lost."""

    def add(self, consumer: int, found: httpx.Response) -> None:
        if found.status_code == 429:
            self.rejected[consumer] += 1
        elif found.headers.get("x-gateway-reason") not in LIMITS:
            self.admitted[consumer].append(time.monotonic())  # also if the service failed then

    def violations(self) -> list[str]:
        """Each consumer of which too many requests were admitted."""
        return [text for one in self.admitted if (text := self._violation(one))]

    def _violation(self, consumer: int) -> str | None:
        times = self.admitted[consumer]
        more = sum(any(begin - BEFORE <= at <= end + AFTER for begin, end in self.lost) for at in times)
        if len(times) <= TRIAL_LIMIT + more:
            return None
        return f"trial-{consumer}: {len(times)} admitted, {more} of them while counters could be lost"

    @property
    def exhausted(self) -> int:
        """Consumers that reached their limit."""
        return sum(1 for one in self.rejected if self.admitted[one])

    @property
    def exceeded(self) -> int:
        """Consumers of which more than the limit was admitted."""
        return sum(len(times) > TRIAL_LIMIT for times in self.admitted.values())


@dataclass(slots=True)
class Clients:
    """Clients of one edge that check each response until `end`."""

    observer: Observer
    trials: Trials
    lost: int = 0
    """Connections that ended without a response."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _good: str = field(default_factory=lambda: _token(36_000))
    _old: str = field(default_factory=lambda: _token(-36_000))

    def start(self) -> None:
        asks = [self.observer.route, self.observer.key, self._forbidden, self._token, self._trial]
        for number, ask in enumerate(asks):
            thread = threading.Thread(target=self._run, args=(ask, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for one in self._threads:
            one.join()

    def counts(self, consumer: int) -> bool:
        """Whether the limit of a consumer is decided."""
        with self.observer.client() as client:
            return client.get("/trial", headers=self._trial_key(consumer)).status_code in (200, 429)

    def _run(self, ask: Callable[[httpx.Client, random.Random], None], number: int) -> None:
        chance = random.Random(number)
        while not self._ended.is_set():
            with self.observer.client() as client:
                try:
                    while not self._ended.wait(PAUSE):
                        ask(client, chance)
                except httpx.TransportError:
                    self.lost += 1

    def _forbidden(self, client: httpx.Client, chance: random.Random) -> None:
        operator = chance.random() < 0.2
        found = client.get("/forbidden", headers={"x-team": "operators"} if operator else {})
        reasons = UPSTREAM | POLICY_SERVER if operator else POLICY_SERVER
        self.observer.check("forbidden", found, 200 if operator else 403, reasons)

    def _token(self, client: httpx.Client, chance: random.Random) -> None:
        old = chance.random() < 0.5
        found = client.get("/token", headers={"authorization": f"Bearer {self._old if old else self._good}"})
        self.observer.check("token", found, 401 if old else 200, frozenset() if old else UPSTREAM)

    def _trial(self, client: httpx.Client, _chance: random.Random) -> None:
        consumer = self.trials.current
        found = client.get("/trial", headers=self._trial_key(consumer))
        self.trials.add(consumer, found)
        self.observer.check("trial", found, 429 if found.status_code == 429 else 200, UPSTREAM | LIMITS)

    @staticmethod
    def _trial_key(consumer: int) -> dict[str, str]:
        return {"x-api-key": f"trial-{consumer}"}


def _token(seconds: int) -> str:
    """A token that ends then. Clocks are moved by less than it is old."""
    since = now() - 72_000
    return token(iat=since, nbf=since, exp=now() + seconds)


def clients(addresses: list[str], versions: list[Version], trials: Trials) -> list[Clients]:
    """Return the clients of each edge, which share versions and trials."""
    return [Clients(Observer(f"http://{one}", versions, UPSTREAM), trials) for one in addresses]
