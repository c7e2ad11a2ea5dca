"""The results of tests, as data."""

from __future__ import annotations

from dataclasses import dataclass

from xds_server.testing.comparison import Difference, Outcome
from xds_server.testing.reader import Exchange, GatewayTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The first request of a test whose outcome was not as expected."""

    exchange: Exchange
    repetition: int
    outcome: Outcome
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a test; it passed if there is no failure."""

    test: GatewayTest
    seconds: float
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of all tests. `warnings` are those of the policy server; `seconds` is the time that all took."""

    tests: tuple[Result, ...]
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """The number of failed tests."""
        return sum(one.failure is not None for one in self.tests)
