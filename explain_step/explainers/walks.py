"""Walks from a background row to an explained row, one column at a time, and what each column contributed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from explain_step.explainers import masking
from explain_step.explainers.masking import BoolArray, Clock, Pool
from explain_step.explainers.sampling import stratified_partners
from explain_step.seeds import Seeds
from explain_step.types import FloatArray, IntArray

MIN_PAIRS = 4
SURE_ROWS = 2
"""However short the budget, this many rows are walked `MIN_PAIRS` times."""
CHUNK_VALUES = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Walks:
    """Pairs of walks in the order in which they are evaluated.

    Attributes
    ----------
    row, pair, partner : ndarray of int of shape (u,)
        Explained row, number of the pair within the row, background row.
    order : ndarray of int of shape (u, d)
        Columns in the order in which the forward walk switches them.
    first : int
        So many pairs of one row follow each other; the rest comes round by round.
    """

    row: IntArray
    pair: IntArray
    partner: IntArray
    order: npt.NDArray[np.int32]
    first: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The finished pairs, by explained row.

    Attributes
    ----------
    rows : ndarray of int of shape (n,)
        Positions of the explained rows, ascending.
    partner : ndarray of int of shape (n, pairs)
    contributions : ndarray of shape (n, pairs, d, n_outputs)
        Mean of the forward and the backward walk.
    """

    rows: IntArray
    partner: IntArray
    contributions: FloatArray


def draw_walks(
    rows: IntArray,
    start: FloatArray,
    *,
    pairs: int,
    columns: int,
    seeds: Seeds,
    batch: int = 0,
    first: int = MIN_PAIRS,
) -> Walks:
    """Return the pairs of walks: the ``first`` ones for one row after the other, then round by round.

    Each ``batch`` has random numbers of its own.
    """
    n, first = len(rows), min(first, pairs)
    name = () if batch == 0 else (str(batch),)
    partner = stratified_partners(start, rows=n, draws=pairs, rng=seeds.rng("permutation", "partners", *name))
    identity = np.broadcast_to(np.arange(columns, dtype=np.int32), (n * pairs, columns))
    order = seeds.rng("permutation", "orders", *name).permuted(identity, axis=1).reshape(n, pairs, columns)
    turn = seeds.rng("permutation", "turn", *name).permutation(n)
    row = np.concatenate([np.repeat(turn, first), np.tile(turn, pairs - first)])
    pair = np.concatenate([np.tile(np.arange(first), n), np.repeat(np.arange(first, pairs), n)])
    return Walks(row=rows[row], pair=pair, partner=partner[row, pair], order=order[row, pair], first=first)


def walk(
    pool: Pool, walks: Walks, *, start: FloatArray, end: FloatArray, clock: Clock, sure: int = SURE_ROWS
) -> tuple[FloatArray, int]:
    """Evaluate the walks: contributions (finished pairs, d, n_outputs) and the number of predicted rows.

    Switching a column whose two values are equal changes nothing and is not predicted. The first pairs of ``sure``
    rows are walked whatever the clock says.
    """
    differs = pool.codes[walks.row] != pool.codes[pool.n + walks.partner]
    forward = np.take_along_axis(differs, walks.order, axis=1)
    changes = np.stack([forward, forward[:, ::-1]], axis=1)
    # the last change arrives at the explained row, whose output is known
    needed = changes & (changes[:, :, ::-1].cumsum(axis=2)[:, :, ::-1] > 1)
    d = walks.order.shape[1]
    unit, step = np.nonzero(needed.reshape(len(needed), 2 * d))
    when = np.argsort(walks.order, axis=1).astype(np.min_scalar_type(-d))
    # of each column, when the forward and when the backward walk switches it
    turn = np.stack([when, d - 1 - when], axis=1).reshape(2 * len(when), d)
    which, moment = 2 * unit + step // d, (step % d).astype(turn.dtype)

    def masks(part: slice) -> BoolArray:
        return np.asarray(turn[which[part]] <= moment[part, None], dtype=bool)

    first = np.searchsorted(unit, np.arange(len(needed) + 1))
    certain = int(first[min(sure * MIN_PAIRS, len(needed))])
    outputs = masking.evaluate(
        pool, rows=walks.row[unit], partners=walks.partner[unit], masks=masks, clock=clock, at_least=certain
    )
    finished = int(np.searchsorted(first, len(outputs), side="right")) - 1
    # positions in (outputs, background outputs, explained outputs), carried forward over unchanged steps
    known = np.concatenate([outputs, start, end])
    place = np.where(changes, len(outputs) + len(start) + walks.row[:, None, None], -1)
    place[needed] = np.arange(len(unit))
    contributions = np.empty((finished, d, start.shape[1]))
    size = max(1, CHUNK_VALUES // (d * start.shape[1]))
    for u in (slice(a, min(a + size, finished)) for a in range(0, finished, size)):
        origin = len(outputs) + walks.partner[u]
        contributions[u] = _contributions(known, place[u], walks.order[u], origin=origin)
    return contributions, len(outputs)


def _contributions(
    known: FloatArray, place: IntArray, order: npt.NDArray[np.int32], *, origin: IntArray
) -> FloatArray:
    """Return the mean contribution (u, d, k) of each column over a forward and a backward walk."""
    u, _, d = place.shape
    path = np.concatenate([np.broadcast_to(origin[:, None, None], (u, 2, 1)), place], axis=2)
    step = np.maximum.accumulate(np.where(path >= 0, np.arange(d + 1), 0), axis=2)
    change = np.diff(known[np.take_along_axis(path, step, axis=2)], axis=2)
    mean = np.empty((u, d, known.shape[1]))
    columns = np.broadcast_to(order[:, :, None], mean.shape)
    # the backward walk reads the order from its end
    np.put_along_axis(mean, columns, (change[:, 0] + change[:, 1, ::-1]) / 2, axis=1)
    return mean


def by_row(contributions: FloatArray, walks: Walks, *, rows: int, pairs: int) -> Sample:
    """Return the finished ones of ``rows`` times ``pairs`` pairs by row.

    These are complete rows with their first pairs, or all rows with complete rounds.
    """
    n, first = rows, walks.first
    done = len(contributions)
    rows = min(done // first, n)
    pairs = first + (done - n * first) // n if rows == n else first
    shape = contributions.shape[1:]
    head = slice(0, rows * first)
    tail = slice(n * first, n * pairs) if rows == n else slice(0, 0)
    early = contributions[head].reshape(rows, first, *shape)
    late = contributions[tail].reshape(pairs - first, rows, *shape).swapaxes(0, 1)
    partner = np.concatenate(
        [
            walks.partner[head].reshape(rows, first),
            walks.partner[tail].reshape(pairs - first, rows).T,
        ],
        axis=1,
    )
    row = walks.row[head][::first]
    ascending = np.argsort(row)
    return Sample(
        rows=row[ascending],
        partner=partner[ascending],
        contributions=np.concatenate([early, late], axis=1)[ascending],
    )


def with_rows(one: Sample, other: Sample) -> Sample:
    """Return the rows of two samples with equally many pairs together, ascending."""
    rows = np.concatenate([one.rows, other.rows])
    ascending = np.argsort(rows)
    return Sample(
        rows=rows[ascending],
        partner=np.concatenate([one.partner, other.partner])[ascending],
        contributions=np.concatenate([one.contributions, other.contributions])[ascending],
    )


def with_pairs(one: Sample, other: Sample) -> Sample:
    """Return the pairs of two samples of the same rows together."""
    return Sample(
        rows=one.rows,
        partner=np.concatenate([one.partner, other.partner], axis=1),
        contributions=np.concatenate([one.contributions, other.contributions], axis=1),
    )


def is_balanced(sample: Sample, m: int) -> bool:
    """Return whether every row's pairs use each of the m background rows equally often."""
    n, pairs = sample.partner.shape
    if pairs == 0 or pairs % m:
        return False
    used = np.sort(sample.partner, axis=1).reshape(n, m, pairs // m)
    return bool((used == np.arange(m)[:, None]).all())
