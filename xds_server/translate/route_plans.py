"""Plans of trees of routes: which literal beginnings divide the routes of a virtual host, and into which lists.

A list has every route that can match below its beginning, because Envoy does not look at shorter beginnings if no route
of the list matches. So no choice of beginnings changes which route matches, and they are chosen for the length of lists.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from xds_server.translate.literals import ANYTHING, PATH, Literal, Literals, common

_DEEPEST = 5
"""The maximum number of headers by which one list is found, because protobuf parses at most 100 nested messages."""

SLACK = 4
"""A list may be so many times as long as wanted, if only lists shorter than half of that could be divided off."""


@dataclass(frozen=True, slots=True)
class Split:
    """A division by one header: what is below each beginning, and what is for requests with none of them."""

    header: str
    below: Mapping[str, Node]
    rest: Node


Node = Sequence[int] | Split
"""The positions of the routes of a list, in the order of precedence, or a division of them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A tree and all its lists, or no tree and some of its lists if it would have too many copies of routes."""

    node: Node | None
    lists: Sequence[Sequence[int]]


class _TooManyError(Exception):
    """`lists` have too many copies of routes."""

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.lists = lists


def plan(literals: Sequence[Literals], length: int, most: float) -> Plan:
    """Return a plan with lists of about `length` routes, and at most `most` routes in all lists together.

    `literals` are those of all routes, in the order of precedence.
    """
    try:
        node = _Planner(literals, length, most).node(range(len(literals)), (PATH,))
    except _TooManyError as error:
        return Plan(None, error.lists)
    lists = list(_lists(node))
    return Plan(node if sum(map(len, lists)) <= most else None, lists)


def _lists(node: Node) -> Iterator[Sequence[int]]:
    if isinstance(node, Split):
        for one in (*node.below.values(), node.rest):
            yield from _lists(one)
    else:
        yield node


@dataclass(frozen=True, slots=True)
class _Planner:
    """The arguments of `plan`. Methods raise _TooManyError."""

    literals: Sequence[Literals]
    length: int
    most: float

    def node(self, members: Sequence[int], used: tuple[str, ...]) -> Node:
        """Divide routes; `used` are the headers whose beginnings are known, and the last one, which divides them."""
        below, rest = self._split(members, used[-1])
        if not below:
            return self._finer(members, used)
        found = {key: self._finer(one, used) for key, one in below.items()}
        return Split(used[-1], found, self._finer(rest, used))

    def _finer(self, members: Sequence[int], used: tuple[str, ...]) -> Node:
        """Divide a long list by the header with the most values, if at least half of the routes need it."""
        if len(members) <= 2 * self.length or len(used) == _DEEPEST:
            return members
        values: dict[str, list[Literal]] = {}
        for at in members:
            for name, literal in self.literals[at].items():
                if name not in used:
                    values.setdefault(name, []).append(literal)
        numbers = {name: len(set(some)) for name, some in values.items() if len(some) * 2 >= len(members)}
        if not numbers:
            return members
        return self.node(members, (*used, min(numbers, key=lambda name: (-numbers[name], name))))

    def _split(self, members: Sequence[int], header: str) -> tuple[dict[str, Sequence[int]], Sequence[int]]:
        """Return the routes that can match below each of some beginnings, and the routes for all other values."""
        own = {at: self.literals[at].get(header, ANYTHING) for at in members}
        order = sorted(own, key=lambda at: own[at][0])
        texts = [own[at][0] for at in order]
        found: dict[str, Sequence[int]] = {}
        copies = 0
        waiting: list[tuple[str, int, int, list[int]]] = [("", 0, len(order), [])]
        while waiting:
            key, start, end, above = waiting.pop()
            home = set(order[start:end])
            if len(home) > self.length:
                depth, first, groups = _groups(texts, start, end)
                shorter = [*above, *order[start:first]]
                for low, high in groups:
                    if len(home) <= self.length * (1 if 2 * (high - low) >= self.length else SLACK):
                        break
                    longer = texts[low][: depth + 1]
                    waiting.append((longer, low, high, [at for at in shorter if _may_go_on(own[at], longer)]))
                    home.difference_update(order[low:high])
            found[key] = sorted((*home, *above))
            copies += len(found[key])
            if copies > self.most:
                raise _TooManyError(list(found.values()))
        rest = found.pop("")
        return found, rest


def _groups(texts: Sequence[str], start: int, end: int) -> tuple[int, int, list[tuple[int, int]]]:
    """Divide sorted texts by the first character that they do not have in common.

    Return the length of their common beginning, the end of the texts that are no longer than it, and the ranges of the
    others, the largest first.
    """
    depth = common(texts[start], texts[end - 1])
    low = first = bisect_right(texts, texts[start][:depth], start, end)
    groups = []
    while low < end:
        high = bisect_left(texts, texts[low][:depth] + chr(ord(texts[low][depth]) + 1), low, end)
        groups.append((low, high))
        low = high
    return depth, first, sorted(groups, key=lambda one: one[0] - one[1])


def _may_go_on(literal: Literal, longer: str) -> bool:
    """True if a value that begins with `longer`, which is longer than the literal, may still match."""
    text, following = literal
    return following is None or longer[len(text)] in following
