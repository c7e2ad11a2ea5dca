"""The results of tests, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from xds_server.testing.comparison import Difference, Outcome
from xds_server.testing.reader import Exchange, GatewayTest

_TELLING = 6
"""A text with fewer characters may be in a report by chance, without being the variable's value."""


def without_variables(variables: Iterable[tuple[str, str]], value: Any) -> Any:
    """Return a text, or data with texts, without values of environment variables, which may be secret."""
    if isinstance(value, dict):
        return {name: without_variables(variables, one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_variables(variables, one) for one in value]
    if isinstance(value, str):
        for text, written in variables:
            value = value.replace(text, written) if len(text) >= _TELLING else value
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The first request of a test whose outcome was not as expected."""

    exchange: Exchange
    repetition: int
    outcome: Outcome
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a test; it passed if there is no failure. `variables` are texts that no report may have, and how they
    are written.
    """

    test: GatewayTest
    seconds: float
    failure: Failure | None = None
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)


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
