"""The games of explained rows, coalition by coalition: their values v(S) for all S, and Shapley's values of them.

``v(S)`` is the mean output over all background rows, with the columns of S taken from the explained row. Equal mixed
rows within a coalition are predicted once: only the distinct values of the explained rows in S meet the distinct values
of the background rows outside S.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

from explain_step.explainers import masking
from explain_step.explainers.masking import BoolArray, Clock, Pool
from explain_step.types import FloatArray, IntArray

COLUMNS = 10
"""More varying columns have too many coalitions to look at, whatever each of them costs."""
VALUES = 30_000_000
"""Largest table of coalition values (distinct explained rows x coalitions x outputs)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solved:
    """Shapley values of all explained rows, from games that were asked for in full.

    Attributes
    ----------
    values : ndarray of shape (n, d, n_outputs)
    base : ndarray of shape (n_outputs,)
        The value of the empty coalition.
    games, predicted : int
        Number of games, and of predicted rows.
    """

    values: FloatArray
    base: FloatArray
    games: int
    predicted: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Coalition:
    """The distinct mixed rows of one coalition: each of ``shown`` meets each of ``others``.

    Attributes
    ----------
    mask : ndarray of bool of shape (d,)
        The columns taken from the explained row.
    shown, others : ndarray of int
        First explained row and first background row of each distinct value.
    member : ndarray of int of shape (n,)
        Which of ``shown`` each explained row is.
    share : ndarray of shape (len(others),)
        Share of the background rows.
    """

    mask: BoolArray
    shown: IntArray
    others: IntArray
    member: IntArray
    share: FloatArray


def coalitions(columns: int, varying: IntArray) -> BoolArray:
    """Return the masks (2^d, columns) of all subsets of the d varying columns.

    Bit j of a mask's position says whether varying column j is in it.

    Examples
    --------
    >>> coalitions(3, np.array([0, 2])).astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]]
    """
    masks = np.zeros((2 ** len(varying), columns), dtype=bool)
    masks[:, varying] = (np.arange(len(masks))[:, None] >> np.arange(len(varying))) & 1
    return masks


def distinct(pool: Pool, mask: BoolArray) -> Coalition:
    """Return the distinct mixed rows of the coalition ``mask``."""
    shown, member = distinct_rows(pool.codes[: pool.n, mask])
    others, which = distinct_rows(pool.codes[pool.n :, ~mask])
    return Coalition(mask=mask, shown=shown, others=others, member=member, share=np.bincount(which) / pool.m)


def distinct_rows(codes: IntArray) -> tuple[IntArray, IntArray]:
    """Return the first position of each distinct row, and for each row which distinct one it is."""
    key = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:
        # renumbered after every column, so that the mixed-radix key cannot overflow
        key = np.unique(key * (int(column.max()) + 2) + column + 1, return_inverse=True)[1].reshape(-1)
    _, first = np.unique(key, return_index=True)
    return first.astype(np.int64), key


def predictions(pool: Pool, *, outputs: int, most: int) -> int | None:
    """Return the number of mixed rows of all coalitions, or None where there are more than ``most``.

    None as well where the games do not fit into memory.
    """
    varying = np.flatnonzero(pool.varying())
    shown = len(distinct_rows(pool.codes[: pool.n])[0])
    if len(varying) > COLUMNS or shown * 2 ** len(varying) * outputs > VALUES:
        return None
    count = 0
    for mask in coalitions(pool.codes.shape[1], varying):
        part = distinct(pool, mask)
        count += len(part.shown) * len(part.others)
        if count > most:
            return None
    return count


def values(pool: Pool, *, clock: Clock) -> Solved:
    """Return the values against the whole background.

    Raises
    ------
    NotApplicable
        The clock did not allow all predictions.
    """
    varying = np.flatnonzero(pool.varying())
    parts = [distinct(pool, mask) for mask in coalitions(pool.codes.shape[1], varying)]
    sizes = np.array([len(p.shown) * len(p.others) for p in parts])
    rows = np.concatenate([np.repeat(p.shown, len(p.others)) for p in parts])
    partners = np.concatenate([np.tile(p.others, len(p.shown)) for p in parts])
    which = np.repeat(np.arange(len(parts)), sizes)
    masks = np.stack([p.mask for p in parts])
    output = masking.evaluate_all(
        pool, rows=rows, partners=partners, masks=lambda s: masks[which[s]], clock=clock
    )
    game = np.empty((pool.n, len(parts), output.shape[1]))
    ends = np.cumsum(sizes)
    for s, part in enumerate(parts):
        block = output[ends[s] - sizes[s] : ends[s]].reshape(len(part.shown), len(part.others), -1)
        game[:, s] = np.einsum("abk,b->ak", block, part.share)[part.member]
    found = np.zeros((pool.n, pool.codes.shape[1], game.shape[2]))
    found[:, varying] = shapley(game)
    return Solved(values=found, base=game[0, 0], games=pool.n, predicted=len(rows))


def shapley(game: FloatArray) -> FloatArray:
    """Return the Shapley values (n, d, k) of games given by their values of all coalitions (n, 2^d, k).

    Examples
    --------
    >>> shapley(np.array([0.0, 1.0, 1.0, 3.0]).reshape(1, 4, 1)).ravel().tolist()
    [1.5, 1.5]
    """
    n, size, k = game.shape
    d = size.bit_length() - 1
    position = np.arange(size)
    count = np.array([int(s).bit_count() for s in position])
    weight = np.array([factorial(c) * factorial(d - c - 1) / factorial(d) for c in range(d)])
    values = np.empty((n, d, k))
    for j in range(d):
        without = position[(position >> j) & 1 == 0]
        change = game[:, without | (1 << j)] - game[:, without]
        values[:, j] = np.einsum("nsk,s->nk", change, weight[count[without]])
    return values
