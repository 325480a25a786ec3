"""The rows that predictions are compared with: given ones with the dtypes of the explained rows, or some of these."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import dates
from explain_step.config import Config
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput, PredictionFailed
from explain_step.frames import to_frame
from explain_step.model_inputs import check_cells, select, shared, text_labels
from explain_step.seeds import Seeds
from explain_step.types import Caveat, FittedModel

SECTION = "data"
BACKGROUND_ROWS = 20_000
"""Rows that serve as background where there are many and none is given."""
TRIAL_ROWS = 8
"""Background rows that are asked about alone, so that what the model refuses there is blamed on them."""


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with text column names and positions as index, laid out in memory in one way.

    A matrix product can differ in the last bit with the layout of its operands, and frames from pandas,
    polars and Arrow are laid out differently: here each dtype becomes one block, so equal rows get equal
    answers.
    """
    positions = pd.RangeIndex(len(frame))
    columns = {name: frame.iloc[:, k].set_axis(positions) for k, name in enumerate(text_labels(frame))}
    return pd.DataFrame(columns, index=positions, copy=True)


def choose(
    model: FittedModel, whole: pd.DataFrame, background: Any, *, config: Config, big: bool
) -> tuple[pd.DataFrame, pd.DataFrame, str, tuple[Caveat, ...]]:
    """Return the model's columns of rows and background with the same dtypes, and the background's name."""
    X = _inputs(whole, model) if big else select(whole, model.feature_names).copy()
    check_cells(X, argument="X")
    if background is None and big:
        return _sampled_background(X, config=config)
    if background is None:
        name = f"the {len(X):,} explained rows themselves"
        message = (
            "No background was given, so each prediction is compared with the explained rows themselves; "
            "give the training "
            "rows (background=) to compare it with those."
        )
        return X, X, name, (Caveat(code="background_is_sample", section=SECTION, message=message),)
    given = to_frame(background, argument="background")
    reference = plain(select(given, model.feature_names, argument="background"))
    check_cells(reference, argument="background")
    dtypes = {
        name: _common_dtype(X[name], reference[name], column=name)
        for name, ours, theirs in zip(X.columns, X.dtypes, reference.dtypes, strict=True)
        if ours != theirs
    }
    ours = _cast(X, dtypes) if big else X.astype(dtypes)
    return ours, reference.astype(dtypes), f"{len(reference):,} background rows", ()


def _inputs(whole: pd.DataFrame, model: FittedModel) -> pd.DataFrame:
    """Return the model's columns, in the memory of ``whole``."""
    select(whole.iloc[:0], model.feature_names)  # names what is missing
    place = {name: k for k, name in enumerate(whole.columns)}
    return shared(whole, [place[name] for name in model.feature_names])


def _cast(X: pd.DataFrame, dtypes: dict[str, Any]) -> pd.DataFrame:
    """Return ``X`` with other dtypes for some columns; the others are not copied."""
    columns = {name: X[name].astype(dtypes[name]) if name in dtypes else X[name] for name in X.columns}
    return pd.DataFrame(columns, index=X.index, copy=False)


def _sampled_background(
    X: pd.DataFrame, *, config: Config
) -> tuple[pd.DataFrame, pd.DataFrame, str, tuple[Caveat, ...]]:
    size = min(BACKGROUND_ROWS, len(X))
    rows = np.sort(Seeds(config.seed).rng("data", "background").choice(len(X), size, replace=False))
    name = f"a seeded sample of {size:,} of the {len(X):,} explained rows"
    message = (
        f"No background was given, so each prediction is compared with {name}; give the training rows (background=) to "
        "compare it with those."
    )
    caveat = Caveat(code="background_is_sample", section=SECTION, message=message)
    return X, plain(X.iloc[rows]), name, (caveat,)


def check(model: FittedModel, reference: pd.DataFrame, X: pd.DataFrame) -> None:
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
    if dates.is_dates(values):
        return "datetime"
    return "text"
