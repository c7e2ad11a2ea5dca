"""Keys and passwords that a source has as they are. A reference to a secret elsewhere is none of them."""

from __future__ import annotations

import hashlib
import re

from xds_server.imports.draft import Draft, Written

_REFERENCE = re.compile(r"\{vault://.*|.*\$\{\{?.*|\$(env|secret|ENV|SECRET)://.*", re.DOTALL)
"""References of Kong (vaults), decK (environment), APISIX (environment, secrets) and ADC (environment)."""


def hashed(draft: Draft, field: Written, text: str) -> str | None:
    """Return the SHA-256 of a key or password. Report one that is empty or a reference, and return None."""
    if text and not _REFERENCE.fullmatch(text):
        return hashlib.sha256(text.encode()).hexdigest()
    what = "a reference to a secret elsewhere" if text else "empty"
    draft.insecure(
        field,
        f"the credential is {what}, so it is not imported",
        "write the SHA-256 of the real key at the consumer",
    )
    return None
