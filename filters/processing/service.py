"""envoy.service.ext_proc.v3.ExternalProcessor, the service behind Envoy's ext_proc filter.

Every message is answered: with changes, with an answer to the client, or with a problem. Envoy would let a message pass
whose stream ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from filters.processing.chains import Chains, chain
from filters.processing.names import CHAIN
from filters.processing.processor import Rule
from filters.processing.responses import KINDS
from filters.processing.session import ExchangeSession
from filters.rules import RuleType, Service
from filters.streaming import StreamMethod

NAME = "envoy.service.ext_proc.v3.ExternalProcessor"
MOST_LABELS = 4096
"""Label sets of metrics that are cached."""
_CHAIN = CHAIN.encode()


class Processing:
    """The service. `clock` gives seconds. `rules` are the kinds of processors: their type, and how each is loaded."""

    def __init__(
        self,
        registry: CollectorRegistry,
        rules: Iterable[tuple[RuleType, Callable[[Any], Rule]]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.clock = clock
        self.chains = Chains(rules, clock)
        calls = Counter(
            "xds_processor_calls",
            "Calls of processors, by their method. outcome: continued (the message passed as it was), changed, "
            "responded, failed (it raised), timeout or busy.",
            ["processor", "method", "outcome"],
            registry=registry,
        )
        seconds = Histogram(
            "xds_processing_seconds",
            "Seconds that all processors of a route took for one message.",
            ["message"],
            registry=registry,
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        )
        self._calls = lru_cache(MOST_LABELS)(calls.labels)
        self._seconds = {kind: seconds.labels(kind) for kind in KINDS}

    def service(self) -> Service:
        """The gRPC service that a server mounts."""
        method = StreamMethod(path=f"/{NAME}/Process", open=self.open)
        return Service(name=NAME, streams=(method,), tables=self.chains.tables)

    def open(self, metadata: Mapping[bytes, bytes]) -> ExchangeSession:
        """The session of a new exchange. Raises RpcError."""
        return ExchangeSession(chain(metadata.get(_CHAIN, b"")), self.chains, self)

    def seen(self, processor: str, method: str, outcome: str) -> None:
        """Count a call."""
        self._calls(processor, method, outcome).inc()

    def took(self, kind: str, seconds: float) -> None:
        """Measure a message."""
        self._seconds[kind].observe(seconds)
