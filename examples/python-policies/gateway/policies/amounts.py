"""Small transfers are allowed. Large transfers are denied with the reason."""

import json

from filters.ext_authz import Decision, Request, allow, deny

MOST = 10_000


async def small(request: Request) -> Decision:
    try:
        amount = json.loads(request.body or b"{}").get("amount", 0)
    except (ValueError, AttributeError):
        return deny(400, body={"error": "the body is not a JSON object"})
    if not isinstance(amount, int | float) or amount > MOST:
        return deny(403, body={"error": f"at most {MOST}"})
    return allow(metadata={"amount": amount})
