"""The services of a policy server, each with the rules that it needs."""

from __future__ import annotations

from collections.abc import Callable

from filters.rules import Service

SERVICES: tuple[Callable[[], Service], ...] = ()
"""A literal, as the policies are: each makes one service."""
