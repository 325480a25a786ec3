"""Numbers, names and text as a reader sees them: rounding, thousands, missing values, hostile strings."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

MISSING = "\u2013"
"""Shown where there is no number: an en dash, always with a reason beside the table."""
MINUS = "\u2212"
SUPERSCRIPT = str.maketrans(
    "0123456789-", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b"
)
OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LINE_BREAKS = frozenset("\n\r\x0b\x0c\x85\u2028\u2029")
LONG_FLOAT = re.compile(r"-?\d+\.\d{4,}(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Name:
    """Text that comes from the data (a column, a level, a class): set apart from our own words when shown."""

    text: str


Part: TypeAlias = str | Name
Text: TypeAlias = tuple[Part, ...]
"""A sentence: our words as plain strings, the data's words as `Name`."""


def clean(text: object) -> str:
    r"""Return ``text`` as one printable line.

    Line breaks become a sign; control characters, overrides of the text's direction and lone surrogates
    become U+FFFD. Right-to-left letters and marks stay.

    Examples
    --------
    >>> clean("a\nb")
    'a↵b'
    """
    line = str(text)
    return line if line.isprintable() else "".join(_clean_character(c) for c in line)


def _clean_character(c: str) -> str:
    if c in LINE_BREAKS:
        return "\u21b5"
    if c == "\t":
        return " "
    if c in OVERRIDES or unicodedata.category(c) in ("Cc", "Cs"):
        return "\ufffd"
    return c


def shorten(text: str, width: int = 60) -> str:
    """Return at most ``width`` characters: the beginning and the end around an ellipsis.

    Examples
    --------
    >>> shorten("a" * 50 + "b" * 50, 11)
    'aaaaaa…bbbb'
    """
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 5
    return text[: width - 1 - tail] + "\u2026" + text[len(text) - tail :]


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a finite number (bool does not count)."""
    if value is None or isinstance(value, bool | str):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, ValueError):
        return False


def decimals(values: Iterable[Any], *, digits: int = 3) -> int:
    """Return how many decimals show the largest finite magnitude with ``digits`` significant digits.

    One count for a whole column keeps its numbers aligned; `number` writes powers of ten beyond 6 decimals.

    Examples
    --------
    >>> decimals([0.0654, 0.0021]), decimals([714.0]), decimals([])
    (4, 0, 2)
    """
    top = max((abs(float(v)) for v in values if is_number(v)), default=0.0)
    if top == 0.0:
        return digits - 1
    exponent = math.floor(math.log10(float(f"{top:.{digits - 1}e}")))
    return max(0, digits - 1 - exponent)


def number(value: Any, *, places: int | None = None, digits: int = 3, sign: bool = False) -> str:
    r"""Return a number for readers: thousands separators, a real minus, never ``nan``, never a false zero.

    Parameters
    ----------
    value : float or None
    places : int, optional
        Decimals to show; default: ``digits`` significant digits. Without decimals, numbers from 1,000 on have
        ``digits`` significant digits as well.
    digits : int
    sign : bool
        Show a plus before positive numbers.

    Examples
    --------
    >>> print(ascii((number(1666), number(0.12345), number(-0.5), number(None), number(0.0004, places=2))))
    ('1,670', '0.123', '\u22120.500', '\u2013', '<0.01')
    """
    if not is_number(value):
        return MISSING
    v = float(value)
    wanted = decimals([v], digits=digits) if places is None else places
    if wanted > 6 or abs(v) >= 1e9:
        return _power_of_ten(v, digits=digits, sign=sign)
    if places is None or (wanted == 0 and abs(v) >= 1000):
        v = float(f"{v:.{digits - 1}e}")
    text = f"{abs(v):,.{wanted}f}"
    if v != 0 and float(text.replace(",", "")) == 0:
        unit = f"{10.0**-wanted:,.{wanted}f}"
        return f"<{unit}" if v > 0 else f">{MINUS}{unit}"
    return _signed(v, text, sign=sign)


def _signed(v: float, text: str, *, sign: bool) -> str:
    return (MINUS if v < 0 else "+" if sign and v > 0 else "") + text


def _power_of_ten(v: float, *, digits: int, sign: bool) -> str:
    if v == 0:
        return "0"
    mantissa, exponent = f"{abs(v):.{digits - 1}e}".split("e")
    return _signed(v, f"{mantissa}\u2009\u00d7\u200910{str(int(exponent)).translate(SUPERSCRIPT)}", sign=sign)


def interval(low: Any, high: Any, *, places: int | None = None, digits: int = 3) -> str:
    r"""Return ``0.810 to 0.870``; an en dash where a bound is not known.

    Examples
    --------
    >>> print(ascii((interval(0.81, 0.87), interval(22066.0, 26132.0), interval(None, 1.0))))
    ('0.810 to 0.870', '22,100 to 26,100', '\u2013')
    """
    if not (is_number(low) and is_number(high)):
        return MISSING
    shared = decimals([low, high], digits=digits) if places is None else places
    return f"{number(low, places=shared)} to {number(high, places=shared)}"


def count(value: Any) -> str:
    r"""Return a whole number with thousands separators.

    Examples
    --------
    >>> print(ascii((count(1666), count(None))))
    ('1,666', '\u2013')
    """
    return f"{round(float(value)):,}" if is_number(value) else MISSING


def percent(value: Any, *, places: int = 0) -> str:
    r"""Return a share as a percentage.

    Examples
    --------
    >>> print(ascii((percent(0.6234), percent(0.0004), percent(None))))
    ('62%', '<1%', '\u2013')
    """
    if not is_number(value):
        return MISSING
    return number(float(value) * 100, places=places) + "%" if float(value) != 0 else "0%"


def p_value(value: Any) -> str:
    """Return a p-value with two digits.

    Examples
    --------
    >>> p_value(0.00002), p_value(0.0312), p_value(1.0)
    ('<0.001', '0.031', '1.00')
    """
    if not is_number(value):
        return MISSING
    p = float(value)
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def tidy(value: Any) -> str:
    r"""Return a value of the data for readers: long floats keep four digits, everything else stays as it is.

    Examples
    --------
    >>> print(ascii((tidy("0.2210000038146972"), tidy("2008"), tidy("007"), tidy(None))))
    ('0.221', '2008', '007', '\u2013')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, float):
        value = str(int(value)) if value == int(value) and abs(value) < 1e9 else repr(value)
    text = clean(value).strip()
    if LONG_FLOAT.fullmatch(text):
        short = f"{float(text):.4g}"
        return number(float(text), digits=4) if "e" in short else short.replace("-", MINUS)
    return text if text.lower() not in ("nan", "none", "nat", "<na>", "") else MISSING


def plural(n: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun.

    Examples
    --------
    >>> plural(1, "row"), plural(1666, "row"), plural(2, "class", "classes")
    ('1 row', '1,666 rows', '2 classes')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listing(parts: Sequence[Part], *, last: str = "and") -> Text:
    """Return ``a, b and c`` as a sentence part.

    Examples
    --------
    >>> listing(["a", "b", "c"])
    ('a', ', ', 'b', ' and ', 'c')
    """
    out: list[Part] = []
    for k, part in enumerate(parts):
        if k:
            out.append(f" {last} " if k == len(parts) - 1 else ", ")
        out.append(part)
    return tuple(out)


def plain(text: Text) -> str:
    """Return a sentence as a plain string."""
    return "".join(part.text if isinstance(part, Name) else part for part in text)
