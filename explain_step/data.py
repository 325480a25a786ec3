"""From any frame to a `Subject`: aligned rows, labels and weights, a background, and caveats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import backgrounds, model_options
from explain_step import labels as labels_room
from explain_step.backgrounds import plain
from explain_step.config import Config
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput
from explain_step.frames import MANY_ROWS, ROWS_CUT, TARGET, to_frame
from explain_step.labels import take_column
from explain_step.model_inputs import check_frame, infinite_columns, shared, text_labels
from explain_step.model_options import default_targets
from explain_step.quantity import incomparable
from explain_step.types import Caveat, FittedModel, Response, Subject

__all__ = ["MANY_ROWS", "split_target", "subject", "take_column", "to_frame"]

REPEAT_ROWS = 64
FEW_TEXTS = 12
"""Texts with at most this many distinct values are levels, also where they are digits."""
MANY_TEXTS = 200
"""So many values tell whether a column holds numbers as text."""
SECTION = "data"
BLOCK_ROWS = 1 << 16
"""Of many rows, the model is asked about so many at a time."""


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
    many: int = MANY_ROWS,
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
    many : int
        More rows than this are not copied: the subject's frames share the memory of ``frame``, and its ``row_ids`` are
        the labels themselves.

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
    big = len(rows) > many
    ids = _row_ids(rows, big=big)
    whole = (
        shared(rows, range(rows.shape[1]), names=text_labels(rows), index=pd.RangeIndex(len(rows)))
        if big
        else plain(rows)
    )
    model_options.check_groups(config, model)
    model_options.check_labels(config, [*whole.columns, name])
    X, reference, reference_name, more = backgrounds.choose(model, whole, background, config=config, big=big)
    model = _named(model, labels, name=name)
    response = _in_blocks(model, X) if big else model.respond(X)
    # errors of a score against labels would look like numbers and say nothing
    judged = incomparable(model, response) is None
    target = labels_room.target(labels, model=model, names=config.class_names) if judged else None
    if background is not None:
        backgrounds.check(model, reference, X)
    made = Subject(
        model=model,
        X=X,
        frame=whole,
        y=target,
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
        *_weight_caveat(made, config=config),
        *_two_values_caveat(made, config=config),
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


def _in_blocks(model: FittedModel, X: pd.DataFrame) -> Response:
    """Return the model's answer, asked for in blocks of `BLOCK_ROWS` rows, each laid out as `_plain` does it."""
    parts = [model.respond(plain(X.iloc[a : a + BLOCK_ROWS])) for a in range(0, len(X), BLOCK_ROWS)]

    def joined(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    return Response(**{name: joined(name) for name in ("output", "label", "probability", "prediction")})


def _row_ids(frame: pd.DataFrame, *, big: bool = False) -> npt.NDArray[Any]:
    """Return the index as text, or, of many rows, as it is; repeated labels get their position added."""
    index = frame.index
    if big and index.is_unique and not isinstance(index, pd.MultiIndex):
        return index.to_numpy()
    if index.equals(pd.RangeIndex(len(frame))):
        return np.array([str(k) for k in range(len(frame))], dtype=object)
    repeated = index.duplicated(keep=False)
    ids = [
        f"{label} (row {k})" if again else str(label)
        for k, (label, again) in enumerate(zip(index, repeated, strict=True))
    ]
    return np.array(ids, dtype=object)


# --- what a reader must know


def _cut_caveat(frame: pd.DataFrame) -> tuple[Caveat, ...]:
    if ROWS_CUT not in frame.attrs:
        return ()
    message = (
        f"Only {frame.attrs[ROWS_CUT]:,} rows were fetched from Spark, a random sample; the others were not "
        "looked at."
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


def _weight_caveat(made: Subject, *, config: Config) -> tuple[Caveat, ...]:
    """Say where rows without weight leave so few that two groups of them would not be compared."""
    counted = len(made.X) if made.weights is None else int(np.count_nonzero(made.weights))
    if counted == len(made.X) or counted >= 2 * config.min_segment:
        return ()
    message = (
        f"Only {counted:,} of the {len(made.X):,} rows have a positive weight: averages and intervals rest on these; give "
        "more rows a weight."
    )
    return (Caveat(code="few_weighted_rows", section=SECTION, message=message, degrades=True),)


def _two_values_caveat(made: Subject, *, config: Config) -> tuple[Caveat, ...]:
    """Return what to do where labels and answers look like a classifier's, and nothing else tells that it is one."""
    model, output = made.model, made.response.predicted
    if config.task is not None or model.task != "regression" or made.y is None or output.shape[1] != 1:
        return ()
    two = bool(np.isin(made.y, (0, 1)).all()) and len(np.unique(made.y)) == 2
    if not two or output.min() < 0 or output.max() > 1:
        return ()
    message = (
        "The labels are 0 and 1 and every answer lies between them, but the model is explained as a regression: its "
        "errors are measured, not its ranking. If the answers are probabilities, say task='binary'."
    )
    return (Caveat(code="two_valued_target", section=SECTION, message=message),)


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
    """Return the columns with a single value and none missing; zeros with and without a sign are two."""
    return [name for name in X.columns if _is_constant(X[name])]


def _is_constant(column: pd.Series[Any]) -> bool:
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if not (values == values[0]).all() or np.signbit(values).any() != np.signbit(values).all():
            return False  # else whole numbers above 2**53 may still differ
    return bool(not column.isna().any() and (column == column.iloc[0]).all())


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
