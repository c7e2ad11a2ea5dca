"""The YAML of envoyproxy/ratelimit: the counts of a domain, for any Envoy with the standard rate limit filter.

The format: https://github.com/envoyproxy/ratelimit#configuration. Windows are those of the calendar in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from filters.language import Path, Place, Problem
from filters.language.problems import did_you_mean, short_repr
from filters.language.scalars import Period
from filters.rate_limit.engine.algorithms import FixedWindow
from filters.rate_limit.engine.keys import bounded

MOST = 2**32 - 1
"""requests_per_unit is a uint32."""
MOST_BYTES, MOST_DEPTH, MOST_DESCRIPTORS = 32 << 20, 32, 100_000
"""Limits of one file. An alias counts at each use, so a small file cannot expand to a billion descriptors."""
_UNITS = get_args(Period)
_DESCRIPTOR = ("key", "value", "rate_limit", "descriptors", "shadow_mode", "share_threshold", "quota_mode")
_METRICS = ("detailed_metric", "value_to_metric")
"""Keys that only change names of envoyproxy/ratelimit's metrics, and no decision."""
_METADATA = "metadata"
"""A key for values that envoyproxy/ratelimit sends to Envoy's other filters. It is accepted and not sent."""
_MERGE = "tag:yaml.org,2002:merge"
_NAME = re.compile(r"[ !#-\[\]-~]*")
"""Printable ASCII without quotes and backslashes, because Envoy writes a name unescaped between quotes into
x-ratelimit-limit."""
_MISPLACED = ("shadow_mode", "quota_mode", "share_threshold", *_METRICS, _METADATA)
"""Keys of a descriptor. Inside a limit, envoyproxy/ratelimit ignores them without a message."""
_LIMIT = ("unit", "requests_per_unit", "unlimited", "name", "replaces")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The count of a descriptor. `limit` is None if it is unlimited. `name` and `replaces` are names in one domain.

    A request is rejected only if all of its descriptors with `quota` are over their limit.
    """

    limit: FixedWindow | None
    quota: bool = False
    name: str = ""
    replaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One descriptor of the file with the nested ones. `shared` is true if all values of a wildcard count together.

    `wildcards` are the names among `children` with a ``*``, in their order, each with the texts between the stars.
    """

    imported: Imported | None = None
    shared: bool = False
    children: Mapping[tuple[str, str], Level] = field(default_factory=dict)
    wildcards: tuple[tuple[tuple[str, str], tuple[str, ...]], ...] = ()

    def next(self, key: str, value: str) -> tuple[tuple[str, str], Level] | None:
        """The nested descriptor for an entry. An exact value beats a wildcard, a wildcard beats no value."""
        found = self.children.get((key, value)) if value else None
        if found is not None:
            return (key, value), found
        asked = _joined(key, value)
        for one, parts in self.wildcards:
            if _matches(parts, asked):
                return one, self.children[one]
        found = self.children.get((key, ""))
        return None if found is None else ((key, ""), found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A domain with its descriptors. `place` is the position of its name."""

    name: str
    top: Level
    place: Place

    @property
    def base(self) -> str:
        """The beginning of all of its keys."""
        return f"domain/{_escaped(self.name)}"

    def find(self, entries: Iterable[tuple[str, str]]) -> tuple[Imported, str] | None:
        """The count and the key of a descriptor of these entries, or None unless every entry has a match."""
        level, parts = self.top, list[str]()
        for key, value in entries:
            found = level.next(key, value)
            if found is None:
                return None
            name, level = found
            counted = (name[1] or name[0]) if level.shared else bounded(value)
            parts.append(f"{_escaped(key)}={_escaped(counted)}")
        return None if level.imported is None else (level.imported, "|".join(parts))

    def key(self, entries: Iterable[tuple[str, str]]) -> str:
        """The key of a descriptor that has its own limit."""
        return "|".join(f"{_escaped(bounded(key))}={_escaped(bounded(value))}" for key, value in entries)


def _joined(key: str, value: str) -> str:
    """The text that is compared with a wildcard. The key may contain a star too."""
    return f"{key}_{value}"


def _matches(parts: tuple[str, ...], text: str) -> bool:
    """True if `text` is `parts` with any text between them."""
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _escaped(text: str) -> str:
    """The text escaped, so that a client cannot send a value that gives another client's key."""
    return text.replace("%", "%25").replace("|", "%7C").replace("=", "%3D")


def read(file: str, content: bytes) -> tuple[Domain | None, tuple[Problem, ...]]:
    """The domain of a file, or None if it has mistakes, and all mistakes."""
    reader = _Reader(file)
    domain = reader.domain(content)
    return (None if reader.problems else domain), tuple(reader.problems)


def read_all(files: Mapping[str, bytes]) -> tuple[Mapping[str, Domain], tuple[Problem, ...]]:
    """The domains of several files by name, and every mistake. A domain must be in one file only."""
    domains: dict[str, Domain] = {}
    problems: list[Problem] = []
    for file, content in sorted(files.items()):
        domain, found = read(file, content)
        problems += found
        if domain is None:
            continue
        first = domains.setdefault(domain.name, domain)
        if first is not domain:
            problems.append(
                Problem(
                    path=("domain",),
                    message=f"the domain '{domain.name}' is given twice",
                    remedy="move its descriptors into one file",
                    place=domain.place,
                    also=first.place,
                )
            )
    return domains, tuple(problems)


class _Reader:
    """Converts the YAML nodes of one file to levels. It collects mistakes and goes on."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._left = MOST_DESCRIPTORS
        self._around: list[Node] = []

    def domain(self, content: bytes) -> Domain | None:
        """The domain of the whole file, or None if it has mistakes."""
        node = self._compose(content)
        if node is None:
            return None
        keys = self._keys(node, (), ("domain", "descriptors"))
        name = self._text(keys.get("domain"), ("domain",))
        if not name:
            self._missing(node, (), "the domain is missing", "begin with domain: NAME")
        elif name == "xds":
            self._wrong(
                keys["domain"], ("domain",), "'xds' is the domain of the gateways", "choose another name"
            )
        top = self._level(keys.get("descriptors"), ("descriptors",), Level())
        return Domain(name=name, top=top, place=self._place(keys.get("domain", node)))

    def _compose(self, content: bytes) -> Node | None:
        if len(content) > MOST_BYTES:
            self._fault(None, f"the file is larger than {MOST_BYTES} bytes")
            return None
        try:
            node = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError:
            self._fault(None, "the file is not UTF-8")
        except yaml.MarkedYAMLError as error:
            several = error.problem == "but found another document"
            remedy = "remove the line ---, or write each domain into a file of its own" if several else ""
            self._fault(error.problem_mark, f"not YAML: {error.problem}", remedy)
        except (yaml.YAMLError, RecursionError) as error:
            self._fault(None, f"not YAML: {error}")
        else:
            if node is None:
                self._fault(None, "the file is empty")
            return node
        return None

    def _level(self, node: Node | None, path: Path, of: Level, depth: int = 0) -> Level:
        """The level `of` with the nested descriptors of a list."""
        children: dict[tuple[str, str], Level] = {}
        places: dict[tuple[str, str], Node] = {}
        if self._is_too_deep(node, path, "descriptors are nested", depth):
            return of
        self._around += [node] if node is not None else []
        for number, item in enumerate(self._items(node, path)):
            at = (*path, number)
            self._left -= 1
            if self._left <= 0:
                if not self._left:
                    self._wrong(item, at, f"the file has more than {MOST_DESCRIPTORS} descriptors")
                break
            found = self._descriptor(item, at, depth)
            if found is None:
                continue
            name, level = found
            if name in children:
                also = self._place(places[name])
                self._wrong(
                    item, at, f"the descriptor {_named(name)} is given twice", "keep one of them", also
                )
            children.setdefault(name, level)
            places.setdefault(name, item)
        self._around[len(self._around) - (node is not None) :] = []
        wildcards = tuple(
            (child, tuple((_joined(*child) if child[1] else child[0]).split("*")))
            for child in children
            if "*" in "".join(child)
        )
        return Level(imported=of.imported, shared=of.shared, children=children, wildcards=wildcards)

    def _descriptor(self, node: Node, path: Path, depth: int) -> tuple[tuple[str, str], Level] | None:
        keys = self._keys(node, path, (*_DESCRIPTOR, *_METRICS, _METADATA))
        key = self._text(keys.get("key"), (*path, "key"))
        value = self._text(keys.get("value"), (*path, "value"))
        shadow = self._flag(keys.get("shadow_mode"), (*path, "shadow_mode"))
        quota = self._flag(keys.get("quota_mode"), (*path, "quota_mode"))
        shared = self._flag(keys.get("share_threshold"), (*path, "share_threshold"))
        if shared and "*" not in key + value:
            remedy = "put a * into the value"
            self._wrong(keys["share_threshold"], path, "share_threshold is for wildcard values", remedy)
        for name in _METRICS:
            self._flag(keys.get(name), (*path, name))
        if (
            _METADATA in keys
            and not isinstance(keys[_METADATA], MappingNode)
            and not _is_null(keys[_METADATA])
        ):
            self._wrong(keys[_METADATA], (*path, _METADATA), "not a mapping")
        imported = self._limit(keys.get("rate_limit"), (*path, "rate_limit"), shadow=shadow, quota=quota)
        below = Level(imported=imported, shared=shared)
        level = self._level(keys.get("descriptors"), (*path, "descriptors"), below, depth + 1)
        if not key:
            self._missing(node, path, "the key is missing", "every descriptor has a key")
            return None
        return (key, value), level

    def _limit(self, node: Node | None, path: Path, *, shadow: bool, quota: bool) -> Imported | None:
        if node is None or _is_null(node):
            return None
        keys = self._keys(node, path, _LIMIT)
        name = self._text(keys.get("name"), (*path, "name"))
        if not _NAME.fullmatch(name):
            remedy = "write letters, digits and signs of ASCII without quotes and backslashes"
            self._wrong(keys["name"], (*path, "name"), "the name cannot be part of a response header", remedy)
        replaces = frozenset(self._replaced(keys.get("replaces"), (*path, "replaces"), name))
        if self._flag(keys.get("unlimited"), (*path, "unlimited")):
            for other in ("unit", "requests_per_unit"):
                if other in keys:
                    self._wrong(
                        keys[other], (*path, other), "an unlimited descriptor has none", f"remove {other}"
                    )
            return Imported(limit=None, name=name, replaces=replaces)
        unit = self._unit(keys.get("unit"), node, path)
        amount = self._amount(keys.get("requests_per_unit"), node, path)
        if unit is None or amount is None:
            return None
        limit = FixedWindow(
            name=name, amount=amount, per=unit, shadow=shadow or quota, allow_on_error=None, least=0
        )
        return Imported(limit=limit, name=name, replaces=replaces, quota=quota and not shadow)

    def _unit(self, node: Node | None, around: Node, path: Path) -> Period | None:
        if node is None:
            self._missing(around, path, "the unit is missing", f"known: {', '.join(_UNITS)}")
            return None
        text = self._text(node, (*path, "unit"))
        if text.lower() in _UNITS:
            return cast("Period", text.lower())
        self._wrong(node, (*path, "unit"), f"there is no unit '{text}'", did_you_mean(text.lower(), _UNITS))
        return None

    def _amount(self, node: Node | None, around: Node, path: Path) -> int | None:
        if node is None:
            remedy = "write requests_per_unit: N, or unlimited: true"
            self._missing(around, path, "requests_per_unit is missing", remedy)
            return None
        text = node.value if isinstance(node, ScalarNode) and node.tag.endswith(":int") else ""
        # Some YAML readers take a leading zero for octal, others do not.
        if text.isascii() and text.isdigit() and str(int(text[:12])) == text and int(text) <= MOST:
            return int(text)
        quoted = isinstance(node, ScalarNode) and bool(node.style) and node.value.isdigit()
        remedy = f"write {node.value} without quotes" if quoted else "write a number such as 100"
        message = f"not a whole number from 0 to {MOST}"
        self._wrong(node, (*path, "requests_per_unit"), message, remedy, value=_shown(node))
        return None

    def _replaced(self, node: Node | None, path: Path, own: str) -> Iterator[str]:
        for number, item in enumerate(self._items(node, path)):
            at = (*path, number)
            name = self._text(self._keys(item, at, ("name",)).get("name"), (*at, "name"))
            if not name:
                self._missing(item, at, "the name of the limit is missing", "write - name: NAME")
            elif name == own:
                self._wrong(item, at, "a limit cannot replace itself", "name another limit")
            yield name

    def _keys(self, node: Node, path: Path, known: tuple[str, ...], depth: int = 0) -> dict[str, Node]:
        """The keys of a mapping, including those that it merges."""
        if self._is_too_deep(node, path, "mappings are merged", depth):
            return {}
        if not isinstance(node, MappingNode):
            message = f"not a mapping of {', '.join(known)}"
            if depth:
                self._wrong(
                    node, path, f"{message}, which << merges", "write <<: *ANCHOR", value=_shown(node)
                )
            else:
                self._wrong(node, path, message)
            return {}
        found: dict[str, Node] = {}
        first: dict[str, Node] = {}
        merged: list[Node] = []
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else ""
            if key.tag == _MERGE:
                merged += value.value if isinstance(value, SequenceNode) else [value]
            elif name in _MISPLACED and name not in known:
                self._wrong(
                    key, path, f"'{name}' has no effect here", "write it next to 'key', outside of rate_limit"
                )
            elif name not in known:
                self._wrong(key, path, f"there is no key '{name}' here", did_you_mean(name, known))
            elif name in found:
                self._wrong(key, path, f"the key '{name}' is given twice", "", self._place(first[name]))
            else:
                found[name], first[name] = value, key
        # https://yaml.org/type/merge.html: the mapping's own keys win, then those that are merged first
        self._around.append(node)
        for one in merged:
            for name, value in self._keys(one, path, known, depth + 1).items():
                found.setdefault(name, value)
        self._around.pop()
        return found

    def _is_too_deep(self, node: Node | None, path: Path, what: str, depth: int) -> bool:
        """Report a node that is nested too deep. An alias can nest a node in itself without end."""
        within_itself = any(node is one for one in self._around)
        if not within_itself and depth <= MOST_DEPTH:
            return False
        message = f"{what} more than {MOST_DEPTH} deep"
        if within_itself:
            remedy = "write out what the alias stands for, without the alias"
            self._wrong(node, path, f"{message}: an alias contains itself", remedy)
        else:
            self._wrong(node, path, message)
        return True

    def _items(self, node: Node | None, path: Path) -> list[Node]:
        if node is None or _is_null(node):
            return []
        if isinstance(node, SequenceNode):
            return list(node.value)
        self._wrong(node, path, "not a list")
        return []

    def _text(self, node: Node | None, path: Path) -> str:
        if node is None or _is_null(node):
            return ""
        if isinstance(node, ScalarNode):
            return str(node.value)
        self._wrong(node, path, "not a text")
        return ""

    def _flag(self, node: Node | None, path: Path) -> bool:
        if node is None:
            return False
        if isinstance(node, ScalarNode) and node.tag.endswith(":bool"):
            return str(node.value).lower() in ("true", "yes", "on")
        self._wrong(node, path, "not true or false")
        return False

    def _place(self, node: Node) -> Place:
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _wrong(
        self,
        node: Node | None,
        path: Path,
        message: str,
        remedy: str = "",
        also: Place | None = None,
        value: str | None = None,
    ) -> None:
        place = Place(self._file, 1, 1) if node is None else self._place(node)
        self.problems.append(
            Problem(path=path, message=message, remedy=remedy, value=value, place=place, also=also)
        )

    def _missing(self, node: Node, path: Path, message: str, remedy: str) -> None:
        """Report a missing key, unless the node is no mapping, which has been reported already."""
        if isinstance(node, MappingNode):
            self._wrong(node, path, message, remedy)

    def _fault(self, mark: Any, message: str, remedy: str = "") -> None:
        place = Place(self._file, mark.line + 1, mark.column + 1) if mark else Place(self._file, 1, 1)
        self.problems.append(Problem(path=(), message=message, remedy=remedy, place=place))


def _shown(node: Node) -> str | None:
    """The value as a problem shows it, or None if it is not a scalar."""
    if not isinstance(node, ScalarNode):
        return None
    return short_repr(node.value) if node.style or node.tag.endswith(":str") else str(node.value)


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag.endswith(":null")


def _named(name: tuple[str, str]) -> str:
    return f"{name[0]}={name[1]}" if name[1] else name[0]
