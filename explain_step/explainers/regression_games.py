"""The game of a sum whose unknown terms are expected, by linear regression, from the known columns.

Columns come as blocks of coordinates y with mean zero, unit variance and no correlation inside a block. Knowing the
columns of a coalition S, the other terms of the sum are expected to be ``y_S' gamma_S``, where ``gamma_S`` is what the
regression of the whole sum on S adds to the terms of S themselves. The Shapley values of that expectation are linear in y,
so that their coefficients (`shapley`) hold for every row.

Regressions on all coalitions share their work: each follows from that on one column less by sweeping one more column
(Beaton 1964; Goodnight 1979, doi:10.1080/00031305.1979.10482685).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from explain_step.types import FloatArray

BoolArray = npt.NDArray[np.bool_]
COLLINEAR = 1e-10
"""A coordinate whose variance is smaller than this, once others are known, tells nothing beyond them: it may be rounding."""
AT_ONCE = 1_000_000
"""Cells of the coalitions that are looked at together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressionGame:
    """What the columns tell about each other, and about the sum.

    Attributes
    ----------
    correlation : ndarray of shape (r, r)
        Of the coordinates.
    covariance : ndarray of shape (r, k)
        Of the coordinates with k sums.
    own : ndarray of shape (r, k)
        Coefficients of each column's own term in its coordinates.
    widths : tuple of int
        Coordinates of each of the d columns, in order; none of a column that never varies.
    """

    correlation: FloatArray
    covariance: FloatArray
    own: FloatArray
    widths: tuple[int, ...]

    @property
    def playing(self) -> tuple[int, ...]:
        """Positions of the columns that vary; the others tell nothing, and nothing tells of them."""
        return tuple(j for j, width in enumerate(self.widths) if width)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The coordinates of each column that varies."""
        ends = np.cumsum([self.widths[j] for j in self.playing], dtype=int)
        return tuple(slice(int(e) - self.widths[j], int(e)) for j, e in zip(self.playing, ends, strict=True))


def cells(game: RegressionGame) -> int:
    """Return how many numbers `shapley` changes, about: what it costs."""
    remaining, coalitions, found = len(game.correlation) + game.covariance.shape[1], 1, 0
    for j in _largest_first(game):
        found += coalitions * len(game.correlation) * remaining * game.widths[game.playing[j]]
        coalitions, remaining = 2 * coalitions, remaining - game.widths[game.playing[j]]
    return found


def shapley(game: RegressionGame) -> FloatArray:
    """Return the coefficients (r, d, k) of each column's Shapley value, from all coalitions.

    The value of column j is ``y @ coefficients[:, j]``; over columns they sum to zero.

    Examples
    --------
    Two columns with correlation 0.5, of which the sum has the first alone: the second tells of it, and is credited.

    >>> one = np.array([[1.0], [0.5]])
    >>> game = RegressionGame(correlation=np.array([[1.0, 0.5], [0.5, 1.0]]), covariance=one,
    ...     own=np.array([[1.0], [0.0]]), widths=(1, 1))
    >>> shapley(game)[:, :, 0].tolist()
    [[0.0, 0.0], [-0.25, 0.25]]
    """
    r, k = game.covariance.shape
    blocks, order = game.blocks, _largest_first(game)
    d = len(blocks)
    found = np.zeros((r * k, d))
    within = np.array([0.0, *(1 / (d * comb(d - 1, s - 1)) for s in range(1, d + 1))])
    without = np.array([*(1 / (d * comb(d - 1, s)) for s in range(d)), 0.0])
    todo = [(_tableau(game)[None], np.zeros((1, d), dtype=bool), 0)]
    while todo:
        tableau, member, at = todo.pop()
        if at == d:
            size = member.sum(axis=1)[:, None]
            weight = np.where(member, within[size], -without[size])
            found += _expected(game, tableau, member).reshape(len(member), -1).T @ weight
            continue
        tableau, member = _doubled(tableau, member, rows=blocks[order[at]], column=order[at])
        parts = 2 if tableau.size > AT_ONCE and len(member) > 1 else 1
        split = zip(np.array_split(tableau, parts), np.array_split(member, parts), strict=True)
        todo += [(some, who, at + 1) for some, who in split]
    return _placed(game, found.reshape(r, k, d))


def _largest_first(game: RegressionGame) -> list[int]:
    """Return the order in which columns are decided: the last ones are swept in most coalitions."""
    widths = [game.widths[j] for j in game.playing]
    return sorted(range(len(widths)), key=lambda j: -widths[j])


def _tableau(game: RegressionGame) -> FloatArray:
    """Return coordinates and sums side by side, with the largest columns first: (r, r + k)."""
    blocks = game.blocks
    order = [q for j in _largest_first(game) for q in range(blocks[j].start, blocks[j].stop)]
    return np.concatenate([game.correlation[:, order], game.covariance], axis=1)


def _doubled(
    tableau: FloatArray, member: BoolArray, *, rows: slice, column: int
) -> tuple[FloatArray, BoolArray]:
    """Return all coalitions without the column, then with it; its coordinates are the tableau's first columns.

    They are dropped: nothing is swept by them again. A row of zeros stays zero.
    """
    width = rows.stop - rows.start
    swept = tableau.copy()
    for i in range(width):
        _sweep(swept, row=rows.start + i, column=i)
    left = tableau[:, :, width:].copy()
    left[:, rows] = 0.0
    joined = member.copy()
    joined[:, column] = True
    return np.concatenate([left, swept[:, :, width:]]), np.concatenate([member, joined])


def _sweep(tableau: FloatArray, *, row: int, column: int) -> None:
    """Add one coordinate to the known ones, in place."""
    pivot = tableau[:, row, column]
    new = np.zeros_like(tableau[:, row])
    np.divide(tableau[:, row], pivot[:, None], out=new, where=(pivot > COLLINEAR)[:, None])
    factor = tableau[:, :, column].copy()
    tableau -= factor[:, :, None] * new[:, None, :]
    tableau[:, row] = new


def _expected(game: RegressionGame, tableau: FloatArray, member: BoolArray) -> FloatArray:
    """Return ``gamma`` (coalitions, r, k): the regression of the whole sum, without the members' own terms.

    Of all columns nothing is left to expect, also where some coordinates tell nothing beyond others.
    """
    known = np.repeat(member, [block.stop - block.start for block in game.blocks], axis=1)
    known &= ~np.all(member, axis=1, keepdims=True)
    return np.where(known[:, :, None], tableau - game.own, 0.0)


def _placed(game: RegressionGame, found: FloatArray) -> FloatArray:
    """Return coefficients of the columns that vary (r, k, d) among those of all columns: (r, all, k)."""
    placed = np.zeros((found.shape[0], len(game.widths), found.shape[1]))
    placed[:, list(game.playing)] = np.moveaxis(found, 2, 1)
    return placed
