"""Columns of dates, however pandas holds them: instants of NumPy or Arrow, with or without a zone, and Arrow's days."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def is_dates(series: pd.Series[Any]) -> bool:
    """Return whether a column holds dates.

    Examples
    --------
    >>> is_dates(pd.Series(pd.to_datetime(["2024-03-01"]))), is_dates(pd.Series(["2024-03-01"]))
    (True, False)
    """
    return bool(pd.api.types.is_datetime64_any_dtype(series)) or _arrow(series).startswith(
        ("timestamp", "date")
    )


def zone(series: pd.Series[Any]) -> Any:
    """Return the time zone of a column of dates; None where it has none."""
    return None if _holds_days(series) else series.dt.tz


def instants(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of dates as instants without a zone, in UTC where there was one."""
    if _holds_days(series):
        return pd.Series(series.astype("datetime64[s]"), index=series.index)
    return series if zone(series) is None else series.dt.tz_convert("UTC").dt.tz_localize(None)


def comparable(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column as one that can be compared with an instant: Arrow's days cannot."""
    return instants(series) if _holds_days(series) else series


def days(series: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a column of dates as days since 1970; NaN where missing.

    Examples
    --------
    >>> days(pd.Series(pd.to_datetime(["1970-01-03", None]))).tolist()
    [2.0, nan]
    """
    since = (instants(series) - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    return np.asarray(since.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _holds_days(series: pd.Series[Any]) -> bool:
    """Return whether a column is one of Arrow's days, which know no zone and no difference to an instant."""
    return _arrow(series).startswith("date")


def _arrow(series: pd.Series[Any]) -> str:
    """Return the name of a column's Arrow type; empty where pandas holds it another way. Older pandas says no more."""
    return str(series.dtype.pyarrow_dtype) if isinstance(series.dtype, pd.ArrowDtype) else ""
