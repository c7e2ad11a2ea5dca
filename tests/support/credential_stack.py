"""The gateway of the table of credentials with a policy server beside it, which some credentials need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filters.model.methods import MOST_KEYS
from tests.support import tokens
from tests.support.backend import Backend
from tests.support.identity_cases import CONSUMERS, CREDENTIAL_ROUTES, HTPASSWD, PROVIDERS
from tests.support.policy_server import Stack

TOO_MANY_KEYS = "consumers:\n  many:\n    api_keys:\n" + "".join(
    f"    - {{sha256: {number:064x}}}\n" for number in range(MOST_KEYS + 1)
)
"""More than Envoy holds."""


YAML = """
listeners: {http: {port: $port, underscores_in_headers: allow}}
upstreams: {echo: {endpoints: [$echo]}}
$providers$consumers
routes:$routes
"""


class CredentialStack(Stack):
    """`backend` is the upstream of all routes; `routes` are further ones."""

    def __init__(self, folder: Path, backend: Backend, htpasswd: str, routes: str) -> None:
        super().__init__(folder)
        self.backend = backend
        self.htpasswd = htpasswd
        self.write(
            YAML,
            {"jwks.json": tokens.jwks()},
            echo=backend.address,
            providers=PROVIDERS,
            consumers=CONSUMERS,
            routes=CREDENTIAL_ROUTES + routes,
        )
        self.change()

    def change(self, *, users: str = "", more: str = "") -> None:
        """More lines of the htpasswd file, and more of the gateway; both gone with the next call."""
        (self.folder / "htpasswd").write_text(self.htpasswd + users)
        (self.folder / "more.yaml").write_text(more)


@contextmanager
def credential_stack(
    folder: Path, *, htpasswd: str = HTPASSWD, routes: str = "", many: bool = False
) -> Iterator[CredentialStack]:
    """Serve it; `many` says that a policy server must look the API keys up."""
    with Backend("echo") as backend:
        stack = CredentialStack(folder, backend, htpasswd, routes)
        if many:
            (folder / "many.yaml").write_text(TOO_MANY_KEYS)
        with stack:
            yield stack
