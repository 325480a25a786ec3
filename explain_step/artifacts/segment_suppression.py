"""Which cells to withhold, so that no small group is published and none can be recovered by subtraction.

The total and every margin of an intersection are taken to be public. Cells under the smallest size are
withheld (primary suppression); then further cells, smallest first, until what is withheld cannot be computed
from what is published (complementary suppression; Willenborg and de Waal 2001, doi:10.1007/978-1-4613-0121-9,
ch. 5):

1. in every partition, and in every margin of an intersection, the withheld cells are at least two (or none)
and hold
   at least the smallest size together;
2. no published cell lies inside another with a difference under the smallest size;
3. no withheld cell, and no small group of rows that the cuts tell apart, is a linear combination of published
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from explain_step.artifacts.segment_rules import Partition
from explain_step.types import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]
LARGEST_SYSTEM = 4000
"""Groups of rows told apart by all cuts together; beyond, only rules 1 and 2 are checked."""
AT_ONCE = 1 << 16
"""Rows whose combinations are looked at together."""
DERIVABLE = 1e-7


def withheld(
    partitions: Sequence[Partition], *, smallest: int, rows: IntArray | None = None
) -> tuple[BoolArray, ...]:
    """Return for each partition which of its levels are withheld.

    Parameters
    ----------
    partitions : sequence of Partition
        Everything that is going to be published together.
    smallest : int
        Least number of rows of a published group.
    rows : ndarray of int, optional
        Count only these row positions.

    Examples
    --------
    >>> codes = np.repeat([0, 1, 2], [5, 30, 90])
    >>> kw = {"name": "a", "levels": ("x", "y", "z"), "origin": "declared", "columns": frozenset("a")}
    >>> p = Partition(codes=codes, **kw)
    >>> withheld([p], smallest=20)[0].tolist()
    [True, True, False]
    """
    if not partitions:
        return ()
    codes = [p.codes if rows is None else p.codes[rows] for p in partitions]
    n = len(codes[0])
    parts = (
        np.unique(np.stack([c[start : start + AT_ONCE] for c in codes], axis=1), axis=0, return_counts=True)
        for start in range(0, max(n, 1), AT_ONCE)
    )
    return _withheld(partitions, parts, smallest=smallest)


def withheld_of(
    partitions: Sequence[Partition], atoms: IntArray, *, sizes: IntArray, smallest: int
) -> tuple[BoolArray, ...]:
    """Return what `withheld` does, for m combinations of levels (m, partitions) and the rows of each (m,).

    The codes of the partitions are not looked at.
    """
    return _withheld(partitions, [(atoms, sizes)], smallest=smallest)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counted:
    """Rows in each cell, in each two of them, and in the groups that all cuts together tell apart, where these are few."""

    counts: FloatArray
    both: FloatArray
    atoms: tuple[FloatArray, FloatArray] | None


def _counted(cells: Sequence[tuple[int, int]], parts: Iterable[tuple[IntArray, IntArray]]) -> _Counted:
    """Count combinations of levels, given in parts: only a part of them is held as a matrix of cells."""
    counts, both = np.zeros(len(cells)), np.zeros((len(cells), len(cells)))
    known: tuple[IntArray, IntArray] | None = None
    few = True
    for atoms, sizes in parts:
        member = _member(atoms, cells)
        counts += member @ sizes
        both += (member * sizes) @ member.T
        if few:
            known = _united(known, (atoms, sizes))
            few = len(known[1]) <= LARGEST_SYSTEM
    small = (_member(known[0], cells), known[1].astype(np.float64)) if few and known is not None else None
    return _Counted(counts=counts, both=both, atoms=small)


def _member(atoms: IntArray, cells: Sequence[tuple[int, int]]) -> FloatArray:
    return np.stack([atoms[:, i] == level for i, level in cells]).astype(np.float64)


def _united(
    known: tuple[IntArray, IntArray] | None, more: tuple[IntArray, IntArray]
) -> tuple[IntArray, IntArray]:
    """Return the combinations of both with their rows."""
    if known is None:
        return more
    atoms, place = np.unique(np.concatenate([known[0], more[0]]), axis=0, return_inverse=True)
    sizes = np.bincount(place.ravel(), weights=np.concatenate([known[1], more[1]]), minlength=len(atoms))
    return atoms, sizes.astype(np.int64)


def _withheld(
    partitions: Sequence[Partition], parts: Iterable[tuple[IntArray, IntArray]], *, smallest: int
) -> tuple[BoolArray, ...]:
    cells = [(i, level) for i, p in enumerate(partitions) for level in range(len(p.levels))]
    known = _counted(cells, parts)
    hidden = (known.counts < smallest) & (known.counts > 0)
    groups = _groups(partitions, cells)
    found: int | None = 0
    while found is not None:
        found = _next(hidden, known=known, groups=groups, smallest=smallest)
        if found is not None:
            hidden[found] = True
    empty = known.counts == 0
    return tuple(
        np.array([hidden[c] or empty[c] for c, (i, _) in enumerate(cells) if i == wanted], dtype=np.bool_)
        for wanted in range(len(partitions))
    )


def complete(counts: IntArray, *, smallest: int) -> BoolArray:
    """Return which counts of one partition with a public total are withheld (rule 1 alone).

    Examples
    --------
    >>> complete(np.array([5, 30, 90]), smallest=20).tolist()
    [True, True, False]
    """
    hidden = (counts < smallest) & (counts > 0)
    group = np.arange(len(counts))
    found = _open_group(hidden, counts=counts.astype(np.float64), groups=[group], smallest=smallest)
    while found is not None:
        hidden[found] = True
        found = _open_group(hidden, counts=counts.astype(np.float64), groups=[group], smallest=smallest)
    return np.asarray(hidden, dtype=np.bool_)


def _groups(partitions: Sequence[Partition], cells: Sequence[tuple[int, int]]) -> list[IntArray]:
    """Return the sets of cells whose total is public: whole partitions and margins of intersections."""
    start = {i: c for c, (i, level) in reversed(list(enumerate(cells))) if level == 0}
    groups = []
    for i, p in enumerate(partitions):
        groups.append(start[i] + np.arange(len(p.levels)))
        groups.extend(start[i] + np.array(margin) for margin in p.margins)
    return groups


def _next(hidden: BoolArray, *, known: _Counted, groups: Sequence[IntArray], smallest: int) -> int | None:
    """Return the next cell to withhold, or None when nothing small can be recovered."""
    counts = known.counts
    found = _open_group(hidden, counts=counts, groups=groups, smallest=smallest)
    if found is None:
        found = _nested(hidden, counts=counts, both=known.both, smallest=smallest)
    if found is None and known.atoms is not None:
        member, sizes = known.atoms
        found = _derivable(hidden, counts=counts, member=member, sizes=sizes, smallest=smallest)
    return found


def _open_group(
    hidden: BoolArray, *, counts: FloatArray, groups: Sequence[IntArray], smallest: int
) -> int | None:
    """Rule 1: the smallest published cell of a group whose withheld cells are one, or too few rows together.

    A margin that is itself under the smallest size is not public: all its cells are small and withheld
    already.
    """
    for group in groups:
        inside = group[counts[group] > 0]
        gone = inside[hidden[inside]]
        if len(gone) and (len(gone) == 1 or counts[gone].sum() < smallest):
            candidate = _smallest(inside[~hidden[inside]], counts)
            if candidate is not None:
                return candidate
    return None


def _smallest(cells: IntArray, counts: FloatArray) -> int | None:
    return int(cells[np.argmin(counts[cells])]) if len(cells) else None


def _nested(hidden: BoolArray, *, counts: FloatArray, both: FloatArray, smallest: int) -> int | None:
    """Rule 2: a published cell inside another published cell that is larger by a few rows."""
    shown = np.flatnonzero(~hidden & (counts > 0))
    shown = shown[np.argsort(counts[shown], kind="stable")]
    size = counts[shown]
    inside = both[np.ix_(shown, shown)] == size[:, None]
    more = size[None, :] - size[:, None]
    bad = inside & (more > 0) & (more < smallest)
    hit = np.flatnonzero(bad.any(axis=1))
    return int(shown[hit[0]]) if len(hit) else None


def _derivable(
    hidden: BoolArray, *, counts: FloatArray, member: FloatArray, sizes: FloatArray, smallest: int
) -> int | None:
    """Rule 3: a small group that is a linear combination of published counts; the smallest one used."""
    shown = np.flatnonzero(~hidden & (counts > 0))
    known = np.vstack([np.ones((1, member.shape[1])), member[shown]])
    _, singular, right = np.linalg.svd(known, full_matrices=False)
    rank = int((singular > 1e-9 * singular[0]).sum())
    basis = right[:rank]
    small = np.flatnonzero((counts > 0) & (counts < smallest))
    for target in member[small]:
        if np.abs((target @ basis.T) @ basis - target).max() < DERIVABLE:
            return _used(target, known, shown=shown, counts=counts)
    certain = np.flatnonzero(((basis**2).sum(axis=0) > 1 - DERIVABLE) & (sizes < smallest))
    for atom in certain:
        return _used(np.eye(1, member.shape[1], int(atom))[0], known, shown=shown, counts=counts)
    return None


def _used(target: FloatArray, known: FloatArray, *, shown: IntArray, counts: FloatArray) -> int | None:
    weights = np.linalg.lstsq(known.T, target, rcond=None)[0][1:]
    return _smallest(shown[np.abs(weights) > DERIVABLE], counts)
