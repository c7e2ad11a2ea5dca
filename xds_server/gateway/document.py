"""One YAML file: parsed fast into plain values, and parsed again with positions only to locate problems.

It follows the core schema of YAML 1.2: ``off``, ``on``, ``yes`` and ``no`` are text, as in the other tools of the
field. Mapping keys are always text, a duplicate key is a problem, and ``${NAME}`` reads the environment.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from filters.language import Path, Place, Problem
from filters.language.problems import short_repr
from filters.language.scalars import FromVariable
from xds_server.gateway import variables

try:
    from yaml.cyaml import CParser as _Parser  # type: ignore[attr-defined] # types-PyYAML does not list it
except ImportError:  # pragma: no cover - PyYAML without libyaml, slower but the same
    from yaml.loader import SafeLoader as _Parser  # type: ignore[assignment]

DEEPEST = 64
MOST_NODES = 2_000_000
"""A file with more values is rejected, because it is a bomb of aliases. Each use of an alias counts."""

_PLAIN, _QUOTED = "plain", "quoted"
_UNTAGGED = (_PLAIN, _QUOTED, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value
    for value, words in ((True, "true True TRUE"), (False, "false False FALSE"))
    for word in words.split()
}
_INVISIBLE = {
    "\u00a0": "non-breaking space",
    "\u2007": "figure space",
    "\u2009": "thin space",
    "\u3000": "ideographic space",
    "\u202f": "narrow non-breaking space",
    "\u200b": "zero-width space",
    "\u2060": "word joiner",
    "\ufeff": "byte order mark",
}
"""Invisible characters and characters that look like a space. They come from web pages and word processors."""
_STRANGE = re.compile("[" + "".join(_INVISIBLE) + "]")
_QUOTED_TEXT = re.compile(r"""(?<=[\s\[{,:])(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*")""")
_BRACES = re.compile(r"(?<=[\s:,\[{])(?:/|~)[^\s,{}\[\]]*[{\[][^\s,}\]]*[}\]][^\s,{}]*")
"""A path such as /x/{id} or ~^/x[0-9]+ without quotes."""
_SPECIAL = re.compile(r"(?<=[:\[,-]\s)[%@`]|(?<=[\[,])[%@`]|^[%@`]")


class _Loader(_Parser):
    """libyaml's composer without the resolution of scalars: PyYAML's own resolver is slow, and it follows YAML 1.1."""

    def resolve(self, _kind: type, _value: Any, implicit: Any) -> str:
        return _PLAIN if implicit is True or (implicit and implicit[0]) else _QUOTED

    depth = 0

    def descend_resolver(self, parent: Any, _index: Any) -> None:
        """Count the nesting of nodes. libyaml's composer recurses in C, so a file with too much nesting would crash."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Fault("nested too deeply", f"at most {DEEPEST} levels", parent.start_mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


@dataclass(slots=True)
class Document:
    """The content of a file.

    `variables` are the environment variables that it read, None for an unset one. `read` has, by path, the texts that
    contain the value of a variable, and how they are written in the file.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    variables: dict[str, str | None] = field(default_factory=dict)
    read: dict[Path, tuple[str, str]] = field(default_factory=dict)
    whole: bool = True
    """True if the file is YAML to its end, so that `values` are complete."""


class _Fault(Exception):  # noqa: N818 - ends the reading of one file, never leaves this module
    def __init__(self, message: str, remedy: str, mark: Any) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.mark = mark


def parse(
    file: str,
    content: bytes,
    environment: Mapping[str, str],
    *,
    what: str = "a gateway file",
    first: str = "routes:",
) -> Document:
    """Return a parsed file. Never raises: errors are in the document's problems.

    They say `what` the file is, and that it may begin with `first`.
    """
    document = Document()
    try:
        node = _compose(content)
        if node is None:
            return document
        if not isinstance(node, MappingNode):
            raise _Fault(
                f"{what} is a mapping of sections",
                f"begin with a section such as {first}",
                node.start_mark,
            )
        document.values = _Converter(file, environment, document).convert(node, (), 0)
        document.problems += _invisible(file, content, node)
    except _Fault as fault:
        place = Place(file, fault.mark.line + 1, fault.mark.column + 1) if fault.mark else Place(file, 1, 1)
        document.problems.append(Problem(path=(), message=str(fault), remedy=fault.remedy, place=place))
        document.whole = False
    return document


@dataclass(frozen=True, slots=True)
class Part:
    """One of several documents of a file. `values` are plain values, in which nothing stands for a variable."""

    file: str
    values: Any
    root: Node = field(repr=False)

    def place(self, path: Path, *, at_key: bool = False) -> Place:
        """Return the position of a path in this document, or of its nearest parent that exists."""
        return _position(self.root, path, _place(self.file, self.root), at_key=at_key)


def parse_all(file: str, content: bytes) -> tuple[list[Part], list[Problem]]:
    """Return the documents of a file that may have several, and the problems of those, such as a key that is given twice."""
    parts: list[Part] = []
    problems: list[Problem] = []
    try:
        for node in _compose_all(content):
            document = Document()
            converted = _Converter(file, None, document).convert(node, (), 0)
            problems += document.problems
            if converted is not None:
                parts.append(Part(file, converted, node))
            problems += _invisible(file, content, node)
    except _Fault as fault:
        place = Place(file, fault.mark.line + 1, fault.mark.column + 1) if fault.mark else Place(file, 1, 1)
        problems.append(Problem(path=(), message=str(fault), remedy=fault.remedy, place=place))
    return parts, problems


def _compose_all(content: bytes) -> Iterator[Node]:
    text = _text(content)
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node
    except yaml.YAMLError as error:
        raise _faulty(text, error) from None
    finally:
        loader.dispose()


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start)
        mark: Any = yaml.Mark("", 0, line, error.start - content.rfind(b"\n", 0, error.start) - 1, None, 0)
        raise _Fault("the file is not UTF-8", "save it as UTF-8", mark) from None


def _compose(content: bytes) -> Node | None:
    text = _text(content)
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except yaml.YAMLError as error:
        raise _faulty(text, error) from None
    finally:
        loader.dispose()


def _faulty(text: str, error: yaml.YAMLError) -> _Fault:
    """Return the fault of a text that is not YAML, or not one document."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or str(error)
    if getattr(error, "context", None) == "expected a single document in the stream":
        return _Fault(
            "a file must have only one document", "move what follows --- to a file of its own", mark
        )
    lines = text.splitlines()[: mark.line + 1] if mark else []
    return _fault_in(lines or [""], what, mark)


def _fault_in(lines: list[str], what: str, mark: Any) -> _Fault:
    """Return the fault of the last of these lines, which is not YAML, by the errors that users commonly make."""
    line, what = lines[-1], " ".join(what.split())
    for number, text_line in enumerate(lines[-2:], len(lines[:-2])):
        if strange := _STRANGE.search(text_line):
            mark = yaml.Mark("", 0, number, strange.start(), None, 0)
            return _Fault(_not_allowed(strange[0]), "write a space", mark)
    if line.lstrip(" ").startswith("\t"):
        return _Fault("a tab cannot indent", "indent with spaces", mark)
    bare = _QUOTED_TEXT.sub(lambda text: "_" * len(text[0]), line)
    star = re.search(r"(?<=[\s\[,:{-])\*[-.:/*\w]*(?=[\s,\]}]|$)", bare)
    if star and "undefined alias" in what:
        return _Fault(
            f"not YAML: {what}", f"define the anchor, or quote it if text is meant: '{star[0]}'", mark
        )
    if star and not re.fullmatch(r"\*\w+", star[0]):
        return _Fault("a * without quotes refers to an anchor", f"quote it: '{star[0]}'", mark)
    if re.search(r"[{\[,:]\s*\$\{", bare):
        return _Fault(
            "a variable between { } or [ ] needs quotes", 'write "${NAME}", which is read as its value', mark
        )
    if template := _BRACES.search(bare):
        message = "a text with { } or [ ] between { } or [ ] needs quotes"
        return _Fault(message, f"quote it: '{template[0]}'", mark)
    if special := _SPECIAL.search(bare):
        return _Fault(f"a text without quotes cannot begin with {special[0]}", "quote the value", mark)
    return _Fault(f"not YAML: {what}", "correct the YAML", mark)


def _not_allowed(character: str) -> str:
    name = _INVISIBLE[character]
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article} {name} (U+{ord(character):04X}) is not allowed here"


def _invisible(file: str, content: bytes, root: Node) -> Iterator[Problem]:
    """Yield a problem for each key or value without quotes that has an invisible or space-like character."""
    if not _STRANGE.search(content.decode("utf-8-sig")):
        return
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, ScalarNode):
            strange = _STRANGE.search(node.value)
            if strange and node.style not in ("'", '"', "|", ">"):
                message, remedy = (
                    _not_allowed(strange[0]),
                    "write a space, or quote the text if it is meant",
                )
                yield Problem(
                    path=(),
                    message=message,
                    remedy=remedy,
                    value=short_repr(node.value),
                    place=_place(file, node),
                )
        else:
            waiting += [
                one
                for _, child in _children(node)
                for one in ((_, child) if isinstance(_, Node) else (child,))
            ]


class _Converter:
    """Converts nodes to plain values. It is not a subclass of a loader, because it only walks the nodes.

    Without an environment, texts have no variables.
    """

    def __init__(self, file: str, environment: Mapping[str, str] | None, document: Document) -> None:
        self._file = file
        self._environment = environment
        self._document = document
        self._nodes = 0

    def convert(self, node: Node, path: Path, depth: int) -> Any:
        kind = node.__class__
        if kind is ScalarNode:
            return self._scalar(node, path)
        self._nodes += len(node.value)
        if self._nodes > MOST_NODES:
            raise _Fault("too many values: aliases multiply them", f"at most {MOST_NODES}", node.start_mark)
        if depth > DEEPEST:
            remedy = f"at most {DEEPEST} levels"
            raise _Fault("nested too deeply, or an alias within itself", remedy, node.start_mark)
        if node.tag not in _UNTAGGED:
            raise _Fault(f"unknown tag {short_repr(node.tag)}", "remove the tag", node.start_mark)
        if kind is SequenceNode:
            return [
                _plain(item.value)
                if item.__class__ is ScalarNode and item.tag is _PLAIN and "$" not in item.value
                else self.convert(item, (*path, number), depth + 1)
                for number, item in enumerate(node.value)
            ]
        return self._mapping(node, path, depth)

    def _mapping(self, node: Node, path: Path, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        for key_node, value_node in node.value:
            if key_node.__class__ is not ScalarNode:
                raise _Fault("a key must be text", "write a plain name before the colon", key_node.start_mark)
            key = key_node.value
            if key == "<<" and key_node.tag == _PLAIN:
                merged += self._merged(value_node, path, depth)
                continue
            if key in values:
                self._twice(path, key, key_node, node)
            if (
                value_node.__class__ is ScalarNode
                and value_node.tag is _PLAIN
                and "$" not in value_node.value
            ):
                values[key] = _plain(value_node.value)  # most values: no call, no path
            else:
                values[key] = self.convert(value_node, (*path, key), depth + 1)
        for more in merged:
            for key, value in more.items():
                values.setdefault(key, value)
        return values

    def _merged(self, node: Node, path: Path, depth: int) -> list[dict[str, Any]]:
        value = self.convert(node, path, depth + 1)
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(mapping, dict) for mapping in values):
            raise _Fault("<< merges mappings", "point it at an anchor of a mapping", node.start_mark)
        return values

    def _twice(self, path: Path, key: str, key_node: Node, node: Node) -> None:
        first = next(other for other, _ in node.value if other.value == key)
        self._document.problems.append(
            Problem(
                path=(*path, key),
                message=f"'{key}' is given twice",
                remedy="remove or rename one of them",
                place=_place(self._file, key_node),
                also=_place(self._file, first),
            )
        )

    def _scalar(self, node: Node, path: Path) -> Any:
        text: str = node.value
        if "$" in text and self._environment is not None:
            if (bare := variables.bare(text)) is not None:
                self._warn_of(bare, node, path)
            if "${" in text:
                text = self._interpolated(text, node, path)
                if variables.is_one(node.value):
                    return self._from_variable(text, node)
        if node.tag == _PLAIN:
            return _plain(text)
        if node.tag == _QUOTED or node.tag == "tag:yaml.org,2002:str":
            return text
        raise _Fault(f"unknown tag {short_repr(node.tag)}", "remove the tag", node.start_mark)

    def _interpolated(self, text: str, node: Node, path: Path) -> str:
        assert self._environment is not None, "asked before"
        interpolation = variables.interpolate(text, self._environment)
        self._document.variables.update(interpolation.variables)
        self._document.read[path] = interpolation.text, text
        for mistake in interpolation.mistakes:
            self._document.problems.append(
                Problem(
                    path=path,
                    message=mistake.message,
                    remedy=mistake.remedy,
                    value=short_repr(mistake.value),
                    place=_place(self._file, node),
                )
            )
        return interpolation.text

    def _from_variable(self, text: str, node: Node) -> Any:
        plain = _plain(text)
        reported = any(problem.place == _place(self._file, node) for problem in self._document.problems)
        return None if reported or (plain is None and node.tag == _PLAIN) else FromVariable.of(text, plain)

    def _warn_of(self, written: str, node: Node, path: Path) -> None:
        self._document.problems.append(
            Problem(
                path=path,
                message=f"'{written}' is plain text here",
                remedy=f"write ${{{written[1:]}}} for the environment variable",
                severity="warning",
                place=_place(self._file, node),
            )
        )


_seen: dict[str, Any] = dict(_WORDS)


def _plain(text: str) -> Any:
    """Return the value of a plain scalar by YAML 1.2's core schema."""
    try:
        return _seen[text]
    except KeyError:
        value = _number(text)
    if len(_seen) < 10_000 and len(text) < 32:
        _seen[text] = value
    return value


class _Int(int):
    """A number that keeps its spelling: read as text, ``007`` stays ``007``."""

    text: str

    def __str__(self) -> str:
        return self.text


class _Float(float):
    """A float that keeps its spelling: a version ``1.10`` is not ``1.1``."""

    text: str

    def __str__(self) -> str:
        return self.text


def _number(text: str) -> Any:
    if text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text):
        return (
            _written(_Int(text, 0 if text[1:2] in ("x", "o") else 10), text, int) if len(text) < 40 else text
        )
    return _written(_Float(text), text, float) if _FLOAT.fullmatch(text) else text


def _written(number: Any, text: str, kind: type) -> Any:
    plain = kind(number)
    if str(plain) == text:
        return plain
    number.text = text
    return number


def _place(file: str, node: Node) -> Place:
    return Place(file, node.start_mark.line + 1, node.start_mark.column + 1)


class Positions:
    """The positions of values in one file, which is composed at the first call."""

    def __init__(self, file: str, content: bytes) -> None:
        self._file = file
        self._content: bytes | None = content
        self._root: Node | None = None

    def of(self, path: Path, *, at_key: bool = False) -> Place:
        """Return the position of `path`, or of its nearest parent that exists."""
        if self._content is not None:
            with contextlib.suppress(_Fault):
                self._root = _compose(self._content)
            self._content = None
        return _position(self._root, path, Place(self._file, 1, 1), at_key=at_key)


def _position(node: Node | None, path: Path, place: Place, *, at_key: bool) -> Place:
    """Return the position of `path` below a node at `place`, or of its nearest parent that exists."""
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        for key, child in _children(node):
            if key == part or getattr(key, "value", None) == part:
                node = child
                place = _place(place.file, key if isinstance(key, Node) and (at_key or not last) else child)
                break
        else:
            return place
    return place


def _children(node: Node | None) -> Iterator[tuple[Any, Node]]:
    if isinstance(node, MappingNode):
        yield from node.value
    elif isinstance(node, SequenceNode):
        yield from enumerate(node.value)
