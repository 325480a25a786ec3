"""What may be published about values: one place for redaction, rare levels, grids and coarse descriptions.

``redact`` names columns whose values are published nowhere. ``privacy="strict"`` publishes no raw row, and no
level, minimum or maximum that fewer than ``min_segment`` rows share: a single value is published only as a
value of that many rows. Everything that turns data into text or grid points asks here, so that the rule is
the same on tables, figures and pages.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import dates
from explain_step.config import Config
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput
from explain_step.types import FloatArray

MISSING = "(missing)"
OTHER = "other levels"
REDACTED = "(redacted)"
NOT_SHOWN = "(not shown)"
SINGLE = 2.0**-24
"""Relative precision of single-precision numbers: digits beyond are dust of the storage."""
TAIL = 0.05
"""Share of the values beyond each end of a strict grid, at least."""
TINY = 1e-290
"""A width below is none: its fortieth part can no longer be written."""
NUMBERS = frozenset({"integer", "floating", "mixed-integer-float", "decimal"})
"""Kinds of values, as pandas infers them, that make an object column numeric."""
STEPS = 40
"""A strict number is rounded to about this many steps over the bulk of its column."""


def is_strict(config: Config) -> bool:
    """Return whether nothing about single rows may be published."""
    return config.privacy == "strict"


def check(config: Config, columns: Sequence[str]) -> None:
    """Raise `InvalidInput` where ``redact`` names no column: a typing error must not publish the column."""
    for name in config.redact:
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {quoted([c for c in columns if c])}"
            msg = f"Option redact must name columns of X or the target; there is no column {name!r}; {hint}"
            raise InvalidInput(msg)


def told(error: BaseException, *, config: Config | None) -> str:
    """Return what may be published of an error: its text may quote rows (an unknown level, a label).

    Examples
    --------
    >>> told(ValueError("unknown category 'Mrs Smith'"), config=Config(privacy="strict"))
    'ValueError (its text may quote values of rows, so only the log of the process that explained has it)'
    """
    kind = type(error).__name__
    if isinstance(error, MemoryError):  # whose text is a size, or nothing at all
        text = f" ({error})" if str(error) else ""
        return f"{kind}: no memory is left{text}; explain fewer rows, or give the process more memory"
    if config is None or not (is_strict(config) or config.redact):
        return f"{kind}: {error}"
    return f"{kind} (its text may quote values of rows, so only the log of the process that explained has it)"


def hidden(config: Config) -> frozenset[str]:
    """Return the columns whose values are published nowhere (their names may be).

    Examples
    --------
    >>> sorted(hidden(Config(redact=("ssn",))))
    ['ssn']
    """
    return frozenset(config.redact)


def render(value: Any) -> str:
    """Return one cell as text: the shortest faithful number, ISO dates, ``(missing)``.

    Digits beyond single precision are left out: 3.9, not 3.900000095367432.

    Examples
    --------
    >>> [render(v) for v in (3, 3.0, 3.900000095367432, True, None, "a")]
    ['3', '3', '3.9', 'True', '(missing)', 'a']
    """
    if _is_missing(value):
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _render_float(float(value))
    if isinstance(value, (pd.Timestamp, np.datetime64)):
        stamp = pd.Timestamp(value)
        return stamp.date().isoformat() if stamp == stamp.normalize() else stamp.isoformat(sep=" ")
    return str(value)


def _is_missing(value: Any) -> bool:
    found = pd.isna(value)
    return bool(found) if isinstance(found, (bool, np.bool_)) else False


def _render_float(value: float) -> str:
    """Return the shortest decimal within single precision of ``value``, with an exponent only at extremes."""
    if not math.isfinite(value):
        return str(value)
    short = next(d for d in range(1, 18) if abs(float(f"{value:.{d}g}") - value) <= SINGLE * abs(value))
    number = np.float64(f"{value:.{short}g}")
    if value != 0 and not 1e-4 <= abs(value) < 1e15:
        return str(np.format_float_scientific(number, unique=True, trim="-"))
    return str(np.format_float_positional(number, unique=True, trim="-"))


def level_names(values: Any) -> npt.NDArray[np.object_]:
    """Return the cells of a column as text (`render`): object array of shape (n,) of str.

    Different numbers that read alike are written in full, so that they stay different levels.
    """
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values))
    try:
        codes, uniques = pd.factorize(series, use_na_sentinel=True)
    except TypeError:  # cells that cannot be hashed, such as lists
        codes, uniques = pd.factorize(series.map(str))
    texts = [render(u) for u in uniques]
    if len(set(texts)) < len(texts):
        seen = Counter(texts)
        texts = [str(u) if seen[t] > 1 else t for t, u in zip(texts, uniques, strict=True)]
    names = np.array([*texts, MISSING], dtype=object)
    return np.asarray(names[codes], dtype=object)


def publishable_levels(values: Any, *, config: Config) -> list[str]:
    """Return the levels of a column that may be named, the most frequent first (ties by name).

    Missing values are not a level. Under ``strict``, levels held by fewer than ``config.min_segment`` rows
    are left out; callers pool them as `OTHER`.

    Examples
    --------
    >>> publishable_levels(["a"] * 30 + ["b"] * 3, config=Config(privacy="strict"))
    ['a']
    """
    names = level_names(values)
    levels, counts = np.unique(names[names != MISSING].astype(str), return_counts=True)
    smallest = config.min_segment if is_strict(config) else 1
    order = np.lexsort((levels, -counts))
    return [str(levels[i]) for i in order if counts[i] >= smallest]


def pooled_levels(values: Any, *, config: Config) -> npt.NDArray[np.object_]:
    """Return the cells as text with every level that may not be named replaced by `OTHER`.

    `MISSING` counts as a level here: under ``strict`` a few missing cells are pooled too.
    """
    names = level_names(values)
    if not is_strict(config):
        return names
    levels, counts = np.unique(names.astype(str), return_counts=True)
    rare = levels[counts < config.min_segment]
    return np.where(np.isin(names.astype(str), rare), OTHER, names).astype(object)


def numeric_grid(values: Any, *, config: Config, points: int) -> FloatArray:
    """Return increasing grid points for a numeric column: at most ``points`` of them.

    Parameters
    ----------
    values : array-like of shape (n,)
        Numeric or boolean; NaN and infinite entries are ignored.
    config : Config
        ``privacy`` and ``min_segment``.
    points : int
        Most grid points wanted, at least 1.

    Returns
    -------
    ndarray of shape (k,), k <= points
        Standard: the distinct values where there are few, else quantiles from the smallest to the largest
        value. Strict: rounded quantiles between the 5% and 95% points (further inside where fewer than
        ``min_segment`` rows would lie beyond), or the distinct values held by ``min_segment`` rows each;
        empty with fewer than ``min_segment`` values.

    Examples
    --------
    >>> numeric_grid([0, 1, 1, 0], config=Config(), points=10).tolist()
    [0.0, 1.0]
    """
    finite = _finite(values)
    distinct, counts = np.unique(finite, return_counts=True)
    if not is_strict(config):
        if len(distinct) <= points:
            return distinct
        return np.unique(np.quantile(finite, np.linspace(0, 1, points)))
    if len(finite) < config.min_segment:
        return np.empty(0)
    if len(distinct) <= points and (counts >= config.min_segment).any():
        return distinct[counts >= config.min_segment]
    tail = strict_tail(len(finite), config=config)
    return quantile_edges(finite, quantiles=np.linspace(tail, 1 - tail, points).tolist(), config=config)


def strict_tail(n: int, *, config: Config) -> float:
    """Return the share of n values beyond each end of what is published: 5% or ``min_segment`` rows."""
    return max(TAIL, min(config.min_segment / max(n, 1), 0.25))


def quantile_edges(values: Any, *, quantiles: Sequence[float], config: Config) -> FloatArray:
    """Return distinct rounded quantiles, to cut a column into bins whose edges may be printed.

    The edges are round numbers near the quantiles (about 1/40 of the bulk's width); the bins are cut at the
    printed edges, so that a label says exactly what it holds. Strict bins never end closer to an extreme than
    `strict_tail`. Empty with fewer than ``min_segment`` values under ``strict``.

    Examples
    --------
    >>> quantile_edges(np.arange(1000) / 7, quantiles=[0.25, 0.5, 0.75], config=Config()).tolist()
    [36.0, 71.0, 107.0]
    """
    finite = _finite(values)
    if len(finite) == 0 or (is_strict(config) and len(finite) < config.min_segment):
        return np.empty(0)
    wanted = np.asarray(quantiles, dtype=np.float64)
    if is_strict(config):
        tail = strict_tail(len(finite), config=config)
        wanted = np.clip(wanted, tail, 1 - tail)
    exact = np.quantile(finite, wanted)
    return np.unique(round_to(exact, step=rounding_step(finite)))


def rounding_step(values: Any) -> float:
    """Return a power of ten (or five of it) near 1/40 of the width of the bulk; 0 where it has none."""
    finite = _finite(values)
    if len(finite) == 0:
        return 0.0
    low, high = (
        np.quantile(finite, [0.25, 0.75]) if len(finite) < 20 else np.quantile(finite, [TAIL, 1 - TAIL])
    )
    width = float(high - low)
    if not width > TINY:
        return 0.0
    power = 10.0 ** math.floor(math.log10(width / STEPS))
    return 5 * power if width / STEPS >= 5 * power else power


def round_to(values: Any, *, step: float) -> FloatArray:
    """Return the values rounded to multiples of ``step`` (0: unchanged), free of binary dust."""
    array = np.asarray(values, dtype=np.float64)
    if step <= 0:
        return array.copy()
    multiples = np.round(array / step) * step
    digits = max(0, 1 - math.floor(math.log10(step)))
    clean = np.round(multiples, digits) if digits <= 15 else multiples
    return np.asarray(clean + 0.0, dtype=np.float64)


def band(value: Any, column_values: Any, *, config: Config) -> str:
    """Return a coarse description of one cell, for examples under ``strict``.

    Numbers become a quarter of their column between rounded quartiles, with open ends; dates a range of
    years; a level is named when ``min_segment`` rows hold it, else it is one of the `OTHER` levels.

    Parameters
    ----------
    value : object
        The cell.
    column_values : array-like of shape (n,)
        The column it comes from.
    config : Config
        ``privacy`` is not consulted (this *is* the coarse form), ``min_segment`` is.

    Examples
    --------
    >>> band(987654.321, [*range(100), 987654.321], config=Config())
    '75 or more'
    """
    strict = config.model_copy(update={"privacy": "strict"})
    series = column_values if isinstance(column_values, pd.Series) else pd.Series(np.asarray(column_values))
    if _is_missing(value):
        return MISSING if int(series.isna().sum()) >= config.min_segment else NOT_SHOWN
    if dates.is_dates(series):
        return band(pd.Timestamp(value).year, series.dt.year, config=config)
    if not is_numeric(series):
        return render(value) if render(value) in publishable_levels(series, config=strict) else OTHER
    return _numeric_band(float(value), series, config=strict)


def _numeric_band(value: float, series: pd.Series[Any], *, config: Config) -> str:
    finite = _finite(series)
    same = int((finite == value).sum())
    if len(np.unique(finite)) <= 4 and same >= config.min_segment:
        return render(value)
    edges = quantile_edges(finite, quantiles=[0.25, 0.5, 0.75], config=config)
    if len(edges) == 0 or not math.isfinite(value):
        return NOT_SHOWN
    return bin_label(int(np.searchsorted(edges, value, side="right")), edges)


def bin_label(position: int, edges: FloatArray) -> str:
    """Return the name of one bin of ``edges``, open at both ends so that no extreme is printed.

    Examples
    --------
    >>> [bin_label(i, np.array([0.2, 0.4])) for i in range(3)]
    ['below 0.2', '[0.2, 0.4)', '0.4 or more']
    """
    if len(edges) == 0:
        return "all values"
    if position == 0:
        return f"below {render(float(edges[0]))}"
    if position == len(edges):
        return f"{render(float(edges[-1]))} or more"
    return f"[{render(float(edges[position - 1]))}, {render(float(edges[position]))})"


def is_numeric(series: pd.Series[Any]) -> bool:
    """Return whether a column holds numbers to be cut or gridded (booleans are levels).

    A column of dtype object counts where every value is a number: the model keeps its dtype, a reader sees
    numbers.

    Examples
    --------
    >>> is_numeric(pd.Series([1, 2.5, None], dtype=object)), is_numeric(pd.Series(["1.5", "2"]))
    (True, False)
    """
    if series.dtype == object:
        return pd.api.types.infer_dtype(series, skipna=True) in NUMBERS and _fits(series)
    dtype = series.dtype
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
        return False
    return not pd.api.types.is_complex_dtype(dtype)


def _fits(series: pd.Series[Any]) -> bool:
    """Return whether Python numbers fit into floats."""
    try:
        series.to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError:
        return False
    return True


def _finite(values: Any) -> FloatArray:
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values))
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object)
    numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(numbers[np.isfinite(numbers)], dtype=np.float64)
