"""Extensions of AWS API Gateway that protect a whole API or an operation, and answers of its mock integrations.

Source: AWS API Gateway, "API Gateway extensions to OpenAPI" (x-amazon-apigateway-*).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xds_server.imports.draft import Draft
from xds_server.imports.source import Field

_REMEDY = "write ip_access, or another policy that says it, in the place of this one"
_HEADER = "method.response.header."


def protects_api(root: Field, draft: Draft) -> bool:
    """Whether a policy or a private endpoint keeps callers away from all operations. Reports it."""
    found = []
    policy = root.get("x-amazon-apigateway-policy")
    if policy is not None:
        statements = policy.elements("Statement")
        policy.read()
        if not statements or not all(map(_allows_everybody, statements)):
            found.append((policy, "the resource policy"))
    types = root.get("x-amazon-apigateway-endpoint-configuration", "types")
    if types is not None and "PRIVATE" in root.texts("x-amazon-apigateway-endpoint-configuration", "types"):
        found.append((types, "a private endpoint"))
    for field, what in found:
        draft.insecure(field, f"{what} has no equal, so all routes of the document are closed", _REMEDY)
    return bool(found)


def protects_operation(owners: tuple[Field, ...], draft: Draft) -> bool:
    """Whether an operation or its path wants signatures of AWS. Reports it."""
    for owner in owners:
        auth = owner.get("x-amazon-apigateway-auth")
        if auth is None:
            continue
        if auth.text("type").upper() == "NONE":
            return False
        auth.read()
        draft.insecure(auth, "signatures of AWS (IAM) have no equal, so the route is closed", _REMEDY)
        return True
    return False


def mock(amazon: Field) -> dict[str, Any]:
    """Return the action and the response headers of a mock integration: those of its only response, or of the default one."""
    responses = amazon.get("responses")
    each = dict(responses.items()) if responses is not None else {}
    chosen = each.get("default") or (next(iter(each.values())) if len(each) == 1 else None)
    status = chosen.number("statusCode") if chosen is not None else None
    parameters = chosen.get("responseParameters") if chosen is not None else None
    headers = {
        name.removeprefix(_HEADER).lower(): text[1:-1]
        for name, one in (parameters.items() if parameters is not None else ())
        if name.startswith(_HEADER)
        and (text := one.text()).startswith("'")
        and text.endswith("'")
        and len(text) > 2
    }
    whole = int(status) if status is not None and 200 <= status <= 599 else 200
    return {"respond": {"status": whole, **({"headers": headers} if headers else {})}}


def warn_of_method(amazon: Field, method: str, draft: Draft) -> None:
    """Report an integration that calls its service by another method."""
    theirs = amazon.get("httpMethod")
    if theirs is not None and theirs.text().upper() not in ("ANY", "", method.upper()):
        draft.warn(theirs, "the service gets the method of the client", "let the service accept it")


def _allows_everybody(statement: Field) -> bool:
    value = statement.value
    if not isinstance(value, Mapping):
        return False
    return (
        value.get("Effect") == "Allow"
        and not value.get("Condition")
        and value.get("Principal") in ("*", {"AWS": "*"})
    )
