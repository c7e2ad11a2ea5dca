"""Tables of measurements as Markdown, each value next to its target."""

from __future__ import annotations

from collections.abc import Iterable


def show(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table."""
    lines = [f"### {title}", "", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    print("\n".join(lines), end="\n\n", flush=True)


def row(what: str, figure: float, limit: float, unit: str, *, least: bool = False) -> tuple[str, ...]:
    """Return a row with a value that must be at most its limit, or with `least` at least."""
    holds = figure >= limit if least else figure <= limit
    bound = f"{'≥' if least else '≤'} {limit:g}{unit}"
    return (what, f"{figure:.3g}{unit}", bound, "yes" if holds else "NO")


HEADS = ("", "measured", "target", "holds")
