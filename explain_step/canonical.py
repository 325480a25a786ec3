"""Canonical JSON (RFC 8785): one value, one sequence of bytes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping
from json.encoder import encode_basestring
from typing import Any

from explain_step.errors import InvalidInput

_LARGEST_INTEGER = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON bytes of a plain Python value (RFC 8785).

    Keys are sorted by their UTF-16 code units, numbers are written as ECMAScript writes them, there is no
    white space. Only ``None``, ``bool``, ``int``, ``float``, ``str``, lists, tuples and mappings with text
    keys are taken: NumPy scalars, NaN and infinity are refused (`plain_json` converts them on purpose).

    Raises
    ------
    InvalidInput
        The value has no canonical JSON form; the message gives the place.

    References
    ----------
    RFC 8785, JSON Canonicalization Scheme, https://www.rfc-editor.org/rfc/rfc8785

    Examples
    --------
    >>> canonical_json({"b": 1.0, "a": [1e21, 1e-7, -0.0, "é"]}).decode()
    '{"a":[1e+21,1e-7,0,"é"],"b":1}'
    """
    parts: list[str] = []
    _write(value, None, parts.append)
    try:
        return "".join(parts).encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"Text must be valid Unicode in JSON, got a lone surrogate in {error.object[:80]!r}."
        raise InvalidInput(msg) from error


_Where = tuple[Any, str | int] | None
"""Where a value is: that of its parent, and its key. Put into words for an error only: a manifest has thousands."""


def _write(value: Any, where: _Where, put: Callable[[str], None]) -> None:
    kind = type(value)
    if kind is str:
        put(encode_basestring(value))
    elif kind is float:
        put(_json_number(value, where))
    elif kind is int:
        put(_json_integer(value, where))
    elif kind is bool or value is None:
        put("null" if value is None else "true" if value else "false")
    elif kind in (list, tuple):
        _write_list(value, where, put)
    elif isinstance(value, Mapping):
        _write_object(value, where, put)
    else:
        name = f"{kind.__module__}.{kind.__qualname__}"
        msg = f"Value at {_place(where)} must be plain JSON, got {name}; use plain_json first."
        raise InvalidInput(msg)


def _write_list(value: Collection[Any], where: _Where, put: Callable[[str], None]) -> None:
    before = "["
    for i, item in enumerate(value):
        put(before)
        _write(item, (where, i), put)
        before = ","
    put("]" if value else "[]")


def _write_object(value: Mapping[Any, Any], where: _Where, put: Callable[[str], None]) -> None:
    for key in value:
        if type(key) is not str:
            msg = f"Keys at {_place(where)} must be text, got {key!r} of type {type(key).__name__}."
            raise InvalidInput(msg)
    before = "{"
    for key in _sorted_keys(value):
        put(f"{before}{encode_basestring(key)}:")
        _write(value[key], (where, key), put)
        before = ","
    put("}" if value else "{}")


def _sorted_keys(value: Mapping[str, Any]) -> list[str]:
    """Sort by UTF-16 code units, in which order ASCII is anyway."""
    if "".join(value).isascii():
        return sorted(value)
    return sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))


def _place(where: _Where) -> str:
    steps: list[str] = []
    while where is not None:
        where, key = where
        steps.append(f"[{key}]" if isinstance(key, int) else f".{key[:80]}")
    return "".join(["$", *reversed(steps)])


def _json_integer(value: int, where: _Where) -> str:
    if abs(value) <= _LARGEST_INTEGER:
        return str(value)
    try:
        exact = int(float(value)) == value
    except OverflowError:
        exact = False
    if not exact:
        msg = f"Integer at {_place(where)} must be exact as a 64-bit float, got {value}; write it as text."
        raise InvalidInput(msg)
    return _json_number(float(value), where)


def _json_number(value: float, where: _Where) -> str:
    """ECMAScript's Number::toString: the shortest digits that read back, decimal from 1e-6 up to 1e21."""
    if not math.isfinite(value):
        msg = f"Number at {_place(where)} must be finite in JSON, got {value}; use null (plain_json does)."
        raise InvalidInput(msg)
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e16:  # here Python writes no exponent either
        return repr(value).removesuffix(".0")
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = int(exponent or 0) + (len(whole) if whole != "0" else len(digits) - len(fraction))
    digits = digits.rstrip("0")
    return ("-" if value < 0 else "") + _place_point(digits, point)


def _place_point(digits: str, point: int) -> str:
    """Write 0.``digits`` x 10**``point``."""
    if len(digits) <= point <= 21:
        return digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"


def plain_json(value: Any) -> Any:
    """Return ``value`` as plain JSON values, converted on purpose.

    NumPy scalars and arrays are unpacked, NaN and infinity become None, sets are sorted, integers beyond
    2**53, lone surrogates and everything unknown become text.

    Examples
    --------
    >>> import numpy as np
    >>> from pathlib import Path
    >>> plain_json({"a": np.float64("nan"), "b": (np.int64(1), {"z", "y"}), 3: Path("x")})
    {'a': None, 'b': [1, ['y', 'z']], '3': 'x'}
    """
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain_json(v) for v in value), key=str)
    if isinstance(value, list | tuple):
        return [plain_json(v) for v in value]
    numpy = sys.modules.get("numpy")  # who has not loaded it has no such value
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return plain_json(value.tolist())
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value) if abs(value) <= _LARGEST_INTEGER else str(int(value))
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return None
    text = str.__str__(value) if isinstance(value, str) else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object from its pairs, as ``object_pairs_hook``: by itself `json` lets the second of two keys win.

    Raises
    ------
    ValueError
        A key is there twice.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            msg = f"the key {key[:80]!r} is there twice"
            raise ValueError(msg)
        found[key] = value
    return found
