"""Notations of numbers with thousands separators, percent signs or currency signs, such as ``5.537,45``, ``1'234.50``,
``91,6%`` and ``$1,234.50``.

A column has one notation: all of its cells must fit it. Plain numbers are read by ``values`` first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.tables.cells import APOSTROPHES, GROUPS, SPACES, notation_number, notation_pattern
from service.datasets.tables.values import is_number, parse_all

CURRENCIES: Final = "$\u20ac\u00a3\u00a5"
_POINT_CURRENCIES: Final = frozenset("$\u00a3\u00a5")
"""Currencies of countries that write a decimal point."""
SIGNS: Final = frozenset(f".,%{CURRENCIES}{SPACES}{APOSTROPHES}")
"""Characters by which notations differ."""


@dataclass(frozen=True)
class Numerals:
    """A notation of numbers.

    Attributes:
        decimal: the decimal sign.
        group: the thousands separator, which precedes each group of three digits, or is omitted.
        percent: whether each number ends with a percent sign; the value is the number before it.
        currency: the signs, one of which precedes or follows each number; empty: none.
    """

    decimal: str
    group: str
    percent: bool = False
    currency: str = ""

    @property
    def _pattern(self) -> re.Pattern[str]:
        return notation_pattern(self.decimal, self.group, self.percent, self.currency)

    def number(self, text: str) -> float:
        """Parse a number.

        Raises:
            ValueError: it is not written in this notation, or not finite.
        """
        return notation_number(text, self.decimal, self.group, self.percent, self.currency)

    def numbers(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Parse numbers; missing values and infinite ones become NaN.

        Raises:
            ValueError: a text is neither a number in this notation nor a missing value.
        """
        return parse_all(texts, self.number)

    def narrowed(self, signs: Collection[str]) -> Numerals:
        """The notation with only those currency signs that a column has."""
        return replace(self, currency="".join(sign for sign in self.currency if sign in signs))

    def document(self) -> dict[str, Any]:
        """The fields for the notation in the description of a column."""
        fields: dict[str, Any] = {"decimal": self.decimal, "group": self.group}
        if self.currency:
            fields["currency"] = self.currency
        return fields | ({"percent": True} if self.percent else {})

    @classmethod
    def of(cls, column: Mapping[str, Any]) -> Numerals | None:
        """The notation of a column, if it is not that of plain numbers."""
        if "group" not in column:
            return None
        return cls(column["decimal"], column["group"], column.get("percent", False), column.get("currency", ""))


NOTATIONS: Final = tuple(
    Numerals(decimal, group, percent, currency)
    for percent, currency in ((False, ""), (True, ""), (False, CURRENCIES))
    for decimal, groups in ((".", ", '"), (",", ". '"))
    for group in groups
)


def decimal_sign(texts: Sequence[str], *, default: str) -> str:
    """The sign that most numbers with decimals have; ``default`` if there are none, or as many of both."""
    counts = dict.fromkeys((form.decimal for form in NOTATIONS), 0)
    for text in texts:
        for sign in counts:
            counts[sign] += sign in text and any(
                notation._pattern.fullmatch(text) for notation in NOTATIONS if notation.decimal == sign
            )
    highest = max(counts.values())
    leading = [sign for sign, count in counts.items() if count == highest]
    return leading[0] if len(leading) == 1 else default


def keeps_plain_values(form: Numerals, signs: Collection[str], *, decimal_comma: bool) -> bool:
    """Whether plain numbers with only these signs are numbers in a notation, with the same values.

    Args:
        decimal_comma: whether plain numbers may also have a decimal comma.
    """
    is_plain = form.decimal == "." or decimal_comma
    return not (form.percent or form.currency) and (not signs or (is_plain and set(signs) == {form.decimal}))


def choose_notation(
    forms: Sequence[Numerals], signs: Collection[str], *, decimal_comma: bool, is_stated: bool = False
) -> Numerals | None:
    """The notation of a column whose cells match all of ``forms``; ``None`` if the cells may not be numbers,
    or have several currencies.

    Args:
        signs: those in the column.
        decimal_comma: whether commas in this file are decimal signs if both readings are possible.
        is_stated: whether the user stated that the column has numbers.
    """
    decimals = {form.decimal for form in forms}
    currencies = set(CURRENCIES).intersection(signs) if forms[0].currency else set()
    if len(currencies) > 1:
        return None
    is_unambiguous = is_stated or decimal_comma or bool(currencies & _POINT_CURRENCIES)
    is_marked = forms[0].percent or bool(currencies)
    if len(decimals) == 2 and "," in signs and not is_unambiguous:
        return None  # 1,234 can be read either way
    if (
        decimals == {","}
        and not is_marked
        and not is_unambiguous
        and not any(_has_group_sign(form, signs) for form in forms)
    ):
        return None  # if commas separate the columns, 1,5 is more likely a list than a number
    prefers_comma = len(decimals) == 2 and decimal_comma and "." not in signs
    decimal = "," if decimals == {","} or prefers_comma else "."
    fitting = [form for form in forms if form.decimal == decimal]
    return next((form for form in fitting if _has_group_sign(form, signs)), fitting[0])


def _has_group_sign(form: Numerals, signs: Collection[str]) -> bool:
    return any(re.fullmatch(GROUPS[form.group], sign) for sign in signs)


def looks_like_number(text: str) -> bool:
    """Whether a text is a number in some notation."""
    return is_number(text) or any(form._pattern.fullmatch(text) for form in NOTATIONS)
