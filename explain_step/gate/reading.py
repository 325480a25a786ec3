"""A policy file to plain values: YAML or JSON, without the traps of either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from explain_step.errors import InvalidInput
from explain_step.written import MAX_VALUES, parse

MAX_BYTES = 2**20
MAX_DEPTH = 20


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file.

    Raises
    ------
    InvalidInput
        The file is not there, larger than `MAX_BYTES`, not YAML or JSON, has a key twice, or holds no mapping.
    """
    text = _text(path)
    try:
        parsed = parse(text, suffix=path.suffix)
    except ValueError as error:
        msg = f"Argument policy must be a YAML or JSON file; {str(path)!r} is not: {error}"
        raise InvalidInput(msg) from error
    if not isinstance(parsed, dict):
        found = "is empty" if parsed is None else f"holds {_kind(parsed)}"
        msg = f"Policy {str(path)!r} must hold a mapping, it {found}; start with 'version: 1'."
        raise InvalidInput(msg)
    return parsed


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            msg = f"Policy {str(path)!r} must have at most {MAX_BYTES} bytes; it has more."
            raise InvalidInput(msg)
        return data.decode("utf-8-sig")
    except OSError as error:
        msg = f"Argument policy must be a readable file; {str(path)!r} is not: {error.strerror}."
        raise InvalidInput(msg) from error
    except UnicodeDecodeError as error:
        msg = f"Policy {str(path)!r} must be UTF-8 text: {error}."
        raise InvalidInput(msg) from error


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def check_plain(value: Any) -> None:
    """Raise `InvalidInput` where a mapping has a key that is no text, or the value is too large or deep."""
    for count, _ in enumerate(_walk(value, where="", depth=0)):
        if count > MAX_VALUES:
            msg = f"A policy must have at most {MAX_VALUES} values with its aliases followed; it has more."
            raise InvalidInput(msg)


def _walk(value: Any, *, where: str, depth: int) -> Iterator[None]:
    if depth > MAX_DEPTH:
        msg = f"Policy key {where[:80]!r} must be nested at most {MAX_DEPTH} deep."
        raise InvalidInput(msg)
    yield None
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                _refuse_key(key, where)
            yield from _walk(inner, where=f"{where}.{key}" if where else key, depth=depth + 1)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _walk(inner, where=f"{where}[{i}]", depth=depth + 1)


def _refuse_key(key: object, where: str) -> None:
    place = f" under {where!r}" if where else ""
    msg = f"Policy keys{place} must be text, got {as_written(key)}; {quote_hint(key)}."
    raise InvalidInput(msg)


def as_written(value: object) -> str:
    """Return a value for a message, shortened; truth values and nothing as YAML shows them."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def quote_hint(value: object) -> str:
    """Return the remedy where text is wanted: YAML reads some words as something else."""
    if isinstance(value, bool):
        return "YAML reads an unquoted yes, no, on or off as true or false: put it in quotes"
    return "put it in quotes"
