"""headers"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from filters.language import option

_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutation:
    """Headers."""

    set: Mapping[str, str] = option("Set.", default=_EMPTY)
    add: Mapping[str, str] = option("Add.", default=_EMPTY)
    remove: tuple[str, ...] = option("Remove.", default=())
