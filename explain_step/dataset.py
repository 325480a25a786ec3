"""What a caller says about the explained rows, and why they are explained. Said, not measured: outside the snapshot id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from explain_step.errors import InvalidInput
from explain_step.secret_masking import mask_text

MOST_TEXT = 500


class Dataset(BaseModel):
    """Facts about the explained rows for the record. All are optional.

    Attributes
    ----------
    source : str
        Path, URI or name of a query. A path is where `explain_step.replay` looks for the rows.
    licence : str
    split : str
        ``"test"``, ``"validation"``, …
    row_id : str
        Column that identifies a row.
    parents : tuple of str
        Digests or names of what the rows were made from.
    time_range : tuple of two str
        First and last time, ISO 8601.

    Examples
    --------
    >>> described({"source": "s3://bucket/test.parquet?token=abc", "split": "test"})
    {'source': 's3://bucket/test.parquet?token=***', 'split': 'test'}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str | None = Field(default=None, max_length=MOST_TEXT)
    licence: str | None = Field(default=None, max_length=MOST_TEXT)
    split: str | None = Field(default=None, max_length=MOST_TEXT)
    row_id: str | None = Field(default=None, max_length=MOST_TEXT)
    parents: tuple[str, ...] = Field(default=(), max_length=100)
    time_range: tuple[str, str] | None = None

    @field_validator("parents", "time_range", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def described(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the given facts as plain JSON values, credentials in URLs masked.

    Raises
    ------
    InvalidInput
        An unknown fact, or one of another type.
    """
    if facts is None:
        return {}
    if not isinstance(facts, Mapping):
        msg = (
            f"Option dataset must map facts to values, got {type(facts).__name__}; write {{'split': 'test'}}."
        )
        raise InvalidInput(msg)
    try:
        plain = Dataset.model_validate(dict(facts)).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = ", ".join(Dataset.model_fields)
        msg = f"Option dataset: {place} is not right ({first['msg']}); known facts, all text: {known}."
        raise InvalidInput(msg) from error
    return {key: _masked(value) for key, value in plain.items()}


def purpose(text: Any) -> str | None:
    """Return the stated reason of an explanation, masked.

    Raises
    ------
    InvalidInput
        Not a text of at most 500 characters.
    """
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        msg = f"Option purpose must be a text of at most {MOST_TEXT} characters, got {str(text)[:80]!r}."
        raise InvalidInput(msg)
    return mask_text(text)


def _masked(value: Any) -> Any:
    return mask_text(value) if isinstance(value, str) else [mask_text(v) for v in value] if value else value
