"""What is wrong with a policy, in plain words: place, rule, value, remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from explain_step.gate.reading import as_written, quote_hint

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_RULES = {
    "float_type": "be a number",
    "int_type": "be a whole number",
    "bool_type": "be true or false",
    "string_type": "be text",
    "tuple_type": "be a list",
    "dict_type": "be a mapping",
    "model_type": "be a mapping",
    "model_attributes_type": "be a mapping",
    "date_type": "be a day such as 2026-12-31",
    "finite_number": "be a finite number",
    "string_pattern_mismatch": "not be blank",
    "too_short": "not be empty",
}
_LIMITS = {
    "greater_than": ("gt", "be above {}"),
    "greater_than_equal": ("ge", "be at least {}"),
    "less_than": ("lt", "be below {}"),
    "less_than_equal": ("le", "be at most {}"),
}


def describe(error: ValidationError, *, schema: type[BaseModel]) -> str:
    """Return one message for all problems: the first in full, how many more."""
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = _one(errors[0], schema=schema)
    return first if len(errors) == 1 else f"{first} ({len(errors) - 1} more after this one.)"


def _one(error: ErrorDetails, *, schema: type[BaseModel]) -> str:
    place, kind = error["loc"], error["type"]
    where = _where(place)
    if kind == "extra_forbidden":
        return f"Policy key {where!r} is not known; {_known(place, schema=schema)}"
    if kind == "missing":
        remedy = "; start with 'version: 1'" if where == "version" else ""
        return f"Policy key {where!r} must be given{remedy}."
    if kind == "value_error":
        rule = str(error["msg"]).removeprefix("Value error, ")
        return f"{_subject(where)} {rule}."
    if "[key]" in place or kind == "invalid_key":
        return f"Policy key {where!r} is not known; known here: {_choices(error) or 'text'}."
    rule = _rule(error)
    remedy = f"; {quote_hint(error['input'])}" if kind == "string_type" and _is_scalar(error["input"]) else ""
    return f"{_subject(where)} must {rule}, got {as_written(error['input'])}{remedy}."


def _subject(where: str) -> str:
    return f"Policy key {where!r}" if where else "A policy"


def _rule(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return f"be {context['expected']}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return words.format(f"{context[key]:g}")
    return _RULES.get(kind, "have another form")


def _choices(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("expected", ""))


def _is_scalar(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping | list | tuple)


def _where(place: tuple[int | str, ...]) -> str:
    text = ""
    for part in place:
        if part == "[key]":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _known(place: tuple[int | str, ...], *, schema: type[BaseModel]) -> str:
    known = _keys_at(place[:-1], schema=schema)
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}."


def _keys_at(place: tuple[int | str, ...], *, schema: type[BaseModel]) -> list[str]:
    """Return the keys that the schema has at a place."""
    model = schema
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the schema inside ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)
