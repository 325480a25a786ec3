"""From declarations to partitions: every row of the data in exactly one level of each segment column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import dates, privacy
from explain_step.artifacts.segment_evaluation import evaluate
from explain_step.artifacts.segment_expressions import parse, unknown_column
from explain_step.config import Config, SegmentDeclaration
from explain_step.config import names as quoted
from explain_step.errors import InvalidInput
from explain_step.types import FloatArray, IntArray

Origin = Literal["declared", "sensitive", "found"]
Rule = Literal["numbers", "days", "years", "levels"]
FEW = 6
"""A numeric column with more distinct values than this is cut into quartiles."""
MOST_LEVELS = 12
"""Levels of one column; the rarest beyond are pooled."""
FIRST_ROWS = 10_000
"""Rows that tell columns of many levels, without a table of all levels of millions of rows."""
MOST_CELLS = 40
"""Cells of one intersection; the smallest beyond are pooled."""
QUARTILES = (0.25, 0.5, 0.75)
YES, NO = "yes", "no"
OTHER_CELLS = "other combinations"
MOST_STRATA = 100
TIMES = " \u00d7 "
"""Joins the parts of an intersection and of its levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """One way to cut the rows.

    Attributes
    ----------
    name : str
        The declaration as the reader sees it.
    levels : tuple of str
        Names of the levels, in reading order; a level may be empty.
    codes : ndarray of int of shape (n,)
        Level of each row.
    origin : {"declared", "sensitive", "found"}
    columns : frozenset of str
        The columns it reads.
    margins : tuple of tuple of int
        For an intersection: for each combination of some of its parts, the cell groups (level positions)
        whose sums are the margins. Used to keep withheld cells from being recovered.
    """

    name: str
    levels: tuple[str, ...]
    codes: npt.NDArray[np.integer]
    origin: Origin
    columns: frozenset[str]
    margins: tuple[tuple[int, ...], ...] = ()

    def counts(self, rows: IntArray | None = None) -> IntArray:
        """Return the number of rows in each level (of the given row positions)."""
        codes = self.codes if rows is None else self.codes[rows]
        return np.asarray(np.bincount(codes, minlength=len(self.levels)), dtype=np.int64)


def name_of(declaration: SegmentDeclaration) -> str:
    r"""Return the reader's name of a declaration.

    Examples
    --------
    >>> name_of(("afam", "age < 30")) == "afam \u00d7 age < 30"
    True
    """
    return declaration if isinstance(declaration, str) else TIMES.join(declaration)


def check(config: Config, columns: Sequence[str]) -> None:
    """Raise `InvalidInput` where a declared segment or sensitive column cannot be read; computes nothing."""
    for declaration in config.segments:
        columns_of(declaration, columns)
        _check_redacted(declaration, columns, config=config)
    sensitive_columns(config, columns)


def _check_redacted(declaration: SegmentDeclaration, columns: Sequence[str], *, config: Config) -> None:
    """Refuse an expression about a redacted column: options are published, and with them the value it compares."""
    for part in (declaration,) if isinstance(declaration, str) else declaration:
        read = columns_of(part, columns) & privacy.hidden(config)
        if read and part not in columns:
            msg = (
                f"Option segments must not compare a column listed in 'redact' with a value, because the options are "
                f"published; an expression reads {quoted(sorted(read))}; leave it out, or do not redact the column."
            )
            raise InvalidInput(msg)


def columns_of(declaration: SegmentDeclaration, columns: Sequence[str]) -> frozenset[str]:
    """Return the columns a declaration reads.

    Raises
    ------
    InvalidInput
        An empty list, a column that does not exist or an expression that is not understood.
    """
    if isinstance(declaration, str):
        if declaration in columns:
            return frozenset([declaration])
        return frozenset(parse(declaration, columns).columns)
    if not declaration:
        msg = (
            "Option segments has an empty list; name the columns or expressions whose intersection is wanted."
        )
        raise InvalidInput(msg)
    return frozenset[str]().union(*(columns_of(part, columns) for part in declaration))


def sensitive_columns(config: Config, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the sensitive columns, each of which must exist."""
    for name in config.sensitive:
        if name not in columns:
            found = unknown_column(name, columns)
            msg = (
                f"Option sensitive must name columns of the data: {found}{'' if found.endswith('?') else '.'}"
            )
            raise InvalidInput(msg)
    return config.sensitive


def partition(
    declaration: SegmentDeclaration, frame: pd.DataFrame, *, config: Config, origin: Origin
) -> Partition:
    """Return the partition that a declaration makes of the rows of ``frame``.

    Examples
    --------
    >>> frame = pd.DataFrame({"age": [20.0, 40.0, None]})
    >>> partition("age < 30", frame, config=Config(), origin="declared").codes.tolist()
    [0, 1, 1]
    """
    if isinstance(declaration, str):
        levels, codes = _cut(declaration, frame, config=config)
        margins: tuple[tuple[int, ...], ...] = ()
    else:
        parts = [_cut(part, frame, config=config) for part in dict.fromkeys(declaration)]
        levels, codes, margins = _cross(parts)
    return Partition(
        name=name_of(declaration),
        levels=levels,
        codes=codes.astype(np.int16),  # there are few levels, and dozens of partitions of millions of rows
        origin=origin,
        columns=columns_of(declaration, list(frame.columns)),
        margins=margins,
    )


def strata(frame: pd.DataFrame, *, config: Config) -> IntArray | None:
    """Return one code per row: its levels in all declared segments and sensitive columns; None without any.

    Declarations are crossed in their order as long as there are at most `MOST_STRATA` combinations.
    """
    codes = None
    for declaration in (*config.segments, *config.sensitive):
        made = partition(declaration, frame, config=config, origin="declared")
        own = made.codes.astype(np.int64)
        crossed = own if codes is None else codes * len(made.levels) + own
        numbered = np.unique(crossed, return_inverse=True)[1].reshape(-1).astype(np.int64)
        if codes is not None and int(numbered.max(initial=0)) >= MOST_STRATA:
            break
        codes = numbered
    return codes


def _cut(text: str, frame: pd.DataFrame, *, config: Config) -> tuple[tuple[str, ...], IntArray]:
    if text in frame.columns:
        return cut_column(frame[text], config=config)
    inside = evaluate(parse(text, list(frame.columns)), frame)
    return (YES, NO), np.where(inside, 0, 1).astype(np.int64)


def cut_column(series: pd.Series[Any], *, config: Config) -> tuple[tuple[str, ...], IntArray]:
    """Return level names and the level of each row: quartiles of numbers and dates, else the levels.

    Bins are cut at round numbers near the quartiles, and open at both ends. Few distinct numbers are levels.
    Beyond `MOST_LEVELS` levels the rarest are pooled; under ``strict`` so are levels under ``min_segment``
    rows. Missing values are a level of their own.

    Examples
    --------
    >>> cut_column(pd.Series(range(1000)), config=Config())[0]
    ('below 250', '[250, 500)', '[500, 750)', '750 or more')
    """
    kind, edges = rule(series, config=config)
    if kind in ("levels", "years"):
        return _as_levels(series.dt.year.astype("Int64") if kind == "years" else series, config=config)
    return _binned(plain_numbers(series, kind=kind), edges, bin_labels(edges, kind=kind))


def count_levels(series: pd.Series[Any]) -> int:
    """Return how many levels a column has; where its first rows already have too many, those of these rows.

    Cells that cannot be hashed, such as lists, count as many.
    """
    try:
        first = int(series.head(FIRST_ROWS).nunique(dropna=False))
        return first if first > FEW else int(series.nunique(dropna=False))
    except TypeError:
        return len(series)


def rule(series: pd.Series[Any], *, config: Config) -> tuple[Rule, FloatArray]:
    """Return how a column is cut, and the edges where it is cut into bins.

    Numbers and days are cut at quartiles; dates of a few years by year, all else by level.
    """
    if dates.is_dates(series):
        if 1 < series.dt.year.nunique() <= FEW:
            return "years", np.empty(0)
        days = plain_numbers(series, kind="days")
        known = days[np.isfinite(days)]
        if len(known) == 0:
            return "levels", np.empty(0)
        return "days", _inner(np.floor(np.quantile(known, QUARTILES)), days)
    if privacy.is_numeric(series) and count_levels(series.dropna()) > FEW:
        edges = privacy.quantile_edges(series, quantiles=QUARTILES, config=config)
        return "numbers", _inner(edges, plain_numbers(series, kind="numbers"))
    return "levels", np.empty(0)


def plain_numbers(series: pd.Series[Any], *, kind: Rule) -> FloatArray:
    """Return a column as floats, dates (kind ``days``) as days since 1970; missing is NaN."""
    if kind != "days":
        return np.asarray(pd.to_numeric(series).to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    return dates.days(series)


def bin_labels(edges: FloatArray, *, kind: Rule) -> list[str]:
    """Return the names of the bins of numbers or days, open at both ends."""
    if kind != "days" or len(edges) == 0:
        return [privacy.bin_label(i, edges) for i in range(len(edges) + 1)]
    dates = [str((pd.Timestamp("1970-01-01") + pd.Timedelta(days=float(e))).date()) for e in edges]
    middle = [f"{a} to before {b}" for a, b in pairwise(dates)]
    return [f"before {dates[0]}", *middle, f"from {dates[-1]}"]


def _inner(edges: FloatArray, numbers: FloatArray) -> FloatArray:
    """Return the distinct edges with values on both sides; one at an extreme cuts nothing and prints it."""
    known = numbers[np.isfinite(numbers)]
    if len(known) == 0:
        return np.empty(0)
    return np.asarray(np.unique(edges[(edges > known.min()) & (edges <= known.max())]), dtype=np.float64)


def _binned(
    numbers: FloatArray, edges: FloatArray, labels: Sequence[str]
) -> tuple[tuple[str, ...], IntArray]:
    codes = np.searchsorted(edges, numbers, side="right").astype(np.int64)
    missing = np.isnan(numbers)
    codes[missing] = len(labels)
    return _used([*labels, privacy.MISSING], codes)


def _as_levels(series: pd.Series[Any], *, config: Config) -> tuple[tuple[str, ...], IntArray]:
    codes, found = pd.factorize(privacy.pooled_levels(series, config=config))
    names = np.array([str(name) for name in found], dtype=str)
    if len(names) > MOST_LEVELS:
        kept = names[np.lexsort((names, -np.bincount(codes)))[: MOST_LEVELS - 1]]
        names = np.where(np.isin(names, kept), names, privacy.OTHER)
    order = sorted({str(name) for name in names}, key=lambda level: _position(level, series))
    place = {level: i for i, level in enumerate(order)}
    return tuple(order), np.array([place[str(name)] for name in names], dtype=np.int64)[codes]


def _position(level: str, series: pd.Series[Any]) -> tuple[int, float, str]:
    """Sort key: ordered categories as declared, numbers by value, text by name; pooled and missing last."""
    if level in (privacy.OTHER, privacy.MISSING):
        return (3 if level == privacy.OTHER else 4), 0.0, level
    if isinstance(series.dtype, pd.CategoricalDtype) and series.cat.ordered:
        names = [privacy.render(c) for c in series.cat.categories]
        return 0, float(names.index(level)), level
    try:
        number = float(level)
    except ValueError:
        number = math.nan
    return (1, number, level) if math.isfinite(number) else (2, 0.0, level)


def _used(labels: Sequence[str], codes: IntArray) -> tuple[tuple[str, ...], IntArray]:
    """Drop bins that hold no row."""
    used = np.unique(codes)
    return tuple(labels[i] for i in used), np.searchsorted(used, codes).astype(np.int64)


def _cross(
    parts: Sequence[tuple[tuple[str, ...], IntArray]],
) -> tuple[tuple[str, ...], IntArray, tuple[tuple[int, ...], ...]]:
    """Return the cells that hold rows, and the groups of cells that sum to a margin."""
    shape = tuple(len(levels) for levels, _ in parts)
    flat = reduce(lambda code, part: code * len(part[0]) + part[1], parts, np.zeros_like(parts[0][1]))
    used, codes, counts = np.unique(flat, return_inverse=True, return_counts=True)
    cells = np.stack(np.unravel_index(used, shape), axis=1)
    names = [TIMES.join(parts[j][0][c] for j, c in enumerate(cell)) for cell in cells]
    if len(used) > MOST_CELLS:
        kept = np.sort(np.lexsort((used, -counts))[: MOST_CELLS - 1])
        new = np.full(len(used), len(kept))
        new[kept] = np.arange(len(kept))
        pooled = (*(names[i] for i in kept), OTHER_CELLS)
        return pooled, new[codes.ravel()].astype(np.int64), ()
    return tuple(names), codes.ravel().astype(np.int64), _margins(cells)


def _margins(cells: IntArray) -> tuple[tuple[int, ...], ...]:
    """Return the groups of cells that agree on some of their parts (every proper subset of the parts)."""
    parts = cells.shape[1]
    groups: dict[tuple[int, ...], None] = {}
    for mask in range(1, 2**parts - 1):
        chosen = [j for j in range(parts) if mask >> j & 1]
        _, label = np.unique(cells[:, chosen], axis=0, return_inverse=True)
        for value in range(int(label.max()) + 1):
            groups[tuple(np.flatnonzero(label.ravel() == value).tolist())] = None
    return tuple(groups)
