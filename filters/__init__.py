"""The policies, in the order in which they run."""

from typing import Any

from filters.cors import Cors
from filters.jwt import Jwt
from filters.policy import Policy

POLICIES: tuple[Policy[Any], ...] = (Cors(), Jwt())
"""Position is order: in the filter chain, in `xds explain` and in the reference."""
