"""Amounts of money as people write them. Amounts themselves are integers in minor units (ISO 4217)."""

from __future__ import annotations

import re

_WHOLE = frozenset({"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"})  # fmt: skip
"""Currencies without minor units."""
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})
_MOST_DIGITS = 15


def formatted(amount: int, currency: str) -> str:
    """Return an amount of minor units with its currency, such as ``EUR 1,029.00``."""
    return f"{currency} {_decimal(amount, currency, grouped=True)}"


def written(amount: int, currency: str) -> str:
    """Return an amount of minor units as `parsed` reads it, such as ``1029.00``."""
    return _decimal(amount, currency, grouped=False)


def parsed(text: str, currency: str) -> int:
    """Return the minor units of an amount such as ``29`` or ``29.5``. Raises ValueError with an example of this currency."""
    digits = _digits(currency)
    found = re.fullmatch(
        rf"(\d{{1,{_MOST_DIGITS}}})(?:\.(\d{{1,{digits}}}))?" if digits else r"(\d{1,15})()?",
        text.strip(),
        re.ASCII,
    )
    if found is None:
        raise ValueError(f"write an amount such as {written(10**digits * 29, currency)}")
    return int(found[1] + (found[2] or "").ljust(digits, "0"))


def _decimal(amount: int, currency: str, *, grouped: bool) -> str:
    digits = _digits(currency)
    sign, minor = ("-" if amount < 0 else ""), abs(amount)
    whole, rest = divmod(minor, 10**digits)
    text = f"{whole:,}" if grouped else str(whole)
    return f"{sign}{text}.{rest:0{digits}}" if digits else f"{sign}{text}"


def _digits(currency: str) -> int:
    return 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2
