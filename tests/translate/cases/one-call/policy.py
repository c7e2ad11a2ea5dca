"""A policy that lets everything pass."""

from filters.ext_authz import Decision, Request, allow


def check(request: Request) -> Decision:
    """Let it pass."""
    return allow()
