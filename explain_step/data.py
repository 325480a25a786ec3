"""From any frame to a `Subject`: aligned rows, labels and weights, a background, and caveats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import labels as labels_room
from explain_step import model_options
from explain_step.config import Config
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.frames import ROWS_CUT, TARGET, to_frame
from explain_step.labels import take_column
from explain_step.model_answers import infinite_columns
from explain_step.model_inputs import check_cells, check_frame, select, text_labels
from explain_step.model_options import default_targets
from explain_step.types import Caveat, FittedModel, Response, Subject

__all__ = ["split_target", "subject", "take_column", "to_frame"]

REPEAT_ROWS = 64
TRIAL_ROWS = 8
"""Background rows that are asked about alone, so that what the model refuses there is blamed on them."""
FEW_TEXTS = 12
"""Texts with at most this many distinct values are levels, also where they are digits."""
MANY_TEXTS = 200
"""So many values tell whether a column holds numbers as text."""
SECTION = "data"


def split_target(frame: pd.DataFrame, y: Any) -> tuple[pd.DataFrame, Any, str]:
    """Return the frame without its target, the labels (with the frame's index), and the target's name.

    A target named as a column leaves the frame before the model sees it: it must never be a feature.

    Parameters
    ----------
    frame : DataFrame of n rows
    y : str, array-like of n labels, or None
        None takes the target that an MLflow dataset declares, if any.

    Raises
    ------
    InvalidInput
        No such column, another number of labels than rows, or labels whose index has the rows' labels in
        another order.

    Examples
    --------
    >>> rest, labels, name = split_target(pd.DataFrame({"age": [1, 2], "deny": ["no", "yes"]}), "deny")
    >>> rest.columns.tolist(), labels.tolist(), name
    (['age'], ['no', 'yes'], 'deny')
    """
    if y is None:
        y = frame.attrs.get(TARGET)
    if y is None:
        return frame, None, ""
    if isinstance(y, str):
        rest, values = take_column(frame, y, argument="y")
        if rest.shape[1] == 0:
            msg = f"Argument X must have columns beside the target {y!r}, got none."
            raise InvalidInput(msg)
        return rest, values, y
    labels = labels_room.as_labels(y)
    labels_room.check_length(labels, len(frame), argument="y")
    labels_room.check_order(labels, frame, argument="y")
    name = getattr(labels, "name", None)
    if isinstance(labels, pd.DataFrame) and labels.shape[1] == 1:
        name, labels = labels.columns[0], labels.iloc[:, 0]
    if np.ndim(labels) == 1:
        labels = pd.Series(np.asarray(labels), index=frame.index, name=name)
    return frame, labels, "" if name is None else str(name)


def subject(
    model: FittedModel,
    frame: Any,
    y: Any = None,
    *,
    config: Config,
    background: Any = None,
    sample_weight: Any = None,
) -> tuple[Subject, tuple[Caveat, ...]]:
    """Return what is explained, and the caveats that the data itself gives cause for.

    Parameters
    ----------
    model : FittedModel
    frame : frame-like of n rows
        The rows to be explained, with the model's columns and any others.
    y : array-like of n labels or column name, optional
        Aligned by position. Labels must be among the model's classes.
    config : Config
    background : frame-like, optional
        Reference rows with the model's columns. Default: the explained rows themselves.
    sample_weight : array-like of n weights or column name, optional
        Finite, not negative, not all zero.

    Returns
    -------
    Subject, tuple of Caveat

    Raises
    ------
    InvalidInput
        An argument breaks a rule.
    PredictionFailed
        The model does not answer on these rows.
    """
    rows = to_frame(frame)
    rows, labels, name = split_target(rows, y)
    check_frame(rows, argument="X")
    weights = labels_room.weights(sample_weight, rows)
    caveats = _cut_caveat(rows)
    ids = _row_ids(rows)
    whole = _plain(rows)
    model_options.check_groups(config, model)
    model_options.check_labels(config, [*whole.columns, name])
    X, reference, reference_name, more = _background(model, whole, background)
    model = _named(model, labels, name=name)
    response = model.respond(X)
    if background is not None:
        _try_background(model, reference, X)
    made = Subject(
        model=model,
        X=X,
        frame=whole,
        y=labels_room.target(labels, model=model),
        background=reference,
        background_name=reference_name,
        weights=weights,
        row_ids=ids,
        target_name=name,
        response=response,
    )
    return made, (
        *caveats,
        *more,
        *_row_caveats(made),
        *_column_caveats(X, background=reference),
        *_unread_caveat(whole, X),
        *_repeat_caveat(model, X, response),
        *model_options.label_caveat(config, [*whole.columns, name]),
    )


# --- rows and background


def _named(model: FittedModel, labels: Any, *, name: str) -> FittedModel:
    """Return the model with its regression outputs named after the target, where they had no names."""
    if model.task != "regression" or model.output_names != default_targets(len(model.output_names)):
        return model
    if isinstance(labels, pd.DataFrame) and labels.shape[1] == len(model.output_names):
        return replace(model, output_names=tuple(text_labels(labels)))
    return replace(model, output_names=(name,)) if name and len(model.output_names) == 1 else model


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with text column names and positions as index, laid out in memory in one way.

    A matrix product can differ in the last bit with the layout of its operands, and frames from pandas,
    polars and Arrow are laid out differently: here each dtype becomes one block, so equal rows get equal
    answers.
    """
    positions = pd.RangeIndex(len(frame))
    columns = {name: frame.iloc[:, k].set_axis(positions) for k, name in enumerate(text_labels(frame))}
    return pd.DataFrame(columns, index=positions, copy=True)


def _row_ids(frame: pd.DataFrame) -> npt.NDArray[Any]:
    """Return the index as text; repeated labels get their position added."""
    index = frame.index
    if index.equals(pd.RangeIndex(len(frame))):
        return np.array([str(k) for k in range(len(frame))], dtype=object)
    repeated = index.duplicated(keep=False)
    ids = [
        f"{label} (row {k})" if again else str(label)
        for k, (label, again) in enumerate(zip(index, repeated, strict=True))
    ]
    return np.array(ids, dtype=object)


def _background(
    model: FittedModel, whole: pd.DataFrame, background: Any
) -> tuple[pd.DataFrame, pd.DataFrame, str, tuple[Caveat, ...]]:
    """Return the model's columns of rows and background with the same dtypes, and the background's name."""
    X = select(whole, model.feature_names).copy()
    check_cells(X, argument="X")
    if background is None:
        name = f"the {len(X):,} explained rows themselves"
        message = (
            "No background was given, so each prediction is compared with the explained rows themselves; "
            "give the training "
            "rows (background=) to compare it with those."
        )
        return X, X, name, (Caveat(code="background_is_sample", section=SECTION, message=message),)
    given = to_frame(background, argument="background")
    reference = _plain(select(given, model.feature_names, argument="background"))
    check_cells(reference, argument="background")
    dtypes = {
        name: _common_dtype(X[name], reference[name], column=name)
        for name, ours, theirs in zip(X.columns, X.dtypes, reference.dtypes, strict=True)
        if ours != theirs
    }
    return X.astype(dtypes), reference.astype(dtypes), f"{len(reference):,} background rows", ()


def _try_background(model: FittedModel, reference: pd.DataFrame, X: pd.DataFrame) -> None:
    """Ask about a few background rows, the suspicious ones among them, so that a refusal names the argument."""
    suspects = {
        name: broken
        for name in reference.columns
        if (broken := _not_finite(reference[name])).any() and not _not_finite(X[name]).any()
    }
    rows = {*range(min(len(reference), TRIAL_ROWS)), *(int(np.argmax(b)) for b in suspects.values())}
    try:
        model.predict(reference.iloc[sorted(rows)])
    except PredictionFailed as error:
        found = (
            f"; {quoted([*suspects])} {'has' if len(suspects) == 1 else 'have'} missing or infinite values "
            f"there and not in X (first in row {int(np.argmax(next(iter(suspects.values()))))})"
            if suspects
            else ""
        )
        msg = (
            f"Argument background must hold rows that the model can predict{found}; drop or impute what it "
            f"does not take. {error}"
        )
        raise InvalidInput(msg) from error


def _not_finite(values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Return which values are missing or infinite."""
    missing = values.isna().to_numpy(dtype=np.bool_)
    if pd.api.types.is_float_dtype(values.dtype):
        return np.asarray(missing | np.isinf(values.to_numpy(dtype=np.float64, na_value=np.nan)))
    return np.asarray(missing)


def _common_dtype(ours: pd.Series[Any], theirs: pd.Series[Any], *, column: str) -> Any:
    """Return the dtype in which values of one column can stand in rows of the other."""
    if isinstance(ours.dtype, pd.CategoricalDtype):
        return pd.CategoricalDtype(_levels(ours, theirs), ordered=ours.dtype.ordered)
    if _kind(ours) != _kind(theirs) and not ours.isna().all() and not theirs.isna().all():
        msg = (
            f"Argument background must have the dtypes of X; column {column!r} is {ours.dtype} in X and "
            f"{theirs.dtype} in the background; convert one of them."
        )
        raise InvalidInput(msg)
    if _kind(ours) != "number" or _kind(theirs) != "number":
        return ours.dtype
    if isinstance(ours.dtype, np.dtype) and isinstance(theirs.dtype, np.dtype):
        return np.result_type(ours.dtype, theirs.dtype)
    return pd.concat([ours.iloc[:0], theirs.iloc[:0]]).dtype


def _levels(ours: pd.Series[Any], theirs: pd.Series[Any]) -> list[Any]:
    """Return our levels, then theirs that we lack: codes of our rows do not change."""
    known = list(ours.cat.categories)
    found = (
        theirs.cat.categories if isinstance(theirs.dtype, pd.CategoricalDtype) else theirs.dropna().unique()
    )
    return known + [level for level in found if level not in set(known)]


def _kind(values: pd.Series[Any]) -> str:
    if pd.api.types.is_numeric_dtype(values.dtype):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return "datetime"
    return "text"


# --- what a reader must know


def _cut_caveat(frame: pd.DataFrame) -> tuple[Caveat, ...]:
    if ROWS_CUT not in frame.attrs:
        return ()
    message = (
        f"Only the first {frame.attrs[ROWS_CUT]:,} rows were fetched from Spark; the others were not looked "
        "at."
    )
    return (Caveat(code="rows_cut", section=SECTION, message=message),)


def _row_caveats(made: Subject) -> tuple[Caveat, ...]:
    found = []
    if len(made.X) == 1:
        message = "There is only one row, so no interval can be computed; give more held-out rows."
        found.append(Caveat(code="single_row", section=SECTION, message=message, degrades=True))
    if made.y is not None and made.model.classes is not None and len(made.X) > 1:
        present = list(dict.fromkeys(labels_room.counted(made.y, made.weights).tolist()))
        if len(present) == 1:
            which = "All labels" if made.weights is None else "All labels of rows with a positive weight"
            message = f"{which} are {present[0]!r}: performance cannot be judged; give rows of every class."
            found.append(Caveat(code="single_class_y", section=SECTION, message=message, degrades=True))
        absent = [repr(c) for c in made.model.classes if c not in set(present)]
        if len(present) > 1 and absent:
            message = (
                f"No label that counts is {' or '.join(absent[:5])}: averages over classes leave these out; "
                "give rows of every class."
            )
            found.append(Caveat(code="absent_classes", section=SECTION, message=message))
    return tuple(found)


def _column_caveats(X: pd.DataFrame, *, background: pd.DataFrame) -> tuple[Caveat, ...]:
    empty = X.columns[X.isna().all()].tolist()
    constant = _constant_columns(X)
    infinite = infinite_columns(X)
    texts = [name for name in X.columns if _numbers_as_text(X[name])]
    found = []
    if texts:
        message = (
            f"Columns that hold numbers as text: {quoted(texts)}; they are shown as levels, not as curves. If "
            "they are quantities, convert them with astype(float) and fit the model on that."
        )
        found.append(Caveat(code="numbers_as_text", section=SECTION, message=message))
    if empty:
        message = (
            f"Columns without any value in the explained rows: {quoted(empty)}; what the model does with "
            "their values is not seen here."
        )
        found.append(Caveat(code="empty_columns", section=SECTION, message=message, degrades=True))
    if constant and len(X) > 1:
        stuck = [name for name in constant if (background[name] == X[name].iloc[0]).all()]
        varying = [name for name in constant if name not in stuck]
        found += [*_constant_caveat(stuck, varies=False), *_constant_caveat(varying, varies=True)]
    if infinite:
        message = f"Columns with infinite values, which the model accepts: {quoted(infinite)}."
        found.append(Caveat(code="infinite_values", section=SECTION, message=message))
    return tuple(found)


def _constant_caveat(names: list[str], *, varies: bool) -> tuple[Caveat, ...]:
    """Say which columns have one value; where the background has no other one either, they are not explained."""
    where = "in the explained rows" if varies else "in the explained and the background rows"
    so = (
        "their attributions compare that value with the background's, and there is no curve"
        if varies
        else "their attribution is zero for that reason alone, and what the model does with them is not seen here"
    )
    message = f"Columns with a single value {where}: {quoted(names)}; {so}."
    caveat = Caveat(code="constant_columns", section=SECTION, message=message, degrades=not varies)
    return (caveat,) if names else ()


def _unread_caveat(whole: pd.DataFrame, X: pd.DataFrame) -> tuple[Caveat, ...]:
    """Say which of the given columns are no inputs: otherwise they look forgotten, or without effect."""
    extra = [name for name in whole.columns if name not in X.columns]
    if not extra:
        return ()
    message = (
        f"Given columns that the model does not read: {quoted(extra)}; they have no attribution and can only form "
        "segments."
    )
    return (Caveat(code="columns_not_read", section=SECTION, message=message),)


def _numbers_as_text(values: pd.Series[Any]) -> bool:
    """Return whether a text column has more than a few distinct values and all of them read as numbers."""
    if not (values.dtype == object or isinstance(values.dtype, pd.StringDtype)):
        return False
    some = values.dropna().head(MANY_TEXTS)
    if pd.api.types.infer_dtype(some) != "string" or some.nunique() <= FEW_TEXTS:
        return False
    return bool(pd.to_numeric(some, errors="coerce").notna().all())


def _constant_columns(X: pd.DataFrame) -> list[str]:
    """Return the columns with a single value and none missing."""
    numeric = X.select_dtypes(include="number", exclude="timedelta")
    values = numeric.to_numpy(dtype=np.float64, na_value=np.nan)
    found = set(numeric.columns[(values == values[0]).all(axis=0)])
    for name in X.columns.difference(numeric.columns, sort=False):
        column = X[name]
        if not column.isna().any() and (column == column.iloc[0]).all():
            found.add(name)
    return [name for name in X.columns if name in found]


def _repeat_caveat(model: FittedModel, X: pd.DataFrame, response: Response) -> tuple[Caveat, ...]:
    """Ask again for some of the rows, backwards: answers must not depend on the call or on other rows."""
    rows = np.arange(min(len(X), REPEAT_ROWS))[::-2]
    again = model.predict(X.iloc[rows])
    scale = 1e-5 * float(np.abs(response.output).max())
    if np.allclose(again, response.output[rows], rtol=0, atol=scale):
        return ()
    message = (
        "The model's answer for a row changes from call to call or depends on the other rows, so its "
        "explanation is not well "
        "defined; make predict deterministic and row by row."
    )
    return (Caveat(code="prediction_not_repeatable", section=SECTION, message=message, degrades=True),)
