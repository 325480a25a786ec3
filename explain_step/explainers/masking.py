"""Predictions on mixed rows: some columns from an explained row, the others from a background row.

The mixed rows are made column by column with ``take``, so that every dtype (category, string, boolean,
datetime, nullable) reaches the model as it was given. Calls are large and of sizes fixed by counts: the
machine's speed changes no number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import heartbeat
from explain_step.errors import ExplainStepError, NotApplicable, PredictionFailed
from explain_step.explainers import derived_rows
from explain_step.explainers.derived_rows import Derived
from explain_step.types import FittedModel, FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]
FIRST_CALL, GROWTH = 256, 4
CALL_ROWS = 200_000
CALL_CELLS = 8_000_000
"""Largest prediction call: this many rows, and not more cells than this (64 MB of float64)."""
DERIVED_ROWS = 10_000
"""The same for rows behind the model's steps, which cost little per call: what a network makes of them fits a cache."""
PIECE_CELLS = 50_000
TRIED_ROWS, AGREEMENT = 64, 1e-9
"""Mixed rows that are asked about both ways, and by how much the answers may differ, relative to the largest."""
PROBES = (32, 128, 512, 2048, 8192)
FALLS = 0.7
"""A larger probe is asked for while the time per row falls below this part of what it was, and while `LOOK` says so."""
LOOK = 0.02
"""Probes go on until they took this part of the seconds together: a busy moment is longer than a small probe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Explained and background rows in one store of d columns.

    Attributes
    ----------
    columns : tuple of arrays
        Per column the n explained values, then the m background values.
    matrix : ndarray of shape (n + m, d), optional
        The same as one block, where all columns share one numpy dtype.
    codes : ndarray of int of shape (n + m, d)
        Equal codes = equal values (missing equals missing).
    derived : Derived, optional
        The rows behind the model's column-wise steps, where that is how it is asked.
    """

    model: FittedModel
    names: pd.Index
    n: int
    m: int
    columns: tuple[Any, ...]
    matrix: npt.NDArray[Any] | None
    codes: IntArray
    derived: Derived | None = None

    def varying(self) -> BoolArray:
        """Return for each column whether any explained row differs from any background row in it."""
        first = self.codes[self.n : self.n + 1]
        return np.asarray((self.codes != first).any(axis=0))

    def switched(self) -> int:
        """Return the mean number of columns in which an explained and a background row differ, rounded up."""
        differing = 0.0
        for column in self.codes.T:
            size = int(column.max()) + 2
            shown, others = (
                np.bincount(part + 1, minlength=size).astype(np.float64)
                for part in (column[: self.n], column[self.n :])
            )
            differing += 1.0 - float(shown @ others) / (self.n * self.m)
        return int(np.ceil(differing))


def _now() -> float:
    return heartbeat.now()


@dataclass(slots=True)
class Clock:
    """The time budget of estimated work, in seconds. It only ever cuts; it never makes a call larger."""

    budget: float
    started: float = field(default_factory=_now)
    each: float = 0.0
    """Seconds per row of the last call: what is done beside is spent too, but says nothing about the next rows."""

    def spent(self) -> float:
        """Return the seconds since the start; see `heartbeat`."""
        return _now() - self.started

    def allows(self, work: int) -> bool:
        """Return whether ``work`` more rows would end in time, at the speed of the last call."""
        return self.spent() + self.each * work <= self.budget

    @contextmanager
    def counting(self, rows: int) -> Iterator[None]:
        """Take the speed from the prediction of ``rows`` rows, the largest call so far."""
        began = _now()
        yield
        self.each = (_now() - began) / max(rows, 1)


def pool(model: FittedModel, X: pd.DataFrame, background: pd.DataFrame) -> Pool:
    """Return the store of mixed rows of ``X`` (n rows) and ``background`` (m rows, the same columns)."""
    columns = tuple(_joined(X.iloc[:, j], background.iloc[:, j]) for j in range(X.shape[1]))
    codes = np.empty((len(X) + len(background), len(columns)), dtype=np.int64)
    for j, column in enumerate(columns):
        codes[:, j] = value_codes(column)
    dtypes = {getattr(column, "dtype", None) for column in columns}
    block = len(dtypes) == 1 and all(isinstance(c, np.ndarray) and c.dtype.kind in "fiub" for c in columns)
    return Pool(
        model=model,
        names=X.columns,
        n=len(X),
        m=len(background),
        columns=columns,
        matrix=np.column_stack(columns) if block else None,
        codes=codes,
    )


def value_codes(column: Any) -> IntArray:
    """Return codes of a column's n values, from 0: equal codes are equal values of one type, missing ones included.

    Values that cannot be compared, such as lists, are all taken to be different.

    Examples
    --------
    >>> value_codes(np.array([1, True, "a", 1, None], dtype=object)).tolist()
    [0, 1, 2, 0, 3]
    >>> value_codes(np.array([0.0, -0.0, 1.0])).tolist()
    [0, 1, 2]
    """
    try:
        codes = pd.factorize(column, use_na_sentinel=False)[0]
    except TypeError:
        return np.arange(len(column))
    if column.dtype == object:  # 1, 1.0 and True are equal, but a model may tell them apart
        types = pd.factorize(np.fromiter(map(type, column), dtype=object, count=len(column)))[0]
        codes = pd.factorize(codes * (types.max(initial=0) + 1) + types)[0]
    # so are the zeros with and without a sign: 1 / x tells them apart
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        negative = (column == 0) & np.signbit(column)
        if negative.any():
            codes = pd.factorize(codes * 2 + negative)[0]
    return np.asarray(codes, dtype=np.int64)


def _joined(upper: pd.Series[Any], lower: pd.Series[Any]) -> Any:
    """Return the values of two columns one below the other, in the first one's dtype where they share it."""
    if isinstance(upper.dtype, pd.CategoricalDtype) and isinstance(lower.dtype, pd.CategoricalDtype):
        # the explained rows' categories come first: their codes are what the model has seen in its answer on
        # them
        extra = lower.dtype.categories.difference(upper.dtype.categories, sort=False)
        dtype = pd.CategoricalDtype([*upper.dtype.categories, *extra], ordered=upper.dtype.ordered)
        dtype = upper.dtype if not len(extra) else dtype
        return pd.concat([upper.astype(dtype), lower.astype(dtype)], ignore_index=True).array
    if isinstance(upper.dtype, np.dtype) and isinstance(lower.dtype, np.dtype):
        return np.concatenate([upper.to_numpy(), lower.to_numpy()])
    if upper.dtype == lower.dtype:
        return pd.concat([upper, lower], ignore_index=True).array
    both = np.empty(len(upper) + len(lower), dtype=object)
    both[: len(upper)] = upper.to_numpy(dtype=object)
    both[len(upper) :] = lower.to_numpy(dtype=object)
    return both


def mixed(
    pool: Pool, rows: IntArray, partners: IntArray, masks: Callable[[slice], BoolArray], *, part: slice
) -> pd.DataFrame:
    """Return the mixed rows of ``part``: the masked columns come from an explained row.

    The others come from its partner, a background row. See `evaluate` for the arguments.
    """
    above, below = rows[part], pool.n + partners[part]
    if pool.matrix is None:
        mask = masks(part)
        taken = (column.take(np.where(mask[:, j], above, below)) for j, column in enumerate(pool.columns))
        return _frame(taken, names=pool.names)
    block = _blended(
        pool.matrix, above, below, lambda some: masks(slice(part.start + some.start, part.start + some.stop))
    )
    return pd.DataFrame(block, columns=pool.names, copy=False)


def _frame(columns: Iterable[Any], *, names: pd.Index) -> pd.DataFrame:
    """Return columns as a frame; their dtype is stated, because pandas would read text and None anew."""
    frame = pd.DataFrame(
        {j: pd.Series(c, dtype=c.dtype, copy=False) for j, c in enumerate(columns)}, copy=False
    )
    frame.columns = names
    return frame


def _blended(
    matrix: npt.NDArray[Any], above: IntArray, below: IntArray, masks: Callable[[slice], BoolArray]
) -> npt.NDArray[Any]:
    """Return rows of ``matrix`` at ``below``, with the masked columns from its rows at ``above``."""
    block = np.empty((len(above), matrix.shape[1]), dtype=matrix.dtype)
    # pieces that stay in the processor's cache
    size = max(1, PIECE_CELLS // max(matrix.shape[1], 1))
    for start in range(0, len(above), size):
        some = slice(start, min(start + size, len(above)))
        np.take(matrix, below[some], axis=0, out=block[some], mode="clip")
        np.copyto(block[some], matrix[above[some]], where=masks(some))
    return block


def predict(model: FittedModel, frame: pd.DataFrame) -> FloatArray:
    """Return the model's outputs (n, n_outputs), checked.

    Raises
    ------
    PredictionFailed
        The model raised, or returned another shape or values that are not finite.
    """
    try:
        output = np.asarray(model.predict(frame), dtype=np.float64)
    except ExplainStepError:
        raise
    except Exception as error:
        msg = (
            f"The model raised {type(error).__name__} in predict on {len(frame)} rows mixed from explained "
            f"and background rows: {str(error)[:300]}. It must accept every combination of the given values."
        )
        raise PredictionFailed(msg) from error
    wanted = (len(frame), len(model.output_names))
    if output.shape != wanted:
        msg = f"The model must return an array of shape {wanted} for {len(frame)} rows, got {output.shape}."
        raise PredictionFailed(msg)
    bad = int((~np.isfinite(output)).any(axis=1).sum())
    if bad:
        msg = (
            f"The model must return finite outputs, got NaN or infinity on {bad} of {len(frame)} rows mixed "
            f"from explained and background rows; remove or impute what causes them."
        )
        raise PredictionFailed(msg)
    return output


def affordable(model: FittedModel, frame: pd.DataFrame, *, rows: int, seconds: float) -> int:
    """Return how many of ``rows`` predicted rows fit into ``seconds``: all of them, unless the model is slow.

    A few rows of ``frame`` are predicted to see. Where their time does not suffice, more rows are, as long as that
    lowers the time per row, so that neither the cost of a single call nor a busy moment decides.
    """
    fastest, start = np.inf, _now()
    for size in PROBES if rows else ():
        part = frame.iloc[np.arange(min(size, rows)) % len(frame)]
        began = _now()
        predict(model, part)
        each = (_now() - began) / max(len(part), 1)
        settled = each > FALLS * fastest
        fastest = min(fastest, each)
        if fastest * rows <= seconds or size >= rows:
            return rows
        if settled and _now() - start > LOOK * seconds:
            break
    return min(rows, int(seconds / fastest))


def calls(total: int, columns: int, *, stop: int = 0, most: int | None = None) -> Iterator[slice]:
    """Return the calls that cover ``total`` rows: the sizes grow from small to the largest, by counts alone.

    The largest has ``most`` rows, `CALL_ROWS` where that is not given, if they have no more than `CALL_CELLS` cells.

    One call ends at row ``stop``; the next is at most `GROWTH` times as large, because a small call tells little about
    the speed of a large one.

    Examples
    --------
    >>> [(s.start, s.stop) for s in calls(2000, 5)]
    [(0, 256), (256, 1280), (1280, 2000)]
    """
    largest = max(1, min(most or CALL_ROWS, CALL_CELLS // max(columns, 1)))
    start, size = 0, min(FIRST_CALL, largest)
    while start < total:
        end = min(start + size, stop if start < stop else total)
        yield slice(start, end)
        size = end - start if start == 0 and end == stop else size
        start, size = end, min(GROWTH * size, largest)


def evaluate(
    pool: Pool,
    *,
    rows: IntArray,
    partners: IntArray,
    masks: Callable[[slice], BoolArray],
    clock: Clock | None = None,
    at_least: int = 0,
) -> FloatArray:
    """Return the outputs of mixed rows, in order; fewer than asked where the clock does not allow the rest.

    Parameters
    ----------
    pool : Pool
    rows, partners : ndarray of int of shape (e,)
        Explained row and background row of each mixed row.
    masks : callable
        Slice of the e mixed rows to their mask, of shape (length, d).
    clock : Clock, optional
        Without one, everything is evaluated.
    at_least : int
        This many mixed rows are evaluated whatever the clock says.

    Returns
    -------
    ndarray of shape (done, n_outputs)
    """
    done = 0
    outputs = np.empty((len(rows), len(pool.model.output_names)))
    width, most = len(pool.names), CALL_ROWS
    if pool.derived is not None:
        width, most = pool.derived.matrix.shape[1], min(CALL_ROWS, DERIVED_ROWS)
    for part in calls(len(rows), width, stop=min(at_least, len(rows)), most=most):
        if clock is not None and done >= at_least and not clock.allows(part.stop - part.start):
            break
        with nullcontext() if clock is None else clock.counting(part.stop - part.start):
            outputs[part] = _asked(pool, rows=rows, partners=partners, masks=masks, part=part)
        done = part.stop
    return outputs[:done]


def evaluate_all(
    pool: Pool, *, rows: IntArray, partners: IntArray, masks: Callable[[slice], BoolArray], clock: Clock
) -> FloatArray:
    """Return the outputs of all mixed rows; see `evaluate`.

    Raises
    ------
    NotApplicable
        The clock does not allow them.
    """
    outputs = evaluate(pool, rows=rows, partners=partners, masks=masks, clock=clock)
    if len(outputs) < len(rows):
        msg = f"{clock.budget:.3g} s are not enough for {len(rows):,} predicted rows"
        raise NotApplicable(msg)
    return outputs


def with_derived(pool: Pool) -> Pool:
    """Return the pool with its rows behind the model's steps, if the model answers to these what it answers to raw ones.

    That is seen on some mixed rows; the pool is returned as it is where they differ.
    """
    found = derived_rows.of(pool.model, _frame(pool.columns, names=pool.names))
    if found is None:
        return pool
    e = np.arange(TRIED_ROWS)
    rows, partners = e * 7919 % pool.n, e * 104_729 % pool.m
    some = np.random.default_rng(0).random((TRIED_ROWS, len(pool.names))) < 0.5  # the same in every run
    ask = partial(
        _asked, rows=rows, partners=partners, masks=lambda part: some[part], part=slice(0, TRIED_ROWS)
    )
    raw, derived = ask(pool), replace(pool, derived=found)
    try:
        away = np.abs(ask(derived) - raw).max()
    except PredictionFailed:
        return pool
    return derived if away <= AGREEMENT * np.abs(raw).max() else pool


def of_background(pool: Pool) -> FloatArray:
    """Return the model's outputs of the background rows: array of shape (m, n_outputs)."""
    if pool.derived is None:
        columns = (column[pool.n :] for column in pool.columns)
        return predict(pool.model, _frame(columns, names=pool.names))
    return pool.derived.answers(pool.derived.matrix[pool.n :])


def _asked(
    pool: Pool, *, rows: IntArray, partners: IntArray, masks: Callable[[slice], BoolArray], part: slice
) -> FloatArray:
    """Return the outputs of the mixed rows of ``part``; see `evaluate`."""
    if pool.derived is None:
        return predict(pool.model, mixed(pool, rows, partners, masks, part=part))
    derived = pool.derived
    block = _blended(
        derived.matrix,
        rows[part],
        pool.n + partners[part],
        lambda some: masks(slice(part.start + some.start, part.start + some.stop))[:, derived.sources],
    )
    return derived.answers(block)
