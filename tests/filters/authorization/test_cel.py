"""CEL: what is compiled, how strongly operators bind, and what is refused with its column."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.authorization.authorize import CONDITIONS
from filters.language import Mistake

IDENTITY = "(_[_] metadata.filter_metadata 'xds.identity')."


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


def shown(text: str) -> str:
    """The same, with the metadata of authentication as a condition writes it."""
    return _shown(CONDITIONS.parse(text)).replace(IDENTITY, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("claims.a || claims.b && claims.c", "(_||_ claims.a (_&&_ claims.b claims.c))"),
        ("claims.a && claims.b || claims.c", "(_||_ (_&&_ claims.a claims.b) claims.c)"),
        ("claims.a == 1 && claims.b", "(_&&_ (_==_ claims.a 1) claims.b)"),
        ("claims.a - 1 - 2 == 0", "(_==_ (_-_ (_-_ claims.a 1) 2) 0)"),
        ("claims.a + 1 * 2 == 0", "(_==_ (_+_ claims.a (_*_ 1 2)) 0)"),
        ("(claims.a + 1) * 2 == 0", "(_==_ (_*_ (_+_ claims.a 1) 2) 0)"),
        ("!claims.a.b", "(!_ claims.a.b)"),
        ("!!!claims.a", "(!_ claims.a)"),
        ("-claims.a < 0x10", "(_<_ (-_ claims.a) 16)"),
        (
            "claims.a ? claims.b : claims.c ? true : false",
            "(_?_:_ claims.a claims.b (_?_:_ claims.c True False))",
        ),
        ("plan in ['x', \"y\"]", "(@in plan ['x' 'y'])"),
        ("request.headers['x-a'].startsWith('b')", "(startsWith (_[_] request.headers 'x-a') 'b')"),
        ("has(claims.a.b) && size(claims.a) > 1u", "(_&&_ has(claims.a.b) (_>_ (size claims.a) 1))"),
        ("claims.a == null || claims.c == 1.5e3", "(_||_ (_==_ claims.a 0) (_==_ claims.c 1500.0))"),
        (r"plan == 'it\'s' || plan == r'\d'", "(_||_ (_==_ plan \"it's\") (_==_ plan '\\\\d'))"),
        ("plan == 'a' // of today", "(_==_ plan 'a')"),
        ("claims.`a.b` == 1", "(_==_ claims.a.b 1)"),
        ("source.port == 80 && request.size > 5.5", "(_&&_ (_==_ source.port 80) (_>_ request.size 5.5))"),
        # CEL has `has` of fields only; here it also asks whether a caller is known
        ("has(consumer) && !has( plan)", "(_&&_ has(consumer) (!_ has(plan)))"),
        ("has(claims)", "has(claims)"),
    ],
)
def test_operators_bind_as_cel_says(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_every_expression_has_a_number_of_its_own() -> None:
    parsed = CONDITIONS.parse("claims.a == claims.b && consumer == plan")
    found = [parsed]
    for one in found:
        found += [*one.call_expr.args, *([one.select_expr.operand] if one.HasField("select_expr") else [])]
    assert len({one.id for one in found}) == len(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: a value is expected"),
        ("plan &&", "column 8: a value is expected"),
        ("claims.a b", "column 10: 'b' is not expected here"),
        ("d == 1", "column 1: there is no 'd'"),
        ("d.e.f == 1", "column 1: there is no 'd'"),
        ("plan == 'é' && plen == 'a'", "column 16: there is no 'plen'"),
        ("plan == 'a' &&\n  plen == 'a'", "line 2, column 3: there is no 'plen'"),
        ("has(plan) && has(claims) && plen == 'a'", "column 29: there is no 'plen'"),
        ("request.pth == '/'", "column 9: there is no 'request.pth'"),
        ("connection.tls == 'a'", "column 12: there is no 'connection.tls'"),
        ("claims.a.exists(x, x == 1)", "column 10: Envoy has no method 'exists'"),
        ("claims.a.map(x, x) == []", "column 10: Envoy has no method 'map'"),
        ("request.path.startWith('a')", "column 14: Envoy has no method 'startWith'"),
        ("request.time.getHours() > 5", "Envoy has no method 'getHours'"),
        ("now()", "column 1: Envoy has no function 'now'"),
        ("string(claims.a) == 'x'", "column 1: Envoy has no function 'string'"),
        ("type(claims.a) == string", "Envoy has no function 'type'|there is no 'string'"),
        ("plan == 'x' + plan", "column 13: Envoy joins no texts"),
        ("request.path + request.host == 'x'", "column 14: Envoy joins no texts"),
        ("plan in ['a'] + [plan]", "Envoy joins no texts"),
        ("{'a': 1}['a'] == 1", "Envoy makes no mappings"),
        ("has(request)", "column 5: has\\(\\) takes a field"),
        ("has()", "has\\(\\) takes a field"),
        ("has(claims['a'])", "has\\(\\) takes a field"),
        ("(plan", "column 6: '\\)' is expected, not the end"),
        ("plan == 'x", "column 9: the string is malformed"),
        ("plan == '\\x'", "column 9: the string is malformed"),
        ("plan.matches('\\d')", "the string is malformed"),
        ("claims.a = 1", "column 10: '=' is not CEL"),
        ("for == 1", "column 1: 'for' is a reserved word"),
        ("plan.name == 'a'", "column 5: a string has no fields"),
        ("plan == 1", "column 6: '==' cannot be applied to \\(string, int\\)"),
        ("request.time < '2020'", "'<' cannot be applied to \\(timestamp, string\\)"),
        ("plan in 'pro'", "'in' cannot be applied to \\(string, string\\)"),
        ("source.port == '80'", "'==' cannot be applied to \\(int, string\\)"),
        ("int(plan) + 1.5 == 2.5", "'\\+' cannot be applied to \\(int, double\\)"),
        ("size(plan) > 1u && plan == 1", "'==' cannot be applied to \\(string, int\\)"),
        ("plan.startsWith(1)", "'startsWith' cannot be applied to \\(string, int\\)"),
        ("plan", "the condition is of type string, and not true or false"),
        ("(" * 60 + "claims.a" + ")" * 60, "nested too deeply"),
        (" + ".join(["claims.a"] * 100) + " == 1", "nested too deeply"),
        ("!(" * 30 + "claims.a" + ")" * 30, "nested too deeply"),
        ("claims" + ".a" * 40 + " == 1", "nested too deeply"),
        ("a" * 3000, "at most 2000 letters"),
        ("claims.a.matches('(')", "column 17: RE2 does not take this expression"),
        ("claims.a.matches('b{1001}')", "RE2 does not take this expression"),
        ("claims.a.matches('[a-z]{60}x{50}')", "column 17: RE2 makes 114 instructions of this expression"),
        ("claims.a.matches()", "column 10: matches\\(\\) takes one text"),
        ("claims.a.startsWith('b', 'c')", "startsWith\\(\\) takes one text"),
        ("claims.a.size(1) == 1", "size\\(\\) takes nothing"),
        ("size() == 1", "size\\(\\) takes one value"),
        ("claims.a == 9223372036854775808", "column 13: the number is too large"),
        ("plan == '\ud800'", "column 10: this is no letter"),
        ("__present.plan", "column 1: there is no '__present'"),
    ],
)
def test_what_is_no_cel_is_told_with_its_column(text: str, message: str) -> None:
    with pytest.raises(Mistake, match=message):
        CONDITIONS.parse(text)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("plen == 'a'", "did you mean 'plan'?"),
        ("request.pth == '/'", "did you mean 'path'?"),
        ("request.path.startWith('a')", "did you mean 'startsWith'?"),
        ("tymestamp('a') == request.time", "did you mean 'timestamp'?"),
        ("plan == 1", "use values of the same type"),
        ("plan == '\\d'", "write r'...' around backslashes"),
        ("claims.a == 9223372036854775808", "at most 9223372036854775807"),
    ],
)
def test_a_mistake_has_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(Mistake) as found:
        CONDITIONS.parse(text)
    assert remedy in found.value.remedy


_WORDS = st.lists(
    st.sampled_from(
        [
            "claims",
            "plan",
            "has",
            ".",
            "a",
            "(",
            ")",
            "[",
            "]",
            "'",
            '"',
            "!",
            "&&",
            "||",
            "==",
            "<",
            "?",
            ":",
            ",",
            "in",
            " ",
            "1",
            "\\",
            "\n",
            "é",
            "\0",
        ]
    ),
    max_size=20,
).map("".join)


@given(_WORDS | st.text(max_size=20))
def test_any_text_is_an_expression_or_a_mistake(text: str) -> None:
    try:
        parsed = CONDITIONS.parse(text)
    except Mistake:
        return
    assert parsed.WhichOneof("expr_kind") is not None


def test_only_a_condition_loads_the_compiler() -> None:
    """It is large, and a policy server never needs it."""
    script = (
        "import sys, filters, xds_server.policy_server.workers; assert 'cel_expr_python' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "text",
    ["1 < 2.5 ? 'a' : 'b'", "request.size > 10.5 ? request.method : request.path"],
)
def test_a_condition_with_mixed_numbers_must_be_true_or_false_too(text: str) -> None:
    with pytest.raises(Mistake, match="not true or false"):
        CONDITIONS.parse(text)


@pytest.mark.parametrize(
    "value", ["claims['a'].b", "claims.a.b", "claims['a']", "has(claims.a)", "(plan == 'x' ? true : false)"]
)
def test_a_value_of_unknown_type_may_be_true_or_false_beside_mixed_numbers(value: str) -> None:
    CONDITIONS.parse(f"request.size > 10.5 ? {value} : true")
