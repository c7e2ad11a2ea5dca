"""Who a caller is, by the token of its service account.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

from __future__ import annotations

from dataclasses import dataclass

from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.resources import Resource

TOKEN_REVIEWS = Resource(
    group="authentication.k8s.io", plural="tokenreviews", kind="TokenReview", namespaced=False
)
_USER = "system:serviceaccount:"
_POD = "authentication.kubernetes.io/pod-name"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account, with the name of the pod that the token is bound to, if it is bound to one."""

    namespace: str
    name: str
    pod: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


async def review(client: ApiClient, token: str, audience: str) -> ServiceAccount | None:
    """Return the service account of a token for this audience, or None if the API server does not accept the token.

    Raises ApiError.
    """
    asked = {"metadata": {}, "spec": {"token": token, "audiences": [audience]}}
    path = TOKEN_REVIEWS.collection()
    body = {**asked, "apiVersion": TOKEN_REVIEWS.api_version, "kind": TOKEN_REVIEWS.kind}
    status = (await client.request("POST", path, body)).get("status") or {}
    user = status.get("user") or {}
    # an authenticator that knows no audiences leaves them out, and may accept a token that was made for somebody else
    if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
        return None
    namespace, _, name = str(user.get("username", "")).removeprefix(_USER).partition(":")
    if not str(user.get("username", "")).startswith(_USER) or not namespace or not name:
        return None
    pods = (user.get("extra") or {}).get(_POD) or [""]
    return ServiceAccount(namespace, name, str(pods[0]))
