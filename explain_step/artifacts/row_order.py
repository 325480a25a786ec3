"""An order of rows by their content: shuffling the data changes no choice and breaks no tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import privacy
from explain_step.types import IntArray

KeyArray = npt.NDArray[np.uint64]


def row_keys(frame: pd.DataFrame) -> KeyArray:
    """Return one 64-bit key per row: equal for equal content, whatever the frame library or integer width.

    Examples
    --------
    >>> keys = row_keys(pd.DataFrame({"a": [1, 1, 2]}))
    >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
    (True, False)
    """
    keys = np.zeros(len(frame), dtype=np.uint64)
    for column in frame.columns:
        keys = (keys ^ _column_keys(frame[column])) * np.uint64(0x100000001B3) + np.uint64(0x9E3779B97F4A7C15)
    return keys


def _column_keys(series: pd.Series[Any]) -> KeyArray:
    if pd.api.types.is_numeric_dtype(series):
        values: Any = series.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0
        values[np.isnan(values)] = np.nan
    else:
        values = privacy.level_names(series)
    return np.asarray(pd.util.hash_array(values, categorize=False), dtype=np.uint64)


def content_order(frame: pd.DataFrame, row_ids: npt.NDArray[Any]) -> IntArray:
    """Return the rank of each row in content order (row identity decides between equal rows): shape (n,)."""
    keys = row_keys(frame)
    order = np.argsort(keys, kind="stable")
    found = keys[order]
    again = found[1:] == found[:-1]
    equal = np.flatnonzero(np.append(again, False) | np.append(False, again))
    rows = order[equal]  # names of all rows as text would take more memory than the rest together
    order[equal] = rows[np.lexsort((np.asarray(row_ids[rows], dtype=str), keys[rows]))]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank
