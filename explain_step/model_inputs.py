"""From the caller's frame to what the model was trained on: column names, order, container."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.config import names as quoted
from explain_step.errors import InvalidInput

Container = Literal["frame", "array", "series", "records"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The raw columns a model reads.

    Attributes
    ----------
    names : tuple of str
        Names as the package uses them.
    labels : tuple
        The frame's own labels, which the model gets (they need not be text).
    container : {"frame", "array", "series", "records"}
        What the model is handed: a DataFrame, an ndarray (fitted without names), one Series (text pipelines), or a
        list of dicts (functions of one row after the other).
    """

    names: tuple[str, ...]
    labels: tuple[Any, ...]
    container: Container = "frame"

    def prepare(self, frame: pd.DataFrame) -> Any:
        """Return the model's columns of ``frame`` in its container: a copy, so a model cannot change ours."""
        picked = select(frame, self.names).copy()
        if self.container == "array":
            return to_array(picked)
        if self.container == "series":
            return picked.iloc[:, 0]
        picked.columns = pd.Index(self.labels)
        return picked.to_dict(orient="records") if self.container == "records" else picked


def text_labels(frame: pd.DataFrame) -> list[str]:
    """Return the column labels as text."""
    return [str(label) for label in frame.columns]


def check_frame(frame: pd.DataFrame, *, argument: str) -> None:
    """Raise `InvalidInput` for a frame without rows or columns, or with two columns of the same name."""
    if frame.shape[1] == 0:
        msg = f"Argument {argument} must have at least one column, got none."
        raise InvalidInput(msg)
    if frame.shape[0] == 0:
        remedy = (
            "give the training rows, or leave it out to compare with the explained rows"
            if argument == "background"
            else "give held-out rows"
        )
        msg = f"Argument {argument} must have at least one row, got none; {remedy}."
        raise InvalidInput(msg)
    broken = [label for label in text_labels(frame) if not _encodes(label)]
    if broken:
        msg = f"Column names of argument {argument} must be valid text, got {quoted(broken)}; rename the column."
        raise InvalidInput(msg)
    labels = pd.Index(text_labels(frame))
    if labels.has_duplicates:
        twice = list(dict.fromkeys(labels[labels.duplicated()]))
        msg = (
            f"Column names of argument {argument} must be unique, got {quoted(twice)} more than once; "
            "rename or drop the duplicates."
        )
        raise InvalidInput(msg)


def check_cells(frame: pd.DataFrame, *, argument: str) -> None:
    """Refuse columns that a table of attributions cannot speak of: complex numbers, and lists in cells."""
    for name in frame.columns:
        values = frame[name]
        if pd.api.types.is_complex_dtype(values.dtype):
            msg = (
                f"Argument {argument} must hold real numbers; column {name!r} is {values.dtype}; give real and "
                "imaginary part as two columns, and a callable that puts them together."
            )
            raise InvalidInput(msg)
        if values.dtype != object:
            continue
        odd = next((v for v in values if not pd.api.types.is_hashable(v)), None)
        if odd is not None:
            msg = (
                f"Argument {argument} must hold one value per cell; column {name!r} holds {type(odd).__name__}s; "
                "give a column per entry, and a callable that puts them together."
            )
            raise InvalidInput(msg)


def shared(
    frame: pd.DataFrame,
    positions: Sequence[int],
    *,
    names: Sequence[Any] | None = None,
    index: pd.Index[Any] | None = None,
) -> pd.DataFrame:
    """Return some columns of a frame, under other names and another index of the same length, without a copy of any cell.

    What is returned must not be written to.
    """
    labels = [frame.columns[k] for k in positions] if names is None else list(names)
    rows = frame.index if index is None else index
    columns = {i: pd.Series(frame.iloc[:, k].array, index=rows, copy=False) for i, k in enumerate(positions)}
    out = pd.DataFrame(columns, index=rows, copy=False)
    out.columns = pd.Index(labels)
    out.attrs = frame.attrs
    return out


def _encodes(text: str) -> bool:
    """Return whether a text can be written to a file (half a surrogate pair cannot)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def select(frame: pd.DataFrame, names: Sequence[str], *, argument: str = "X") -> pd.DataFrame:
    """Return the named columns in order; labels are compared as text.

    Raises
    ------
    InvalidInput
        Columns are missing; near names are suggested.
    """
    given = text_labels(frame)
    if given == list(names):
        return frame
    where = {label: position for position, label in enumerate(given)}
    absent = [name for name in names if name not in where]
    if absent:
        raise InvalidInput(missing_message(absent, given, argument=argument))
    return frame.iloc[:, [where[name] for name in names]]


def missing_message(absent: Sequence[str], given: Sequence[str], *, argument: str) -> str:
    """Return the message about columns that the model reads and the frame lacks."""
    hints = []
    for name in absent[:5]:
        close = difflib.get_close_matches(name, given, n=1)
        if close:
            hints.append(f"{close[0]!r} for {name!r}")
    hint = f" Did you mean {', '.join(hints)}?" if hints else ""
    return (
        f"Argument {argument} must have every column the model reads; {quoted(absent)} "
        f"{'is' if len(absent) == 1 else 'are'} missing among {quoted(given)}.{hint} "
        "Give the raw columns the model was fitted on."
    )


def to_array(frame: pd.DataFrame) -> npt.NDArray[Any]:
    """Return the values as one array: numbers in a common type (missing = NaN), otherwise objects."""
    if all(pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes):
        plain = [dtype for dtype in frame.dtypes if isinstance(dtype, np.dtype)]
        if len(plain) == frame.shape[1]:
            return frame.to_numpy(dtype=np.result_type(*plain), copy=True)
        return frame.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    return frame.to_numpy(dtype=object, copy=True)


def named_columns(frame: pd.DataFrame, wanted: Iterable[Any]) -> Columns:
    """Return the columns of a model that knows their names."""
    names = tuple(str(name) for name in wanted)
    picked = select(frame, names)
    return Columns(names=names, labels=tuple(picked.columns))


def counted_columns(frame: pd.DataFrame, count: int | None, *, container: Container) -> Columns:
    """Return all columns of the frame, for a model that knows at most how many there were."""
    if count is not None and count != frame.shape[1]:
        msg = (
            f"Argument X must have exactly the {count} columns the model was fitted on, in that order, "
            "because the model "
            f"does not know their names; got {frame.shape[1]} columns: {quoted(text_labels(frame))}. "
            "Drop the others, or fit the model on a DataFrame."
        )
        raise InvalidInput(msg)
    return Columns(names=tuple(text_labels(frame)), labels=tuple(frame.columns), container=container)


def all_text(labels: Iterable[Any]) -> bool:
    """Return whether every label is text."""
    return all(isinstance(label, str) for label in labels)


# --- what may have gone wrong


def suspects(frame: pd.DataFrame, *, error: Exception | None = None) -> str:
    """Return a hint at columns with infinite or missing values; of an ``error`` also at those with text.

    Examples
    --------
    >>> words = ValueError("could not convert string to float: 'high'")
    >>> suspects(pd.DataFrame({"job": ["clerk", "smith"], "income": ["high", "low"]}), error=words)
    "; the rows have text in 'income'"
    """
    missing = [str(label) for label, some in zip(frame.columns, frame.isna().any(), strict=True) if some]
    found = {
        "text": [] if error is None else _text_behind(error, frame),
        "infinite values": infinite_columns(frame),
        "missing values": missing,
    }
    parts = [f"{what} in {quoted(names)}" for what, names in found.items() if names]
    return f"; the rows have {' and '.join(parts)}" if parts else ""


def _text_behind(error: Exception, frame: pd.DataFrame) -> list[str]:
    """Return the columns with text that an error quotes, by a value or by name; all with text where it names none."""
    said = str(error)
    words = {}
    for k, label in enumerate(text_labels(frame)):
        series = frame.iloc[:, k]
        if not pd.api.types.is_numeric_dtype(series.dtype):
            words[label] = {value for value in series.unique() if isinstance(value, str)}
    named = [label for label, values in words.items() if values and _quoted_in(said, {label, *values})]
    others = [label for label in text_labels(frame) if label not in words]
    if not named and any(re.search(rf"column ['\"]?{re.escape(label)}(?!\w)", said) for label in others):
        return []
    return named or [label for label, values in words.items() if values]


def _quoted_in(said: str, texts: Iterable[str]) -> bool:
    return any(form in said for text in texts for form in (f"'{text}'", f'"{text}"', f" {text}:"))


def infinite_columns(frame: pd.DataFrame) -> list[str]:
    """Return names of the columns that hold infinity."""
    return [
        str(label)
        for k, label in enumerate(frame.columns)
        if pd.api.types.is_float_dtype(frame.dtypes.iloc[k])
        and bool(np.isinf(frame.iloc[:, k].to_numpy(dtype=np.float64, na_value=np.nan)).any())
    ]
