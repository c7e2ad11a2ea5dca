"""Statuses of commits, which GitHub, GitLab and Gitea show beside a commit: whether it is served, or file, line and remedy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3

from xds_server.errors import WrongUsage
from xds_server.sources.source import Version

log = logging.getLogger(__name__)

Send = Callable[[str, Mapping[str, str], Mapping[str, str]], tuple[int, str]]
"""Sends a JSON object to a URL with headers, and returns the status and the beginning of the response. Raises OSError."""

_BASES = {
    "github": "https://api.github.com/repos/",
    "gitlab": "https://gitlab.com/api/v4/projects/",
    "gitea": "",
}
"""Forges by name, and the beginning of the URL of a repository at the public one."""
_LONGEST = {"github": 140, "gitlab": 255, "gitea": 255}
"""Characters of a description."""
_TIMEOUT = 10.0
_PAUSES = (1.0, 5.0, 30.0, 120.0)
"""Seconds before the next attempt to send a status. After the last one it is given up."""
_FAILED = 400
_LATER = (408, 425, 429)
_SERVER = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """Where statuses are sent. `url` is that of the repository in the forge's REST API, `context` names this gateway.

    Sources: GitHub and Gitea, ``POST {url}/statuses/{sha}``; GitLab, the same with other names of the fields.
    """

    kind: str
    url: str
    context: str
    token_file: Path

    @classmethod
    def parse(cls, text: str, context: str, token_file: Path) -> Forge:
        """Read ``KIND:OWNER/NAME`` for a public forge, or ``KIND:URL`` for another. Raises WrongUsage."""
        kind, _, rest = text.partition(":")
        form = (
            "write github:OWNER/NAME, gitlab:GROUP/NAME, or KIND:URL with the URL of the repository in the REST API "
            "of a GitHub, GitLab or Gitea of your own"
        )
        if kind not in _BASES or not rest:
            raise WrongUsage(f"--commit-status: '{text}' names no forge; {form}")
        if "://" not in rest:
            if not _BASES[kind] or "/" not in rest:
                raise WrongUsage(f"--commit-status: '{text}' names no repository; {form}")
            rest = _BASES[kind] + (quote(rest, safe="") if kind == "gitlab" else quote(rest))
        try:
            parts = urlsplit(rest)
            wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None
        except ValueError:
            wrong = True
        if wrong:
            raise WrongUsage(
                f"--commit-status: that is not the URL of a repository without credentials; {form}"
            )
        return cls(kind=kind, url=rest.rstrip("/"), context=context, token_file=token_file)

    def request(self, status: CommitStatus) -> tuple[str, Mapping[str, str]]:
        """Return URL and body that set a status."""
        text = " ".join(status.text.split())
        longest = _LONGEST[self.kind]
        text = text if len(text) <= longest else f"{text[: longest - 1]}…"
        url = f"{self.url}/statuses/{status.commit}"
        context = f"{self.context}/{status.group}" if status.group else self.context
        if self.kind == "gitlab":
            state = "success" if status.good else "failed"
            return url, {"state": state, "name": context, "description": text}
        state = "success" if status.good else "failure"
        return url, {"state": state, "context": context, "description": text}

    def headers(self) -> Mapping[str, str]:
        """Return the headers with the token, which is read again each time. Raises OSError."""
        token = self.token_file.read_text().strip()
        if self.kind == "gitlab":
            return {"private-token": token}
        scheme = "Bearer" if self.kind == "github" else "token"
        return {"authorization": f"{scheme} {token}", "accept": "application/json"}


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What is told of a commit. `group` is that of a preview, which has a status of its own."""

    commit: str
    good: bool
    text: str
    group: str = ""

    @classmethod
    def of(cls, version: Version, problems: tuple[str, ...], group: str = "") -> CommitStatus:
        """Return the status of a version that is served, or is not because of problems."""
        if not problems:
            return cls(version.id, True, "served", group)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return cls(version.id, False, f"{problems[0]}{more}", group)

    @property
    def key(self) -> tuple[str, str]:
        """What a newer status replaces."""
        return self.commit, self.group

    @classmethod
    def of_rollout(cls, commit: str, reason: str) -> CommitStatus:
        """Return the status of a commit that a rollout has withdrawn for a reason, or that is served to all without one."""
        return cls(commit, not reason, f"withdrawn by the rollout: {reason}" if reason else "served")


class CommitStatuses:
    """Sends statuses in the background, in order. A status that waits is replaced by a newer one of the same commit and group.

    A forge that cannot be reached is asked again a few times, and never holds anything up.
    """

    def __init__(self, forge: Forge, send: Send | None = None, pauses: tuple[float, ...] = _PAUSES) -> None:
        self._forge, self._send, self._pauses = forge, send or _post, pauses
        self._waiting: dict[tuple[str, str], CommitStatus] = {}
        self._more = asyncio.Event()

    def tell(self, status: CommitStatus) -> None:
        """Send a status soon."""
        self._waiting[status.key] = status
        self._more.set()

    async def run(self) -> None:
        """Send what is told, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                status = self._waiting.pop(next(iter(self._waiting)))
                await self._deliver(status)

    async def _deliver(self, status: CommitStatus) -> None:
        reason = ""
        for pause in (*self._pauses, None):
            reason, again = await asyncio.to_thread(self._attempt, status)
            if not reason:
                return
            if status.key in self._waiting:
                return  # there is something newer to tell
            if not again or pause is None:
                break
            await asyncio.sleep(pause)
        log.error(
            "the status of commit %s was not sent to %s: %s", status.commit[:12], self._forge.url, reason
        )

    def _attempt(self, status: CommitStatus) -> tuple[str, bool]:
        """Return why a status was not sent, "" if it was, and whether another attempt makes sense."""
        url, body = self._forge.request(status)
        try:
            code, text = self._send(url, self._forge.headers(), body)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            return f"{type(error).__name__}", True
        if code < _FAILED:
            return "", False
        return f"HTTP {code} {' '.join(text.split())[:200]}", code in _LATER or code >= _SERVER


def _post(url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, str]:
    response = urllib3.request(
        "POST",
        url,
        body=json.dumps(body).encode(),
        headers={**headers, "content-type": "application/json", "user-agent": "xds"},
        timeout=_TIMEOUT,
        retries=False,
        redirect=False,
        preload_content=False,
    )
    with contextlib.closing(response):
        return response.status, response.read(2000).decode("utf-8", "replace")
