"""Who may say that there is a new commit."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable

import pytest

from xds_server.sources.git_webhook import verified

SECRET = b"a secret of sixteen bytes"
BODY = b'{"ref": "refs/heads/main"}'


def of_body(secret: bytes = SECRET, body: bytes = BODY) -> str:
    return hmac.new(secret, body, "sha256").hexdigest()


def standard(key: bytes, body: bytes = BODY) -> dict[str, str]:
    """Headers as Standard Webhooks describe them."""
    whole = b"id-1.1700000000." + body
    signature = base64.b64encode(hmac.new(key, whole, "sha256").digest()).decode()
    return {
        "webhook-id": "id-1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,other v1,{signature}",
    }


def accepted(headers: dict[str, str], secret: bytes = SECRET) -> bool:
    return verified(secret, headers, lambda: (BODY[:5], BODY[5:]))


@pytest.mark.parametrize(
    "headers",
    [
        {"x-hub-signature-256": f"sha256={of_body()}"},
        {"x-hub-signature": f"sha256={of_body()}"},
        {"x-gitea-signature": of_body()},
        {"x-forgejo-signature": of_body()},
        {"x-gitlab-token": SECRET.decode()},
        standard(SECRET),
        {"x-hub-signature-256": f"sha256={of_body()}", "x-hub-signature": "sha1=0"},
    ],
    ids=lambda headers: ",".join(headers),
)
def test_a_true_signature_is_accepted(headers: dict[str, str]) -> None:
    assert accepted(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-hub-signature-256": of_body()},
        {"x-hub-signature-256": f"sha256={of_body(b'another secret, also long')}"},
        {"x-hub-signature-256": f"sha256={of_body(body=b'{}')}"},
        {"x-hub-signature": "sha1=" + hmac.new(SECRET, BODY, "sha1").hexdigest()},
        {"x-gitea-signature": ""},
        {"x-gitlab-token": ""},
        {"x-gitlab-token": "é"},
        {**standard(SECRET), "webhook-timestamp": "1700000001"},
        {**standard(SECRET), "webhook-id": "id-2"},
    ],
    ids=repr,
)
def test_another_one_is_not(headers: dict[str, str]) -> None:
    assert not accepted(headers)


def test_the_secret_of_standard_webhooks_may_be_written_as_they_write_it() -> None:
    key = bytes(range(32))
    assert accepted(standard(key), b"whsec_" + base64.b64encode(key))
    assert not accepted(standard(key), b"whsec_no base64")


def test_a_body_without_a_signature_is_not_read() -> None:
    def body() -> Iterable[bytes]:
        raise AssertionError("it is read")

    assert not verified(SECRET, {"x-gitlab-token": "wrong"}, body)
