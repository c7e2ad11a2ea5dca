"""CEL: what is parsed, how strongly operators bind, and what is refused with its column."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.authorization import cel
from filters.language import Mistake

NAMES = {name: partial(cel.variable, name) for name in ("a", "b", "c", "request")}


def _shown(node: Any) -> str:
    """An expression with every pair of parentheses."""
    match node.WhichOneof("expr_kind"):
        case "ident_expr":
            return str(node.ident_expr.name)
        case "const_expr":
            return repr(getattr(node.const_expr, node.const_expr.WhichOneof("constant_kind")))
        case "select_expr":
            inner = f"{_shown(node.select_expr.operand)}.{node.select_expr.field}"
            return f"has({inner})" if node.select_expr.test_only else inner
        case "list_expr":
            return f"[{' '.join(map(_shown, node.list_expr.elements))}]"
    call = node.call_expr
    parts = [*([_shown(call.target)] if call.HasField("target") else []), *map(_shown, call.args)]
    return f"({' '.join([call.function, *parts])})"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a || b && c", "(_||_ a (_&&_ b c))"),
        ("a && b || c", "(_||_ (_&&_ a b) c)"),
        ("a == 1 && b", "(_&&_ (_==_ a 1) b)"),
        ("a || b || c || a", "(_||_ (_||_ a b) (_||_ c a))"),
        ("a - 1 - 2", "(_-_ (_-_ a 1) 2)"),
        ("a + 1 * 2", "(_+_ a (_*_ 1 2))"),
        ("(a + 1) * 2", "(_*_ (_+_ a 1) 2)"),
        ("!a.b", "(!_ a.b)"),
        ("!!a", "(!_ (!_ a))"),
        ("-a < 0x10", "(_<_ (-_ a) 16)"),
        ("a ? b : c ? 1 : 2", "(_?_:_ a b (_?_:_ c 1 2))"),
        ("a in ['x', \"y\"]", "(@in a ['x' 'y'])"),
        ("request.headers['x-a'].startsWith('b')", "(startsWith (_[_] request.headers 'x-a') 'b')"),
        ("has(a.b) && size(a) > 1u", "(_&&_ has(a.b) (_>_ (size a) 1))"),
        ("a == true || b == null || c == 1.5e3", "(_||_ (_||_ (_==_ a True) (_==_ b 0)) (_==_ c 1500.0))"),
        (r"a == 'it\'s' || b == r'\d'", "(_||_ (_==_ a \"it's\") (_==_ b '\\\\d'))"),
    ],
)
def test_operators_bind_as_cel_says(text: str, shown: str) -> None:
    assert _shown(cel.parse(text, NAMES)) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: a value is expected"),
        ("a &&", "column 5"),
        ("a b", "column 3: 'b' is not expected"),
        ("d == 1", "column 1: there is no 'd'"),
        ("a.exists(x, x == 1)", "Envoy has no method 'exists'"),
        ("now()", "Envoy has no function 'now'"),
        ("a == 'x' + b", "Envoy joins no texts"),
        ("b in [a] + [c]", "Envoy joins no texts"),
        ("string(a) == 'x'", "Envoy has no function 'string'"),
        ("has(a)", "has\\(\\) takes a field"),
        ("has()", "has\\(\\) takes a field"),
        ("(a", "'\\)' is expected, not the end"),
        ("a == 'x", "column 6: ''' is not CEL"),
        ("a == '\\x'", "the string is malformed"),
        ("a = 1", "'=' is not CEL"),
        ("(" * 60 + "a" + ")" * 60, "nested too deeply"),
        (" + ".join(["a"] * 100), "nested too deeply"),
        ("!" * 100 + "a", "nested too deeply"),
        ("a" * 3000, "at most 2000 letters"),
        ("a.matches('(')", "column 11: RE2 does not take this expression"),
        ("a.matches('b{1001}')", "RE2 does not take this expression"),
        ("a.matches()", "matches\\(\\) takes one text"),
        ("a.startsWith('b', 'c')", "startsWith\\(\\) takes one text"),
        ("a.size(1) == 1", "size\\(\\) takes nothing"),
        ("a == 9223372036854775808", "column 6: the number is too large"),
    ],
)
def test_what_is_no_cel_is_told_with_its_column(text: str, message: str) -> None:
    with pytest.raises(Mistake, match=message):
        cel.parse(text, NAMES)


@given(st.text("ab.()[]'\"!&|=<>?:,in 1\\has", max_size=40))
def test_any_text_is_an_expression_or_a_mistake(text: str) -> None:
    try:
        parsed = cel.parse(text, NAMES)
    except Mistake:
        return
    assert parsed.WhichOneof("expr_kind") is not None
