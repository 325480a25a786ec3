"""Labels and weights of the rows: aligned by position, checked, in the type of the model's classes."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.config import names as quoted
from explain_step.errors import InvalidInput
from explain_step.model_answers import LARGEST, class_array
from explain_step.model_inputs import shared, text_labels
from explain_step.types import FittedModel, FloatArray

SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100


def take_column(frame: pd.DataFrame, name: str, *, argument: str) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Return the frame without one column, and that column."""
    given = text_labels(frame)
    if name not in given:
        close = difflib.get_close_matches(name, given, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        msg = (
            f"Argument {argument} must be a column of X or an array; there is no column {name!r} in "
            f"{quoted(given)}.{hint}"
        )
        raise InvalidInput(msg)
    position = given.index(name)
    rest = [k for k in range(len(given)) if k != position]
    return shared(frame, rest), frame.iloc[:, position]


def as_labels(y: Any) -> Any:
    """Return labels as a Series, DataFrame or array (polars, Arrow, lists and others become arrays)."""
    if isinstance(y, pd.Series | pd.DataFrame | np.ndarray):
        return y
    library = type(y).__module__.partition(".")[0]
    if hasattr(y, "to_pandas") and library in ("polars", "pyarrow"):
        return y.to_pandas()
    if isinstance(y, dict):
        msg = "Argument y must be one array of labels or a column name, got a dict; give the array."
        raise InvalidInput(msg)
    if isinstance(y, list | tuple) and not any(isinstance(entry, list | tuple | np.ndarray) for entry in y):
        return pd.Series(list(y), dtype=object).infer_objects()  # np.asarray would turn [1, "a"] into text
    return np.asarray(y)


def check_length(values: Any, n: int, *, argument: str) -> None:
    """Raise `InvalidInput` unless there is one entry per row."""
    if np.ndim(values) == 0 or len(values) != n:
        found = "a single value" if np.ndim(values) == 0 else f"{len(values)} entries"
        msg = f"Argument {argument} must have one entry per row of X ({n}), got {found}."
        raise InvalidInput(msg)


def check_order(values: Any, frame: pd.DataFrame, *, argument: str) -> None:
    """Refuse entries whose index holds the rows' labels in another order."""
    if not isinstance(values, pd.Series | pd.DataFrame) or values.index.equals(frame.index):
        return
    index = values.index
    if not index.has_duplicates and not frame.index.has_duplicates and index.isin(frame.index).all():
        msg = (
            f"Argument {argument} must be in the order of X, but its index has the labels of X's rows in "
            "another order; give "
            f"{argument}.loc[X.index] (or {argument}.to_numpy() if the positions are right)."
        )
        raise InvalidInput(msg)


def target(
    labels: Any, *, model: FittedModel, names: tuple[str, ...] | None = None
) -> npt.NDArray[Any] | None:
    """Return labels in the type of the classes, or numbers for a regression.

    Labels may be the classes' own or their declared ``names``, not a mixture of both.
    """
    if labels is None:
        return None
    missing = np.asarray(pd.isna(labels))
    if missing.any():
        msg = (
            f"Argument y must not have missing values, got {int(missing.sum())}; drop those rows from X and "
            "y."
        )
        raise InvalidInput(msg)
    if model.classes is None:
        return _numeric_target(labels, targets=len(model.output_names))
    values = np.asarray(labels, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        msg = f"Argument y must have one label per row for a classifier, got shape {values.shape}."
        raise InvalidInput(msg)
    return _class_labels(values, classes=model.classes, names=names)


def _class_labels(
    values: npt.NDArray[Any], *, classes: tuple[Any, ...], names: tuple[str, ...] | None
) -> npt.NDArray[Any]:
    found = _places(values, classes)
    if -1 in found and names is not None and -1 not in (named := _places(values, names)):
        found = named
    if -1 in found:
        raise InvalidInput(_unknown_label(values, found, classes=classes, names=names))
    result: npt.NDArray[Any] = class_array(classes)[np.array(found, dtype=np.int64)]
    return result


def _places(values: npt.NDArray[Any], labels: tuple[Any, ...]) -> list[int]:
    """Return the position of each value among the labels; -1 for others."""
    position = {label: k for k, label in enumerate(labels)}
    return [position.get(value.item() if hasattr(value, "item") else value, -1) for value in values]


def _unknown_label(
    values: npt.NDArray[Any], found: list[int], *, classes: tuple[Any, ...], names: tuple[str, ...] | None
) -> str:
    unknown = list(dict.fromkeys(value for value, k in zip(values.tolist(), found, strict=True) if k < 0))
    by_text = {str(label): label for label in classes}
    rule = f"Argument y must hold labels among the model's classes {list(classes)!r}"
    if names is not None and tuple(names) != tuple(classes):
        rule += f", or all of them among class_names {list(names)!r}"
    twin = by_text.get(str(unknown[0]))
    if twin is not None:
        kinds = f"{type(unknown[0]).__name__}, the class {twin!r} is {type(twin).__name__}"
        return f"{rule}; the label {unknown[0]!r} is {kinds}; convert y (y.astype({type(twin).__name__}))."
    remedy = "give y as it was in training"
    if names is None and classes == tuple(range(len(classes))):
        remedy += ", or name the classes in the order of the probability columns with class_names"
    return f"{rule}; got {quoted(unknown)}; {remedy}."


def _numeric_target(labels: Any, *, targets: int) -> npt.NDArray[Any]:
    given = np.asarray(labels)
    try:
        if given.dtype.kind in "cmM":  # a cast would drop the imaginary part, or count nanoseconds
            raise TypeError(given.dtype)
        values = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        first = next(iter(given.reshape(-1).tolist()), None)
        msg = (
            f"Argument y must be numbers for a regression, got values like {first!r} ({given.dtype}); convert "
            "it to float, or, where the model answers with probabilities, return one per class (they sum to "
            "1), or say task='binary'."
        )
        raise InvalidInput(msg) from error
    if not np.isfinite(values).all():
        msg = (
            f"Argument y must be finite, got {int((~np.isfinite(values)).sum())} infinite values; drop those "
            "rows."
        )
        raise InvalidInput(msg)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST:
        msg = f"Argument y must hold numbers within {LARGEST:g}, got {largest:.3g}; rescale the target."
        raise InvalidInput(msg)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    width = 1 if values.ndim == 1 else values.shape[1]
    if width != targets:
        msg = (
            f"Argument y must have one column per output of the model ({targets}), got {width}; give one column for "
            "each, or a callable that returns the outputs that y is about."
        )
        raise InvalidInput(msg)
    return values


def counted(y: npt.NDArray[Any], weights: FloatArray | None) -> npt.NDArray[Any]:
    """Return the labels that count: those of rows with a positive weight."""
    return y if weights is None else y[weights > 0]


def weights(sample_weight: Any, frame: pd.DataFrame) -> FloatArray | None:
    """Return sample weights (an array, or a column of the frame) after checking them."""
    if sample_weight is None:
        return None
    values = sample_weight
    if isinstance(values, str):
        values = take_column(frame, values, argument="sample_weight")[1]
    values = as_labels(values)
    check_length(values, len(frame), argument="sample_weight")
    check_order(values, frame, argument="sample_weight")
    weights = _weight_numbers(values, n=len(frame))
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.max() > 0:
        bad = weights[~np.isfinite(weights) | (weights < 0)]
        found = f"got {bad[0]}" if len(bad) else "all of them are zero"
        msg = (
            f"Argument sample_weight must be finite, not negative and not all zero; {found}; give weights from 0 "
            "up, or leave it out."
        )
        raise InvalidInput(msg)
    # only their ratios count; sums and squares of extreme ones would leave the range of numbers
    ordinary = SMALLEST_WEIGHT <= float(weights.max()) <= LARGEST_WEIGHT
    return weights if ordinary else weights / weights.max()


def _weight_numbers(values: Any, *, n: int) -> FloatArray:
    given = np.asarray(values)
    rule = f"Argument sample_weight must be numbers, one per row of X ({n})"
    if given.size != n:
        msg = f"{rule}, got shape {given.shape}; give one column."
        raise InvalidInput(msg)
    try:
        if given.dtype.kind in "cmM":
            raise TypeError(given.dtype)
        return np.array(pd.Series(given.reshape(-1)).astype("float64"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"{rule}, got {given.dtype}; convert them to float."
        raise InvalidInput(msg) from error
