"""Canonical JSON (RFC 8785): one value, one sequence of bytes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping
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
    try:
        return "".join(_json_parts(value, "$")).encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"Text must be valid Unicode in JSON, got a lone surrogate in {error.object[:80]!r}."
        raise InvalidInput(msg) from error


def _json_parts(value: Any, where: str) -> Iterator[str]:
    kind = type(value)
    if value is None:
        yield "null"
    elif kind is bool:
        yield "true" if value else "false"
    elif kind is str:
        yield json.dumps(value, ensure_ascii=False)
    elif kind is int:
        yield _json_integer(value, where)
    elif kind is float:
        yield _json_number(value, where)
    elif kind in (list, tuple):
        yield from _json_list(value, where)
    elif isinstance(value, Mapping):
        yield from _json_object(value, where)
    else:
        name = f"{kind.__module__}.{kind.__qualname__}"
        msg = f"Value at {where} must be plain JSON, got {name}; use plain_json first."
        raise InvalidInput(msg)


def _json_list(value: Collection[Any], where: str) -> Iterator[str]:
    yield "["
    for i, item in enumerate(value):
        yield "," if i else ""
        yield from _json_parts(item, f"{where}[{i}]")
    yield "]"


def _json_object(value: Mapping[Any, Any], where: str) -> Iterator[str]:
    for key in value:
        if type(key) is not str:
            msg = f"Keys at {where} must be text, got {key!r} of type {type(key).__name__}."
            raise InvalidInput(msg)
    yield "{"
    for i, key in enumerate(sorted(value, key=lambda k: k.encode("utf-16-be", "surrogatepass"))):
        yield f"{',' if i else ''}{json.dumps(key, ensure_ascii=False)}:"
        yield from _json_parts(value[key], f"{where}.{key[:80]}")
    yield "}"


def _json_integer(value: int, where: str) -> str:
    if abs(value) <= _LARGEST_INTEGER:
        return str(value)
    try:
        exact = int(float(value)) == value
    except OverflowError:
        exact = False
    if not exact:
        msg = f"Integer at {where} must be exact as a 64-bit float, got {value}; write it as text."
        raise InvalidInput(msg)
    return _json_number(float(value), where)


def _json_number(value: float, where: str) -> str:
    """ECMAScript's Number::toString: the shortest digits that read back, decimal from 1e-6 up to 1e21."""
    if not math.isfinite(value):
        msg = f"Number at {where} must be finite in JSON, got {value}; use null (plain_json does)."
        raise InvalidInput(msg)
    if value == 0:
        return "0"
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
