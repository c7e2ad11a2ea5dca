"""The JSON of answers and events of upstreams."""

from __future__ import annotations

from typing import Any

import jiter


def decoded(content: bytes) -> Any:
    """The value of a JSON text. Raises ValueError. A number such as 1e999 is infinite: `json_scalars` rejects it in a field."""
    return jiter.from_json(content, allow_inf_nan=False, cache_mode="keys")
