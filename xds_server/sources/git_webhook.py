"""Who may say that there is a new commit: the signatures and tokens with which forges send their webhooks.

A webhook only has the repository fetched at once. Nothing of its body is used, so that whoever repeats an old one
gains nothing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

LARGEST = 32 << 20
"""The maximum number of bytes of a body. GitHub sends up to 25 MB."""
_STANDARD = "webhook-signature"
_HEX = {
    "x-hub-signature-256": "sha256=",
    "x-hub-signature": "sha256=",
    "x-gitea-signature": "",
    "x-forgejo-signature": "",
}
"""Headers with an HMAC-SHA256 of the body in hexadecimal, and what stands before it: those of GitHub, Bitbucket, Gitea
and Forgejo. The first is also the form for everybody else."""
_GITLAB = "x-gitlab-token"
HEADERS = ("X-Hub-Signature-256", "X-Gitea-Signature", "X-Gitlab-Token", "Webhook-Signature")
"""What a webhook may prove itself by, for error messages."""


def verified(secret: bytes, headers: Mapping[str, str], body: Callable[[], Iterable[bytes]]) -> bool:
    """True if whoever sent a webhook knows the secret.

    `headers` have lower-case names. `body` is called only if a header has a signature. Values are compared in constant
    time. One true signature or token is enough.

    Sources: GitHub and Gitea (HMAC-SHA256 of the body, hexadecimal), GitLab (the secret itself), Standard Webhooks
    (HMAC-SHA256 of ``ID.TIMESTAMP.BODY``, base64), which GitLab uses for its signing tokens.
    """
    token = headers.get(_GITLAB)
    if token is not None and hmac.compare_digest(token.encode(), secret):
        return True
    plain = {name: headers[name] for name in _HEX if name in headers}
    standard = headers.get(_STANDARD)
    if not plain and standard is None:
        return False
    of_body = hmac.new(secret, digestmod=sha256)
    before = f"{headers.get('webhook-id', '')}.{headers.get('webhook-timestamp', '')}."
    of_all = hmac.new(_standard_key(secret), before.encode(), sha256)
    for part in body():
        of_body.update(part)
        of_all.update(part)
    wanted = of_body.hexdigest().encode()
    found = [_same(f"{_HEX[name]}".encode() + wanted, value) for name, value in plain.items()]
    whole = b"v1," + base64.b64encode(of_all.digest())
    found += [_same(whole, one) for one in (standard or "").split()]
    return any(found)


def _same(wanted: bytes, value: str) -> bool:
    return hmac.compare_digest(wanted, value.encode())


def _standard_key(secret: bytes) -> bytes:
    """Return the key of a secret as Standard Webhooks write it, ``whsec_BASE64``, or the secret itself."""
    prefix, _, rest = secret.partition(b"_")
    if prefix != b"whsec":
        return secret
    try:
        return base64.b64decode(rest, validate=True)
    except binascii.Error:
        return secret
