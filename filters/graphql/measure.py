"""How large a document of an operation is, before it is validated: depth and aliases, with its fragments."""

from __future__ import annotations

from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

INTROSPECTION = ("__schema", "__type")
LONGEST_CHAIN = 50
"""Fragments, each used in the one before."""


@dataclass(frozen=True, slots=True)
class Measure:
    """`depth` is that of the deepest field, `aliases` counts each fragment as often as it is used."""

    depth: int = 0
    aliases: int = 0
    introspects: bool = False
    chain: int = 0


@dataclass(frozen=True, slots=True)
class _Own:
    """What a definition has itself: `spreads` are the fragments that it uses, with the depth at which it does."""

    measure: Measure
    spreads: tuple[tuple[str, int], ...]


def measure(document: DocumentNode, operation: OperationDefinitionNode) -> Measure:
    """The measure of an operation. Fragments in a circle count once; validation reports them."""
    fragments = {
        one.name.value: _own(one.selection_set)
        for one in document.definitions
        if isinstance(one, FragmentDefinitionNode)
    }
    return _whole(_own(operation.selection_set), fragments, {}, ())


def _own(start: SelectionSetNode) -> _Own:
    depth, aliases, introspects = 0, 0, False
    spreads: list[tuple[str, int]] = []
    waiting = [(start, 1)]
    while waiting:
        selections, level = waiting.pop()
        for one in selections.selections:
            if isinstance(one, FragmentSpreadNode):
                spreads.append((one.name.value, level - 1))
            elif isinstance(one, InlineFragmentNode):
                waiting.append((one.selection_set, level))
            elif isinstance(one, FieldNode):
                aliases += one.alias is not None
                depth = max(depth, level)
                if one.name.value in INTROSPECTION:
                    introspects = True  # its depth has a limit of its own, the rule MaxIntrospectionDepth
                elif one.selection_set is not None:
                    waiting.append((one.selection_set, level + 1))
    return _Own(Measure(depth, aliases, introspects), tuple(spreads))


def _whole(
    own: _Own, fragments: dict[str, _Own], known: dict[str, Measure], users: tuple[str, ...]
) -> Measure:
    depth, aliases, introspects, chain = own.measure.depth, own.measure.aliases, own.measure.introspects, 0
    for name, level in own.spreads:
        if name not in fragments or name in users or len(users) > LONGEST_CHAIN:
            chain = max(chain, len(users) > LONGEST_CHAIN)
            continue
        if name not in known:
            known[name] = _whole(fragments[name], fragments, known, (*users, name))
        found = known[name]
        depth, aliases = max(depth, level + found.depth), aliases + found.aliases
        introspects, chain = introspects or found.introspects, max(chain, found.chain + 1)
    return Measure(depth, aliases, introspects, chain)
