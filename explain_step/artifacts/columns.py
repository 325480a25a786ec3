"""What kind of values a column holds, its numbers, its levels and the grid on which effects are shown."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import dates, privacy
from explain_step.config import Config
from explain_step.types import FloatArray, IntArray

Kind = Literal["numeric", "datetime", "levels"]
POINTS = 21
"""Grid points of a numeric column: twenty bins."""
MAX_LEVELS = 12
"""Levels with an own place; the rest is pooled."""
ATOM = 0.05
"""A single value that holds this share of the rows gets a grid point of its own (zero-inflated columns)."""


def kind(series: pd.Series[Any]) -> Kind:
    """Return how a column is read: numbers, dates, or levels (text, categories, booleans)."""
    if dates.is_dates(series):
        return "datetime"
    return "numeric" if privacy.is_numeric(series) else "levels"


def numbers(series: pd.Series[Any]) -> FloatArray:
    """Return a numeric column as floats and a date column as days since 1970; not finite becomes NaN."""
    if dates.is_dates(series):
        return dates.days(series)
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(np.where(np.isfinite(values), values, np.nan), dtype=np.float64)


def cast(values: FloatArray, series: pd.Series[Any]) -> Any:
    """Return numbers (see `numbers`) as an array of the column's own dtype, NaN as its missing value."""
    if dates.is_dates(series):
        stamps, zone = pd.Series(pd.to_datetime(values, unit="D")), dates.zone(series)
        stamps = stamps if zone is None else stamps.dt.tz_localize("UTC").dt.tz_convert(zone)
        return stamps.astype(series.dtype).array
    if series.dtype == object:
        return pd.Series(_as_held(values, series), dtype=object).array
    column = pd.Series(values)
    if pd.api.types.is_integer_dtype(series):
        column = column.round()
    return column.astype(series.dtype).array


def _as_held(values: FloatArray, series: pd.Series[Any]) -> list[Any]:
    """Return numbers as an object column holds them: Python int, float or Decimal; NaN as its missing value."""
    held = pd.api.types.infer_dtype(series, skipna=True)
    blank = next(iter(series[series.isna()]), None)
    return [blank if np.isnan(v) else _number(v, held) for v in values.tolist()]


def _number(value: float, held: str) -> int | float | Decimal:
    if held == "integer":
        return round(value)
    return Decimal(repr(value)) if held == "decimal" else value


def _is_whole(series: pd.Series[Any]) -> bool:
    if series.dtype == object:
        return pd.api.types.infer_dtype(series, skipna=True) == "integer"
    return bool(pd.api.types.is_integer_dtype(series))


def grid(series: pd.Series[Any], *, config: Config) -> FloatArray:
    """Return the increasing points on which a numeric or date column's effect is shown, at most `POINTS`.

    Quantiles as `privacy.numeric_grid` allows; integer columns get integers, dates whole days; a column that
    is mostly one value (zero-inflated) gets that value and the quantiles of the rest.
    """
    values = numbers(series)
    values = values[~np.isnan(values)]
    points = privacy.numeric_grid(values, config=config, points=POINTS)
    if len(points) < POINTS // 2 < len(np.unique(values)):
        distinct, counts = np.unique(values, return_counts=True)
        atoms = distinct[counts >= max(ATOM * len(values), config.min_segment)]
        rest = values[~np.isin(values, atoms)]
        points = np.union1d(atoms, privacy.numeric_grid(rest, config=config, points=POINTS - len(atoms)))
    whole = _is_whole(series) or (kind(series) == "datetime" and np.ptp(values) > 60)
    return np.unique(np.round(points)) if whole and len(points) else np.asarray(points, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Levels:
    """The named levels of a column.

    Attributes
    ----------
    names : tuple of str
        Levels that may be named, in the order shown; then `privacy.OTHER` and `privacy.MISSING` where rows
        have them.
    codes : ndarray of int of shape (n,)
        Position in ``names`` of each row; -1 where the row belongs to none.
    samples : tuple
        One raw value per level, None for the pooled levels.
    ordered : bool
        Whether the order has a meaning.
    """

    names: tuple[str, ...]
    codes: IntArray
    samples: tuple[Any, ...]
    ordered: bool


def levels(series: pd.Series[Any], *, config: Config) -> Levels:
    """Return the levels of a column: the most frequent `MAX_LEVELS` that may be named, the rest pooled.

    Under ``strict`` the rest has ``min_segment`` rows or none, few missing cells and if need be the smallest level
    included: what is named and the mean over all rows would otherwise give away the mean of a few.
    """
    text = np.array([str(t) for t in privacy.level_names(series)], dtype=object)
    allowed = privacy.publishable_levels(series, config=config)[:MAX_LEVELS]
    pooled = np.isin(text, [*allowed, privacy.MISSING], invert=True)
    blank = (text == privacy.MISSING) & series.isna().to_numpy()
    smallest = config.min_segment if privacy.is_strict(config) else 1
    if blank.sum() < smallest:
        pooled, blank = pooled | blank, np.zeros_like(blank)
    while allowed and 0 < pooled.sum() < smallest:
        pooled |= text == allowed.pop()
    named, ordered = _order(series, allowed)
    names = list(named)
    names += [privacy.OTHER] if pooled.sum() >= smallest else []
    names += [privacy.MISSING] if blank.sum() >= smallest else []
    text[pooled] = privacy.OTHER
    position = {name: i for i, name in enumerate(names)}
    codes = np.array([position.get(t, -1) for t in text.tolist()], dtype=np.int64)
    first = {name: int(np.flatnonzero(codes == i)[0]) for name, i in position.items()}
    samples = tuple(None if n in {privacy.OTHER, privacy.MISSING} else series.iloc[first[n]] for n in names)
    return Levels(names=tuple(names), codes=codes, samples=samples, ordered=ordered)


def _order(series: pd.Series[Any], named: list[str]) -> tuple[list[str], bool]:
    """Put levels that have an order into it: ordered categories, booleans, texts that are numbers."""
    if isinstance(series.dtype, pd.CategoricalDtype) and series.cat.ordered:
        place = {privacy.render(c): i for i, c in enumerate(series.cat.categories)}
        return sorted(named, key=lambda name: place[name]), True
    if set(named) <= {"True", "False"}:
        return sorted(named), True
    parsed = [_parsed(name) for name in named]
    if named and all(value is not None for value in parsed):
        return [name for _, name in sorted(zip(parsed, named, strict=True))], True
    return named, False


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def listed(series: pd.Series[Any], samples: list[Any]) -> Any:
    """Return an array of raw values (None: missing) in the column's dtype."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return pd.Categorical(samples, dtype=series.dtype)
    return pd.Series(samples, dtype=series.dtype).array


def value_ranks(series: pd.Series[Any]) -> FloatArray:
    """Return each row's rank in its column, 0 (lowest) to 1 (highest); NaN for unordered or missing ones."""
    if kind(series) == "levels":
        if not pd.api.types.is_bool_dtype(series):
            return np.full(len(series), np.nan)
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values = numbers(series)
    return scaled_ranks(values)


def scaled_ranks(values: FloatArray) -> FloatArray:
    """Return average ranks scaled to 0..1; NaN stays NaN, a constant column is 0.5 throughout."""
    from scipy.stats import rankdata

    out = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    ranks = rankdata(values[known])
    if len(ranks) == 0:
        return out
    low, high = float(ranks.min()), float(ranks.max())
    out[known] = (ranks - low) / (high - low) if high > low else 0.5
    return out


def coded(series: pd.Series[Any]) -> npt.NDArray[np.int64]:
    """Return integer codes of a column's distinct values; a missing value is a level of its own."""
    codes, _ = pd.factorize(series, use_na_sentinel=True)
    return np.asarray(np.where(codes < 0, codes.max(initial=-1) + 1, codes), dtype=np.int64)
