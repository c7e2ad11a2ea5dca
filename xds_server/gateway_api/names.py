"""Names of the gateway language for objects of Kubernetes, whose names may be longer and repeat across namespaces."""

from __future__ import annotations

import hashlib

LONGEST = 128
"""Characters of a name in the gateway language."""
_KEPT = LONGEST - 17


def of(*parts: str) -> str:
    """Return the name for an object or a part of it, such as ``shop.orders.000``.

    A name that would be too long ends with a hash of the whole.
    """
    name = ".".join(parts)
    if len(name) <= LONGEST:
        return name
    return f"{name[:_KEPT].rstrip('.-')}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"
