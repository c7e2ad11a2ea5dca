"""An explanation of a request in lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from xds_server.translate.explain import Explanation, nearest

NEAREST = 3
"""Routes with another path that are shown: those whose path is most similar to that of the request."""


def lines(explanation: Explanation, most: int = NEAREST) -> Iterator[str]:
    """Yield the lines of an explanation, with at most `most` of the routes that have another path."""
    yield f"listener {explanation.listener}, host {explanation.host}, path {explanation.path}"
    for note in explanation.notes:
        yield f"  {note}"
    candidates, others = nearest(explanation, most)
    for candidate in candidates:
        mark, why = "-" if candidate.why_not else ">", candidate.why_not or "matches"
        yield f"  {mark} {candidate.route}  {candidate.path}  {why}"
    if others:
        yield f"  - {others} other route{'' if others == 1 else 's'} with other paths; --all shows them"
    yield explanation.action
    for policy in explanation.policies:
        yield f"  {policy.stage:<13} {policy.key:<17} {policy.enforced}  (from {policy.level})"
