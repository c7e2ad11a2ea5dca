"""Full-text search over the catalogue, in memory.

Each word counts by the field that it is in, by how rare it is, and less the more often it is repeated (BM25 without
lengths). All words of a query must match; if no entry has all, entries with most of them are found.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log

from filters.api_documents.reference import ApiReference
from xds_server.catalog.entries import Catalog, Entry
from xds_server.catalog.tokens import query_words, words

_TITLE, _TAG, _SUMMARY, _OWNER, _OPERATION, _DESCRIPTION, _DETAIL, _PAGE = (
    12.0,
    6.0,
    5.0,
    4.0,
    3.0,
    2.0,
    1.0,
    1.0,
)
"""The weights of fields: name and title; tags; summary; owner; titles, paths and summaries of operations; description;
descriptions of operations and names of parameters; pages."""
_SATURATION = 1.2
_WHOLE, _BEGINNING = 1.0, 0.5
"""The weight of a word that is that of the query, and of one that begins with it."""
_MOST_WORDS = 16
"""Words of a query that count."""
_MOST_BEGINNINGS = 100
"""Words that begin with a word of the query and count."""
_MOST_OPERATIONS = 5
_LONGEST = 200_000
"""Characters of one field that are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An entry that was found. `operations` are ids of those of its operations that match, the best first."""

    entry: Entry
    score: float
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Indexed:
    """An entry: the numbers of its words with their weights, and the numbers of the words of each operation, by id."""

    entry: Entry
    words: array[int]
    weights: array[float]
    operations: tuple[tuple[str, array[int]], ...]


class SearchIndex:
    """The index of a catalogue. An entry that did not change is not indexed again."""

    def __init__(self) -> None:
        self._entries: list[_Indexed] = []
        self._numbers: dict[str, int] = {}
        """The number of each word that was ever indexed."""
        self._vocabulary: list[str] = []
        self._postings: dict[int, tuple[array[int], array[float]]] = {}
        """By the number of a word: the entries that have it, by their position, and its weight in each."""

    def update(self, catalog: Catalog) -> None:
        """Take over the entries of a catalogue."""
        known = {one.entry: one for one in self._entries}
        if known.keys() == set(catalog.entries.values()):
            return
        self._entries = [
            known.get(entry) or self._indexed(entry, catalog.reference(name))
            for name, entry in catalog.entries.items()
        ]
        self._postings = {}
        for at, one in enumerate(self._entries):
            for number, weight in zip(one.words, one.weights, strict=True):
                if number not in self._postings:
                    self._postings[number] = array("I"), array("f")
                entries, weights = self._postings[number]
                entries.append(at)
                weights.append(weight)
        self._vocabulary = sorted(self._numbers)

    def search(
        self, query: str, allows: Callable[[Entry], bool] = lambda _entry: True, limit: int = 20
    ) -> tuple[Hit, ...]:
        """Return the entries that match a query and that `allows` lets the caller see, the best first."""
        wanted = [self._similar(word, begins) for word, begins in query_words(query)[:_MOST_WORDS]]
        scores: dict[int, float] = {}
        matched: Counter[int] = Counter()
        for similar in wanted:
            for at, score in self._matches(similar).items():
                scores[at] = scores.get(at, 0.0) + score
                matched[at] += 1
        visible = [at for at in scores if allows(self._entries[at].entry)]
        most = max((matched[at] for at in visible), default=0)
        found = [(self._entries[at].entry, at) for at in visible if matched[at] == most]
        found.sort(key=lambda one: (-scores[one[1]], one[0].title.casefold(), one[0].name))
        return tuple(
            Hit(
                entry=entry,
                score=scores[at],
                operations=tuple(_best(self._entries[at].operations, wanted)),
            )
            for entry, at in found[:limit]
        )

    def _similar(self, word: str, begins: bool) -> dict[int, float]:
        """Return the numbers of the words that a word of a query stands for, each with its share of the score."""
        found = {}
        start = bisect_left(self._vocabulary, word)
        for other in self._vocabulary[start : start + (_MOST_BEGINNINGS if begins else 1)]:
            if not other.startswith(word) or not (begins or other == word):
                break
            found[self._numbers[other]] = _WHOLE if other == word else _BEGINNING
        return found

    def _matches(self, similar: Mapping[int, float]) -> dict[int, float]:
        """Return the scores of the entries that have one of some words."""
        found: dict[int, float] = {}
        for number, share in similar.items():
            if number not in self._postings:
                continue  # no entry has it any more
            entries, weights = self._postings[number]
            factor = share * log(1 + len(self._entries) / (1 + len(entries)))
            for at, weight in zip(entries, weights, strict=True):
                score = weight * factor
                if score > found.get(at, 0.0):
                    found[at] = score
        return found

    def _number(self, word: str) -> int:
        return self._numbers.setdefault(word, len(self._numbers))

    def _indexed(self, entry: Entry, reference: ApiReference | None) -> _Indexed:
        weights: dict[int, float] = {}
        for weight, texts in _fields(entry, reference):
            counts = Counter(word for text in texts for word in words(text[:_LONGEST]))
            for word, count in counts.items():
                number = self._number(word)
                weights[number] = weights.get(number, 0.0) + weight * count / (count + _SATURATION)
        operations = tuple(
            (one.id, array("I", {self._number(word) for word in words(f"{one.summary} {one.path} {one.id}")}))
            for one in (reference.operations if reference is not None else ())
        )
        return _Indexed(entry, array("I", weights), array("f", weights.values()), operations)


def _best(
    operations: Iterable[tuple[str, array[int]]], wanted: Sequence[Mapping[int, float]]
) -> Iterator[str]:
    """Yield the ids of the operations that match most words of a query."""
    found: list[tuple[int, int, str]] = []
    for anchor, own in operations:
        count = sum(any(number in similar for number in own) for similar in wanted)
        if count:
            found.append((-count, len(found), anchor))
    for _, _, anchor in sorted(found)[:_MOST_OPERATIONS]:
        yield anchor


def _fields(entry: Entry, reference: ApiReference | None) -> Iterator[tuple[float, list[str]]]:
    """Yield the texts of an entry with their weights."""
    owner = entry.owner
    yield _TITLE, [entry.name, entry.title]
    yield _TAG, list(entry.tags)
    yield _SUMMARY, [entry.summary]
    yield _OWNER, [owner.name, owner.email or ""] if owner is not None else []
    yield _DESCRIPTION, [entry.description]
    yield _PAGE, [text for page in entry.pages for text in (page.title, page.text)]
    if reference is not None:
        operations = reference.operations
        yield _OPERATION, [text for one in operations for text in (one.summary, one.path, *one.tags)]
        yield (
            _DETAIL,
            [text for one in operations for text in (one.description, *(p.name for p in one.parameters))],
        )
        yield _DETAIL, list(reference.schemas)
