"""Mixed rows behind column-wise steps: the given rows are transformed once, and their derived columns are mixed.

Where every derived column comes from one raw column (`preprocessing`), a mixed row's derived columns are those of the rows
it is mixed from. One-hot encoding each of a hundred thousand mixed rows costs more than many models' answers to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.types import FittedModel, FloatArray, IntArray

MOST_CELLS = 20_000_000
"""Largest table of derived columns that is held: 160 MB."""
MOST_WIDER = 20
"""Derived columns per raw column beyond which mixing them costs more than the steps do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """The derived columns of some rows.

    Attributes
    ----------
    matrix : ndarray of shape (rows, derived)
    sources : ndarray of int of shape (derived,)
        The raw column of each.
    answers : callable
        Rows like ``matrix`` to the explained outputs (rows, n_outputs).
    """

    matrix: npt.NDArray[Any]
    sources: IntArray
    answers: Callable[[npt.NDArray[Any]], FloatArray]


def of(model: FittedModel, rows: pd.DataFrame) -> Derived | None:
    """Return the derived columns of rows; None where the model is not asked through steps like that."""
    steps, ask = model.preprocessing, model.derived_outputs
    if steps is None or ask is None or len(steps.sources) * len(rows) > MOST_CELLS:
        return None
    if len(steps.sources) > MOST_WIDER * len(model.feature_names):
        return None
    try:
        made = steps.transform(rows)
    except Exception:  # noqa: BLE001 - the model, asked about these rows, says it with a remedy
        return None
    remade, matrix = _container(made), _dense(made)
    if remade is None or matrix.dtype.kind not in "fiub":
        return None
    if matrix.shape != (len(rows), len(steps.sources)):
        return None
    return Derived(
        matrix=matrix,
        sources=np.asarray(steps.sources, dtype=np.int64),
        answers=lambda block: ask(remade(block)),
    )


def _container(part: Any) -> Callable[[npt.NDArray[Any]], Any] | None:
    """Return what turns an array into what the steps return; None for frames of several types."""
    if isinstance(part, np.ndarray):
        return lambda block: block
    if isinstance(part, pd.DataFrame):
        same = len(set(part.dtypes)) == 1 and isinstance(part.dtypes.iloc[0], np.dtype)
        return (lambda block: pd.DataFrame(block, columns=part.columns)) if same else None
    return type(part) if hasattr(part, "tocsr") else None


def _dense(part: Any) -> npt.NDArray[Any]:
    return np.asarray(part.toarray() if hasattr(part, "tocsr") else part)
