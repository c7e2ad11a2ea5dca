"""The policies, in the order in which they run."""

from typing import Any

from filters.cors import Cors
from filters.policy import Policy

POLICIES: tuple[Policy[Any], ...] = (Cors(),)
"""Position is order: in the filter chain, in `xds explain` and in the reference."""
