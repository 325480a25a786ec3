"""What exact values of deep trees will cost, and the rows that a budget affords.

A leaf whose path has few columns costs a look-up. That of a forest grown to the end has ten to twenty, and is valued for
every distinct pattern of conditions that rows meet at it (`tree_deep`): thousands of such leaves per tree take minutes.
Patterns are counted (`tree_pilot`), seconds reckoned from counts: the same rows are explained on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explain_step.explainers import tree_compiled, tree_pilot
from explain_step.explainers.ensembles import Ensemble, Tree
from explain_step.explainers.tree_compiled import KEPT_ROWS
from explain_step.explainers.tree_groups import MOST_BITS
from explain_step.explainers.tree_pilot import Pilot
from explain_step.types import FloatArray, IntArray

SHALLOW, MOST_TABLE = 8, 16
"""Distinct columns on the path: up to the first a leaf costs a look-up; up to the second it can have a table."""
PER_LEAF, PER_ROW, PER_OTHER, PER_VALUE = 13e-6, 2.5e-9, 2.4e-9, 0.38e-9
"""Processor seconds of a deep leaf: itself, of an explained and a background row, and of each number added to a row."""
PER_PATTERN, PER_SLOT, PER_SORTED = 9e-9, 0.5e-9, 9e-9
"""Of an explained pattern and column; of a place for a pattern; of a row that is sorted, by the patterns' logarithm."""
PER_ENTRY, PER_PAIR, PER_MEETING = 0.6e-9, 0.1e-9, 11e-9
"""Of an entry of a table and column; of a pair of an explained and a background pattern, and more where they meet."""
PER_LOOK_UP = (5.5e-6, 0.7e-9, 0.4e-9)
"""Of a shallow leaf, of an explained row and of a background row there."""
MEETING = 0.05
"""Share of pairs that meet where nobody counted."""
TABLE_PAYS = 15
"""A table is made where its entries are fewer than so many times the background's patterns: `tree_deep` chooses so."""
WITHOUT_NUMBA, LONG = 5.0, 10.0
"""How many times longer NumPy takes, about, and how many times a tree of longer paths than packed patterns hold."""
PER_SECOND = 2.0
"""Processor seconds of exact work that a second of the stage's budget affords, on two processors. The stage has half of the
step's budget."""
FEWEST, FEW, FAR = 1_000, 100, 2.0
"""Rows, explained ones and those of the background, that are never cut; few where these take more than the whole budget, of
which the stage has half."""


def affordable(
    ensemble: Ensemble,
    *,
    sources: IntArray,
    rows: int,
    background: int,
    budget: float,
    sample: Callable[[], tuple[FloatArray, FloatArray]],
    held: bool = False,
) -> tuple[int, int]:
    """Return how many rows to explain and how many background rows to take, so that ``budget`` seconds hold.

    The larger of the two is cut first, and neither below `FEWEST`, or `FEW` where that would take far too long. Look-ups
    have no budget: where they are most of the work, nothing is cut.

    Parameters
    ----------
    sources : ndarray of int
        Raw column of each encoded column.
    rows, background : int
        What there is.
    budget : float
        Of the stage, in seconds.
    sample : callable
        Returns those of the rows and of the background that `tree_pilot.chosen` tells, encoded; asked for where the answer
        depends on them.
    held : bool
        Rows come block by block, against tables that are held; see `tree_compiled.block_rows`.

    Examples
    --------
    >>> stump = Ensemble(trees=(), offset=np.zeros(1), encode=np.asarray, columns=())
    >>> affordable(stump, sources=np.zeros(0, dtype=np.int64), rows=10**6, background=10**4, budget=1.0, sample=tuple)
    (1000000, 10000)
    """
    allowed = budget * PER_SECOND
    blocks = max(1, -(-rows // _block(ensemble, sources, held=held)))
    if blocks * _at_most(ensemble, sources, rows=-(-rows // blocks), background=background) <= allowed:
        return rows, background  # whatever the paths and the rows: spares the look at them
    work = look(ensemble, sources=sources, rows=rows, background=background, sample=sample, held=held)
    if work is None or work.deep(rows, background) < work.look_ups(rows, background):
        return rows, background
    few = (min(rows, FEWEST), min(background, FEWEST))
    least = FEWEST if work.seconds(*few) <= FAR * allowed else FEW
    while (rows > least or background > least) and work.seconds(rows, background) > allowed:
        if background >= rows:
            background = max(least, int(background * 0.9))
        else:
            rows = max(least, int(rows * 0.9))
    return rows, background


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What there is to do: deep leaves, as a pilot found them, and look-ups; ``slower`` than the compiled engine.

    Each ``block`` of rows has the work of its own patterns and of the whole background.
    """

    pilot: Pilot
    shallow: int
    outputs: int
    slower: float
    block: int

    def seconds(self, rows: int, background: int) -> float:
        """Return the processor seconds of the values of so many rows against so many background rows."""
        return self.deep(rows, background) + self.look_ups(rows, background)

    def deep(self, rows: int, background: int) -> float:
        """Return the part of the deep leaves."""
        blocks = max(1, -(-rows // self.block))
        some = -(-rows // blocks)
        ours, theirs = self.pilot.patterns(rows=some, background=background)
        each = _seconds(
            self.pilot.columns, ours, theirs,
            rows=some, background=background, outputs=self.outputs, meeting=self.pilot.meeting,
        )  # fmt: skip
        return float(self.pilot.times @ each) * self.slower * blocks

    def look_ups(self, rows: int, background: int) -> float:
        """Return the part of the other leaves."""
        itself, row, other = PER_LOOK_UP
        return self.shallow * (itself + row * rows * self.outputs + other * background) * self.slower


def look(
    ensemble: Ensemble,
    *,
    sources: IntArray,
    rows: int,
    background: int,
    sample: Callable[[], tuple[FloatArray, FloatArray]],
    held: bool = False,
) -> Work | None:
    """Return the work of so many rows; None where no leaf is deep. Parameters are those of `affordable`."""
    found = [tree_pilot.deep_leaves(tree, sources, shallow=SHALLOW) for tree in ensemble.trees]
    deep = sum(len(nodes) for nodes, _ in found)
    if deep == 0:
        return None
    slower = _slower(ensemble, rows=rows + background)
    long = [columns.max(initial=0) > MOST_BITS for _, columns in found]
    weights = np.where(long, max(1.0, LONG / slower), 1.0)
    pilot = tree_pilot.count(ensemble, *sample(), sources=sources, leaves=found, weights=weights)
    return Work(
        pilot=pilot,
        shallow=_leaves(ensemble) - deep,
        outputs=_width(ensemble),
        slower=slower,
        block=_block(ensemble, sources, held=held),
    )


def _block(ensemble: Ensemble, sources: IntArray, *, held: bool) -> int:
    return tree_compiled.block_rows(len(np.unique(sources)) * len(ensemble.offset), held=held)


def _leaves(ensemble: Ensemble) -> int:
    return sum(int((tree.left < 0).sum()) for tree in ensemble.trees)


def _slower(ensemble: Ensemble, *, rows: int) -> float:
    return 1.0 if tree_compiled.worthwhile(ensemble, rows=rows) else WITHOUT_NUMBA


def _at_most(ensemble: Ensemble, sources: IntArray, *, rows: int, background: int) -> float:
    """Return about the most that trees of so many leaves can take: each has the dearest path, each row its own pattern."""
    k = np.arange(len(np.unique(sources)) + 1.0)
    ours, theirs = (np.minimum(2.0 ** np.minimum(k, 60), size) for size in (rows, background))
    each = _seconds(
        k, ours, theirs, rows=rows, background=background, outputs=_width(ensemble), meeting=MEETING
    )
    slower = _slower(ensemble, rows=rows + background)
    return float(each.max()) * _leaves(ensemble) * (max(slower, LONG) if len(k) > MOST_BITS + 1 else slower)


def pair_entries(ensemble: Ensemble, *, sources: IntArray) -> float:
    """Return what the tables of interactions of all deep leaves hold: entries times pairs of columns.

    Examples
    --------
    >>> stump = Ensemble(trees=(), offset=np.zeros(1), encode=np.asarray, columns=())
    >>> pair_entries(stump, sources=np.zeros(0, dtype=np.int64))
    0.0
    """
    total = 0.0
    for tree in () if _is_shallow(ensemble) else ensemble.trees:
        k = _deep(tree, sources).astype(np.float64)
        total += float((2.0**k * k * (k - 1) / 2).sum())
    return total


def _is_shallow(ensemble: Ensemble) -> bool:
    """Return whether no path has more than `SHALLOW` splits, of all trees at once: faster than `_deep` of each."""
    if not ensemble.trees:
        return True
    start = np.cumsum([0, *(len(tree.left) for tree in ensemble.trees)])[:-1]
    shift = np.repeat(start, [len(tree.left) for tree in ensemble.trees])
    left, right = (
        np.concatenate([getattr(t, side) for t in ensemble.trees]) + shift for side in ("left", "right")
    )
    inner = np.concatenate([tree.left for tree in ensemble.trees]) >= 0
    at = start
    for _ in range(SHALLOW):
        at = at[inner[at]]
        at = np.concatenate([left[at], right[at]])
    return not inner[at].any()


def _width(ensemble: Ensemble) -> int:
    """Return the most outputs that a tree adds to."""
    return max((len(tree.outputs) for tree in ensemble.trees), default=1)


def _seconds(
    k: FloatArray,
    ours: FloatArray,
    theirs: FloatArray,
    *,
    rows: int,
    background: int,
    outputs: int,
    meeting: FloatArray | float,
) -> FloatArray:
    """Return the processor seconds of leaves of k columns with so many distinct patterns of rows and background rows."""
    table = k <= MOST_TABLE
    slots = 2.0 ** np.minimum(k, MOST_TABLE)
    anew = np.where(
        background > KEPT_ROWS, np.maximum(0.2 * k, 1.0), 1.0
    )  # the path is followed for each leaf
    followed = PER_LEAF + PER_ROW * rows + PER_OTHER * background * anew
    ordered = PER_SORTED * (rows * np.log2(ours + 1) + background * np.log2(theirs + 1))
    from_table = PER_ENTRY * slots * k
    from_pairs = ours * theirs * (PER_PAIR + PER_MEETING * meeting)
    valued = np.where(table & (slots < TABLE_PAYS * theirs), from_table, from_pairs)
    added = PER_VALUE * k * outputs * rows + PER_PATTERN * k * ours
    return np.asarray(followed + np.where(table, PER_SLOT * slots, ordered) + valued + added)


def _deep(tree: Tree, sources: IntArray) -> IntArray:
    """Return the number of distinct raw columns on the path of each leaf that has more than `SHALLOW`."""
    return tree_pilot.deep_leaves(tree, sources, shallow=SHALLOW)[1]
