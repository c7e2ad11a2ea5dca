"""Admission reviews: what the API server asks about a pod before it creates it, and the answer.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from xds_server.sidecar.identity import SidecarSettings
from xds_server.sidecar.injection import RejectedPod, patch

_VERSION, _KIND = "admission.k8s.io/v1", "AdmissionReview"
_INVALID = 422


def answer(review: Any, settings: SidecarSettings, token_of: Callable[[str], str]) -> dict[str, Any]:
    """Return the answer to a review. `token_of` returns a secret for a name. Raises ValueError if it is no review of a pod."""
    request = review.get("request") if isinstance(review, Mapping) else None
    if (
        not isinstance(request, Mapping)
        or review.get("kind") != _KIND
        or not isinstance(request.get("uid"), str)
    ):
        raise ValueError(f"this is no {_KIND} of {_VERSION}")
    pod = request.get("object")
    if not isinstance(pod, Mapping):
        raise ValueError("the review has no object")
    response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    try:
        token = token_of(f"sidecar/{request['uid']}")  # no two reviews have the same uid
        changes = patch(pod, str(request.get("namespace") or ""), settings, token)
    except RejectedPod as rejection:
        response |= {"allowed": False, "status": {"code": _INVALID, "message": str(rejection)}}
    else:
        if changes:
            body = base64.b64encode(json.dumps(changes).encode()).decode()
            response |= {"patchType": "JSONPatch", "patch": body}
    return {"apiVersion": _VERSION, "kind": _KIND, "response": response}
