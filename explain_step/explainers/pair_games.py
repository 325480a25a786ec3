"""The games of single pairs: one explained row against one background row.

Columns in which the two agree change nothing, so a pair that differs in k columns has 2^k coalitions, whatever the
number of columns; and the two ends, the explained row and the background row, are predicted anyhow. A value against the
background is the mean of the values against each of its rows, because Shapley values are linear in the game (Shapley
1953; Merrick and Taly 2020, arXiv:1909.08128). Values that rows share, most of all categories and zeros, make this far
cheaper than all coalitions of all columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from explain_step.explainers import masking
from explain_step.explainers.coalition_games import Solved, distinct_rows, shapley
from explain_step.explainers.masking import BoolArray, Clock, Pool
from explain_step.types import FloatArray, IntArray

NEVER = 31
"""Place of a column in which a pair agrees: no number of a coalition has this bit."""
MOST_KEYS = 2**62
HEAD, BLOCK = 2_000, 100_000
"""Rows that are looked at first, and pairs that are counted at a time: too many are seen from the first of them."""
CELLS = 20_000_000
"""Largest table of pairs and varying columns: 80 MB, and a copy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Every distinct explained row with every distinct background row, those that differ in few columns first.

    Attributes
    ----------
    row, partner : ndarray of int of shape (p,)
        Position of the explained and of the background row.
    place : ndarray of int of shape (p, v)
        Of the v varying columns, which of the differing ones each is, or `NEVER`.
    varying : ndarray of int of shape (v,)
    size : ndarray of int of shape (p,)
        Number of differing columns.
    member : ndarray of int of shape (n,)
        Position of the explained row that each explained row equals.
    share : ndarray of shape (m,)
        Share of the background that equals a background row: zero for all but the first of equal ones.
    """

    row: IntArray
    partner: IntArray
    place: npt.NDArray[np.int32]
    varying: IntArray
    size: IntArray
    member: IntArray
    share: FloatArray


def predictions(pool: Pool, *, most: int) -> int | None:
    """Return the number of mixed rows of all pairs, or None where there are more than ``most``, or too many pairs."""
    varying = np.flatnonzero(pool.varying())
    codes = pool.codes[:, varying]
    most_pairs = min(most, CELLS // max(len(varying), 1))
    others = pool.n + distinct_rows(pool.codes[pool.n :])[0]
    count: int | None = 0
    for size in sorted({min(HEAD, pool.n), pool.n}):
        shown = distinct_rows(codes[:size])[0]
        if len(shown) * len(others) > most_pairs:
            return None
        count = _counted(codes, shown, others, most=most)
        if count is None:
            return None
    return count


def _counted(codes: IntArray, shown: IntArray, others: IntArray, *, most: int) -> int | None:
    """Return the number of mixed rows of the rows at ``shown`` with those at ``others``, or None."""
    size, count = max(1, BLOCK // len(others)), 0
    for some in (shown[i : i + size] for i in range(0, len(shown), size)):
        differing = np.zeros((len(some), len(others)), dtype=np.int64)
        for column in codes.T:
            differing += column[some][:, None] != column[others]
        if differing.max() >= NEVER:
            return None
        count += int(np.maximum(2**differing - 2, 0).sum())
        if count > most:
            return None
    return count


def values(pool: Pool, *, end: FloatArray, clock: Clock) -> Solved:
    """Return the values against the whole background; ``end`` are the outputs (n, n_outputs) on the explained rows.

    Raises
    ------
    NotApplicable
        The clock did not allow all predictions.
    """
    found = _pairs(pool)
    start = masking.of_background(pool)
    sizes = np.maximum(2**found.size - 2, 0)
    first = np.concatenate([[0], np.cumsum(sizes)])
    unit = np.repeat(np.arange(len(sizes)), sizes)
    column = np.full(len(pool.names), len(found.varying))  # of the others: a column that no pair differs in
    column[found.varying] = np.arange(len(found.varying))
    coalition = (np.arange(first[-1]) - first[unit] + 1).astype(np.int32)
    asked, which = _once(pool, found)
    unit, coalition = unit[asked], coalition[asked]

    def masks(part: slice) -> BoolArray:
        place = np.pad(found.place[unit[part]], ((0, 0), (0, 1)), constant_values=NEVER)
        return np.asarray((coalition[part, None] >> place[:, column]) & 1, dtype=bool)

    outputs = masking.evaluate_all(
        pool, rows=found.row[unit], partners=found.partner[unit], masks=masks, clock=clock
    )
    result = np.zeros((pool.n, len(pool.names), end.shape[1]))
    for some in _sizes(found):
        row, partner = found.row[some], found.partner[some]
        inner = outputs[which[first[some.start] : first[some.stop]]].reshape(len(row), -1, end.shape[1])
        game = np.concatenate([start[partner][:, None], inner, end[row][:, None]], axis=1)
        columns = _differing(found, some)
        np.add.at(result, (row[:, None], columns), shapley(game) * found.share[partner][:, None, None])
    return Solved(
        values=result[found.member],
        base=start.mean(axis=0),
        games=len(sizes),
        predicted=len(outputs) + len(start),
    )


def _pairs(pool: Pool) -> Pairs:
    shown, member = distinct_rows(pool.codes[: pool.n])
    others, which = distinct_rows(pool.codes[pool.n :])
    row, partner = np.repeat(shown, len(others)), np.tile(others, len(shown))
    varying = np.flatnonzero(pool.varying())
    codes = pool.codes[:, varying]
    differs = codes[row] != codes[pool.n + partner]
    size = differs.sum(axis=1)
    order = np.argsort(size, kind="stable")
    place = np.where(differs, differs.cumsum(axis=1, dtype=np.int32) - 1, np.int32(NEVER))
    share = np.zeros(pool.m)
    share[others] = np.bincount(which) / pool.m
    return Pairs(
        row=row[order],
        partner=partner[order],
        place=place[order],
        varying=varying,
        size=size[order],
        member=shown[member],
        share=share,
    )


def _sizes(pairs: Pairs) -> Iterator[slice]:
    """Return the pairs that differ in equally many columns, from one column upwards."""
    for k in np.unique(pairs.size[pairs.size > 0]):
        low, high = np.searchsorted(pairs.size, [k, k + 1])
        yield slice(int(low), int(high))


def _differing(pairs: Pairs, some: slice) -> IntArray:
    """Return the columns (pairs, k) in which some pairs of one size differ."""
    place = pairs.place[some]
    return pairs.varying[np.nonzero(place != NEVER)[1].reshape(len(place), -1)]


def _once(pool: Pool, pairs: Pairs) -> tuple[IntArray, IntArray]:
    """Return which of all mixed rows are asked, and which of these each mixed row equals.

    Rows are told apart by one number, where the columns have so few values that one holds them; else all are asked.
    """
    base = pool.codes.max(axis=0) + 1
    if prod(base.tolist()) >= MOST_KEYS:
        every = np.arange(int(np.maximum(2**pairs.size - 2, 0).sum()))
        return every, every
    worth = np.concatenate([[1], np.cumprod(base[:-1])])
    own = pool.codes * worth
    keys = [np.empty(0, dtype=np.int64)]
    for some in _sizes(pairs):
        row, partner, columns = (
            pairs.row[some, None],
            pool.n + pairs.partner[some, None],
            _differing(pairs, some),
        )
        key = own[partner].sum(axis=2)
        for step in (own[row, columns] - own[partner, columns]).T:
            key = np.concatenate([key, key + step[:, None]], axis=1)
        keys.append(key[:, 1:-1].ravel())
    _, asked, which = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    return asked, which
