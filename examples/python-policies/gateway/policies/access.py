"""Every caller may read; only operators may write."""

from filters.ext_authz import Decision, Request, allow, deny


def operators_write(request: Request) -> Decision:
    if request.method not in ("GET", "HEAD") and request.headers.get("x-team") != "ops":
        return deny(403, body="writing is for operators\n")
    return allow(headers={"x-checked-by": "access"})
