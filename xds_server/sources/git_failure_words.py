"""The reasons of failed fetches in one line for people, from what dulwich, urllib3 and ssh say."""

from __future__ import annotations

import re

from dulwich.errors import HangupException

from filters.language.problems import printable

_DEEPEST = 8
_HTTP_STATUS = re.compile(r"unexpected http resp (\d{3})")
"""What dulwich says of a status that it does not know."""
_SSH_REMEDIES = {
    "Host key verification failed": "the host is unknown, or it has another key: correct --git-known-hosts if it is the right host",
    "Permission denied": "give a key with --git-ssh-key that may read the repository",
}


def words(error: BaseException) -> str:
    """Return the reason of a failure in one line, which may be deep inside."""
    if isinstance(error, HangupException) and error.stderr_lines:
        return _words_of_ssh([line.decode("utf-8", "replace").strip() for line in error.stderr_lines])
    reason: object = error
    for _ in range(_DEEPEST):  # urllib3 wraps what the system says
        further = (
            getattr(reason, "reason", None)
            or getattr(reason, "__cause__", None)
            or getattr(reason, "__context__", None)
        )
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror
        if not isinstance(further, BaseException):
            break
        reason = further
    text = printable(" ".join(str(reason).split())) or type(error).__name__
    if status := _HTTP_STATUS.search(text):
        return f"the server answers with HTTP {status[1]}; it is asked again later"
    return text.rpartition(">: ")[2][:300]


def _words_of_ssh(lines: list[str]) -> str:
    """Return the reason that ssh, or the program at its other end, gives in its last line, and a remedy."""
    text = printable(next((line for line in reversed(lines) if line), "ssh ended without a reason"))[:300]
    for said, remedy in _SSH_REMEDIES.items():
        if said in text:
            return f"{text.rstrip('.')}; {remedy}"
    return text
